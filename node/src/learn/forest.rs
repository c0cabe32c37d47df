//! Extremely randomised trees: Geurts, Ernst and Wehenkel (2006).
//!
//! Each node draws one cut for each of a few columns and takes the best by variance; a leaf holds the
//! mean of its targets. A target is one number, or a share per class, so one forest does both (the
//! variance of one-hot shares is Gini's impurity). Few cases are no trouble to it: nothing is tuned.

use super::{
    chance::Chance,
    table::{Binned, Bins, STEPS_MAX, Table},
};

/// How it is grown.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Trees.
    pub trees: usize,
    /// Share of the columns tried at a node.
    pub columns: f64,
    /// Least rows in a leaf.
    pub leaf_min: usize,
    /// Seed of its chance.
    pub seed: u64,
}

#[derive(Clone, Debug)]
enum Node {
    Split {
        column: u32,
        step: u8,
        left: u32,
        right: u32,
    },
    /// Where its means begin.
    Leaf(u32),
}

/// A fitted forest.
#[derive(Clone, Debug)]
pub struct Forest {
    bins: Bins,
    outputs: usize,
    trees: Vec<Vec<Node>>,
    means: Vec<f32>,
}

/// Targets: `outputs` numbers a row, and a weight a row.
#[derive(Clone, Copy, Debug)]
pub struct Aims<'a> {
    /// Numbers of a row.
    pub outputs: usize,
    /// Row by row.
    pub targets: &'a [f32],
    /// One a row.
    pub weights: &'a [f32],
}

impl Forest {
    /// Grows it on the rows named.
    #[must_use]
    pub fn fit(table: &Table, rows: &[usize], aims: Aims<'_>, shape: &Shape) -> Self {
        let bins = Bins::of(table, rows, STEPS_MAX);
        let data = bins.apply(table);
        let mut grown = Self { bins, outputs: aims.outputs, trees: Vec::new(), means: Vec::new() };
        let mut chance = Chance::new(shape.seed);
        for _ in 0..shape.trees {
            let mut rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
            let tree = grown.grow(&data, aims, &mut rows, shape, &mut chance);
            grown.trees.push(tree);
        }
        grown
    }

    /// The mean over the trees, `outputs` numbers a row.
    #[must_use]
    pub fn predict(&self, table: &Table) -> Vec<f32> {
        let data = self.bins.apply(table);
        let share = 1.0 / self.trees.len().max(1) as f32;
        let mut all = vec![0.0; data.rows() * self.outputs];
        for row in 0..data.rows() {
            let cells = data.row(row);
            let out = &mut all[row * self.outputs..(row + 1) * self.outputs];
            for tree in &self.trees {
                let at = leaf(tree, cells) as usize;
                for (sum, mean) in out.iter_mut().zip(&self.means[at..at + self.outputs]) {
                    *sum += mean * share;
                }
            }
        }
        all
    }

    fn grow(
        &mut self,
        data: &Binned,
        aims: Aims<'_>,
        rows: &mut [u32],
        shape: &Shape,
        chance: &mut Chance,
    ) -> Vec<Node> {
        let mut nodes = vec![Node::Leaf(0)];
        let mut open = vec![(0usize, 0usize, rows.len())];
        while let Some((at, begin, end)) = open.pop() {
            let part = &mut rows[begin..end];
            match best_of_draws(data, aims, part, shape, chance) {
                Some((column, step)) => {
                    let middle = begin + split(data, part, column, step);
                    let left = nodes.len();
                    nodes.extend([Node::Leaf(0), Node::Leaf(0)]);
                    open.extend([(left, begin, middle), (left + 1, middle, end)]);
                    nodes[at] = Node::Split {
                        column: column as u32,
                        step,
                        left: left as u32,
                        right: left as u32 + 1,
                    };
                }
                None => {
                    nodes[at] = Node::Leaf(self.means.len() as u32);
                    self.means.extend(mean(aims, part));
                }
            }
        }
        nodes
    }
}

