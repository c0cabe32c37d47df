//! One regression tree over a table in steps, grown best leaf first.
//!
//! Histograms of gradient and curvature per column and step; the larger child's is its parent's less
//! its sibling's. A leaf's value is the Newton step -G / (H + λ): Chen and Guestrin, "XGBoost" (2016),
//! equations 5 to 7; growth by leaves: Ke et al., "LightGBM" (2017).

use std::ops::Range;

use super::table::Binned;

/// Steps a byte can name.
const BINS: usize = 256;
/// A split must gain more than rounding does.
const GAIN_MIN: f64 = 1e-9;

/// How trees are grown.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    /// Leaves of a tree.
    pub leaves: usize,
    /// Least sum of curvature in a leaf.
    pub weight_min: f64,
    /// Least rows in a leaf.
    pub rows_min: usize,
    /// λ: shrinks the values of small leaves.
    pub lambda: f64,
}

/// What a tree is grown from.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// The rows, in steps.
    pub data: &'a Binned,
    /// Gradient and curvature, a pair per row.
    pub slopes: &'a [(f32, f32)],
    /// Columns that may be asked.
    pub columns: &'a [usize],
    /// How.
    pub growth: Growth,
}

#[derive(Clone, Copy, Debug)]
enum Node {
    Split { column: u32, step: u8, left: u32, right: u32 },
    Leaf(f32),
}

/// A grown tree.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    g: f64,
    h: f64,
    n: u32,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.g += other.g;
        self.h += other.h;
        self.n += other.n;
    }

    fn less(self, other: Self) -> Self {
        Self { g: self.g - other.g, h: self.h - other.h, n: self.n - other.n }
    }
}

#[derive(Clone, Copy, Debug)]
struct Split {
    gain: f64,
    column: usize,
    step: u8,
}

/// A leaf that may still be split.
struct Open {
    node: usize,
    rows: Range<usize>,
    sums: Vec<Sum>,
    total: Sum,
    best: Option<Split>,
}

impl Tree {
    /// Grows a tree on `rows`, which are put in another order on the way.
    #[must_use]
    pub fn grow(ground: Ground<'_>, rows: &mut [u32]) -> Self {
        let mut nodes = vec![Node::Leaf(0.0)];
        let mut open = vec![ground.open(0, 0..rows.len(), ground.histogram(rows))];
        while open.len() < ground.growth.leaves {
            let gain = |leaf: &Open| leaf.best.map_or(0.0, |best| best.gain);
            let widest = (0..open.len()).max_by(|&a, &b| gain(&open[a]).total_cmp(&gain(&open[b])));
            let Some((at, split)) = widest.and_then(|at| Some((at, open[at].best?))) else { break };
            let leaf = open.swap_remove(at);
            let next = nodes.len();
            open.extend(ground.halves(&leaf, split, next, rows));
            nodes[leaf.node] = Node::Split {
                column: split.column as u32,
                step: split.step,
                left: next as u32,
                right: next as u32 + 1,
            };
            nodes.extend([Node::Leaf(0.0), Node::Leaf(0.0)]);
        }
        for leaf in open {
            let value = -leaf.total.g / (leaf.total.h + ground.growth.lambda);
            nodes[leaf.node] = Node::Leaf(if value.is_finite() { value as f32 } else { 0.0 });
        }
        Self { nodes }
    }

    /// The value of the leaf that a row falls into.
    #[must_use]
    pub fn value(&self, row: &[u8]) -> f32 {
        let mut at = 0;
        loop {
            match self.nodes[at] {
                Node::Leaf(value) => return value,
                Node::Split { column, step, left, right } => {
                    at = if row[column as usize] <= step { left } else { right } as usize;
                }
            }
        }
    }

    /// Multiplies all leaves.
    pub fn shrink(&mut self, by: f32) {
        for node in &mut self.nodes {
            if let Node::Leaf(value) = node {
                *value *= by;
            }
        }
    }
}

impl Ground<'_> {
    fn halves(&self, leaf: &Open, split: Split, next: usize, rows: &mut [u32]) -> [Open; 2] {
        let Range { start, end } = leaf.rows;
        let goes_left = |row: u32| self.data.row(row as usize)[split.column] <= split.step;
        let middle = start + partition(&mut rows[leaf.rows.clone()], goes_left);
        let left_smaller = middle - start <= end - middle;
        let small = if left_smaller { start..middle } else { middle..end };
        let sums = self.histogram(&rows[small]);
        let others = leaf.sums.iter().zip(&sums).map(|(all, part)| all.less(*part)).collect();
        let (of_left, of_right) = if left_smaller { (sums, others) } else { (others, sums) };
        [self.open(next, start..middle, of_left), self.open(next + 1, middle..end, of_right)]
    }

    fn histogram(&self, rows: &[u32]) -> Vec<Sum> {
        let mut sums = vec![Sum::default(); self.columns.len() * BINS];
        for &row in rows {
            let (g, h) = self.slopes[row as usize];
            let one = Sum { g: f64::from(g), h: f64::from(h), n: 1 };
            let cells = self.data.row(row as usize);
            for (place, &column) in self.columns.iter().enumerate() {
                sums[place * BINS + usize::from(cells[column])].add(one);
            }
        }
        sums
    }

    fn open(&self, node: usize, rows: Range<usize>, sums: Vec<Sum>) -> Open {
        let mut total = Sum::default();
        sums.iter().take(BINS).for_each(|sum| total.add(*sum));
        let best = self.best_split(&sums, total);
        Open { node, rows, sums, total, best }
    }

    fn best_split(&self, sums: &[Sum], total: Sum) -> Option<Split> {
        let growth = self.growth;
        let worth = |sum: Sum| sum.g * sum.g / (sum.h + growth.lambda);
        let fits = |sum: Sum| sum.h >= growth.weight_min && sum.n as usize >= growth.rows_min;
        let base = worth(total);
        let mut best: Option<Split> = None;
        for (place, &column) in self.columns.iter().enumerate() {
            let mut left = Sum::default();
            for step in 0..BINS - 1 {
                let sum = sums[place * BINS + step];
                if sum.n == 0 {
                    continue;
                }
                left.add(sum);
                let right = total.less(left);
                if !fits(right) {
                    break;
                }
                let gain = worth(left) + worth(right) - base;
                if fits(left) && gain > best.map_or(GAIN_MIN, |best| best.gain) {
                    best = Some(Split { gain, column, step: step as u8 });
                }
            }
        }
        best
    }
}

/// Brings those that go left to the front, in their order; tells how many they are.
fn partition(rows: &mut [u32], goes_left: impl Fn(u32) -> bool) -> usize {
    let mut right = Vec::new();
    let mut at = 0;
    for i in 0..rows.len() {
        let row = rows[i];
        if goes_left(row) {
            rows[at] = row;
            at += 1;
        } else {
            right.push(row);
        }
    }
    rows[at..].copy_from_slice(&right);
    at
}