fn leaf(tree: &[Node], cells: &[u8]) -> u32 {
    let mut at = 0;
    loop {
        match &tree[at] {
            Node::Leaf(means) => return *means,
            Node::Split { column, step, left, right } => {
                at = if cells[*column as usize] <= *step { *left } else { *right } as usize;
            }
        }
    }
}

fn split(data: &Binned, rows: &mut [u32], column: usize, step: u8) -> usize {
    let mut at = 0;
    for i in 0..rows.len() {
        if data.row(rows[i] as usize)[column] <= step {
            rows.swap(at, i);
            at += 1;
        }
    }
    at
}

fn mean(aims: Aims<'_>, rows: &[u32]) -> Vec<f32> {
    let mut sums = vec![0.0; aims.outputs];
    let mut weight = 0.0;
    for &row in rows {
        let row = row as usize;
        weight += aims.weights[row];
        let own = &aims.targets[row * aims.outputs..(row + 1) * aims.outputs];
        sums.iter_mut().zip(own).for_each(|(sum, target)| *sum += target * aims.weights[row]);
    }
    sums.iter_mut().for_each(|sum| *sum /= weight.max(f32::MIN_POSITIVE));
    sums
}

fn best_of_draws(
    data: &Binned,
    aims: Aims<'_>,
    rows: &[u32],
    shape: &Shape,
    chance: &mut Chance,
) -> Option<(usize, u8)> {
    if rows.len() < 2 * shape.leaf_min.max(1) || all_alike(aims, rows) {
        return None;
    }
    let wanted = ((data.width as f64 * shape.columns).ceil() as usize).max(1);
    let mut columns: Vec<usize> = (0..data.width).collect();
    let (mut tried, mut best): (usize, Option<(f64, usize, u8)>) = (0, None);
    for at in 0..columns.len() {
        if tried >= wanted {
            break;
        }
        let other = at + chance.below(columns.len() - at);
        columns.swap(at, other);
        let column = columns[at];
        let cells = || rows.iter().map(|&row| data.row(row as usize)[column]);
        let (Some(low), Some(high)) = (cells().min(), cells().max()) else { continue };
        if low == high {
            continue;
        }
        tried += 1;
        let step = low + chance.below(usize::from(high - low)) as u8;
        let gain = worth(data, aims, rows, column, step, shape.leaf_min);
        if gain.is_some_and(|gain| best.is_none_or(|(top, ..)| gain > top)) {
            best = gain.map(|gain| (gain, column, step));
        }
    }
    best.map(|(_, column, step)| (column, step))
}

fn all_alike(aims: Aims<'_>, rows: &[u32]) -> bool {
    let own = |row: u32| {
        let row = row as usize;
        &aims.targets[row * aims.outputs..(row + 1) * aims.outputs]
    };
    rows.windows(2).all(|pair| own(pair[0]) == own(pair[1]))
}

/// Sum over both sides of |Σ w·y|² / Σ w: the larger, the less variance is left.
fn worth(
    data: &Binned,
    aims: Aims<'_>,
    rows: &[u32],
    column: usize,
    step: u8,
    leaf_min: usize,
) -> Option<f64> {
    let mut sums = vec![0.0f64; 2 * aims.outputs];
    let (mut weights, mut counts) = ([0.0f64; 2], [0usize; 2]);
    for &row in rows {
        let row = row as usize;
        let side = usize::from(data.row(row)[column] > step);
        let weight = f64::from(aims.weights[row]);
        weights[side] += weight;
        counts[side] += 1;
        let own = &aims.targets[row * aims.outputs..(row + 1) * aims.outputs];
        let into = &mut sums[side * aims.outputs..(side + 1) * aims.outputs];
        into.iter_mut().zip(own).for_each(|(sum, &target)| *sum += f64::from(target) * weight);
    }
    if counts.iter().any(|&count| count < leaf_min.max(1)) || weights.iter().any(|&w| w <= 0.0) {
        return None;
    }
    let square = |side: usize| -> f64 {
        sums[side * aims.outputs..(side + 1) * aims.outputs].iter().map(|s| s * s).sum()
    };
    Some(square(0) / weights[0] + square(1) / weights[1])
}
