//! Two forests and the confidence they have earned.

use super::{Case, features::Vocabulary};
use crate::learn::{Aims, Forest, Isotonic, Shape, Table, folds};

/// Trees of each forest.
const TREES: usize = 200;
/// Columns tried at a node, as a share: many signs say the same.
const COLUMNS: f64 = 0.1;
/// Entities that are no cause are many: the cause counts this many times.
const CAUSE_WEIGHT: f32 = 5.0;
/// Folds within the past, for the confidence.
const INNER_FOLDS: usize = 4;
/// Fewer answers than this prove no confidence.
const ANSWERS_MIN: usize = 8;
/// Seed of folds and forests.
const SEED: u64 = 1;

/// What a past case turned out to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// Number of its class.
    pub class: usize,
    /// The entity it began at.
    pub cause: Option<usize>,
}

/// What a case is taken for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Number of the class.
    pub class: usize,
    /// How often such an answer is right, from 0 to 1.
    pub confidence: f32,
    /// Not sure enough to act on.
    pub abstain: bool,
    /// Shares of all classes; they sum to 1.
    pub shares: Vec<f32>,
    /// The entity it most likely began at, as a place in the case.
    pub cause: Option<usize>,
}

/// Learned from past cases.
#[derive(Clone, Debug)]
pub struct Classifier {
    forests: Forests,
    /// From the best class's share to how often it is right.
    earned: Isotonic,
    /// The least share that is answered.
    threshold: f32,
}

impl Classifier {
    /// Learns from the past cases named. It answers where it was right at least `accuracy` of the
    /// times, on cases it had not seen.
    #[must_use]
    pub fn fit(
        (cases, labels): (&[Case], &[Label]),
        past: &[usize],
        classes: usize,
        accuracy: f64,
    ) -> Self {
        let kinds: Vec<(usize, usize)> =
            past.iter().map(|&case| (case, labels[case].class)).collect();
        let fold = folds(&kinds, INNER_FOLDS, SEED);
        let mut earned = Vec::with_capacity(past.len());
        for turn in 0..INNER_FOLDS {
            let of = |own: bool| -> Vec<usize> {
                let chosen = past.iter().zip(&fold).filter(|(_, fold)| (**fold == turn) == own);
                chosen.map(|(case, _)| *case).collect()
            };
            let forests = Forests::fit((cases, labels), &of(false), classes);
            for case in of(true) {
                let (shares, _) = forests.shares(&cases[case]);
                let (class, share) = best(&shares);
                earned.push((share, class == labels[case].class));
            }
        }
        let pairs = earned.iter().map(|&(share, right)| (share, f32::from(u8::from(right)), 1.0));
        Self {
            forests: Forests::fit((cases, labels), past, classes),
            earned: Isotonic::fit(pairs.collect()),
            threshold: threshold(earned, accuracy),
        }
    }

    /// What a case is taken for.
    #[must_use]
    pub fn classify(&self, case: &Case) -> Verdict {
        let (shares, cause) = self.forests.shares(case);
        let (class, share) = best(&shares);
        let confidence = self.earned.at(share).clamp(0.0, 1.0);
        Verdict { class, confidence, abstain: share < self.threshold, shares, cause }
    }
}

/// The least share above which answers are right at least `accuracy` of the times.
fn threshold(mut earned: Vec<(f32, bool)>, accuracy: f64) -> f32 {
    earned.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut right, mut least) = (0usize, 2.0);
    for (at, (share, hit)) in earned.iter().enumerate() {
        right += usize::from(*hit);
        let answers = at + 1;
        let last_of_equals = earned.get(answers).is_none_or(|next| next.0 < *share);
        if last_of_equals && answers >= ANSWERS_MIN && right as f64 >= accuracy * answers as f64 {
            least = *share;
        }
    }
    least
}

fn best(shares: &[f32]) -> (usize, f32) {
    let top = shares.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    top.unwrap_or((0, 0.0))
}

#[derive(Clone, Debug)]
struct Forests {
    classes: usize,
    vocabulary: Vocabulary,
    of_entities: Forest,
    of_cases: Forest,
}

impl Forests {
    fn fit((cases, labels): (&[Case], &[Label]), past: &[usize], classes: usize) -> Self {
        let vocabulary = Vocabulary::of(past.iter().map(|&case| &cases[case]));
        let shape = Shape { trees: TREES, columns: COLUMNS, leaf_min: 1, seed: SEED };
        let mut entities = Table::default();
        let mut whole = Table::new(vocabulary.case_width());
        let (mut of_entities, mut weights, mut of_cases) = (Vec::new(), Vec::new(), Vec::new());
        for &case in past {
            let (label, table) = (&labels[case], vocabulary.entities(&cases[case]));
            for entity in 0..table.rows() {
                let cause = label.cause == Some(entity);
                of_entities.extend(one_hot(if cause { label.class } else { classes }, classes + 1));
                weights.push(if cause { CAUSE_WEIGHT } else { 1.0 });
            }
            entities.width = table.width;
            entities.cells.extend(table.cells);
            whole.push(vocabulary.case(&cases[case]));
            of_cases.extend(one_hot(label.class, classes));
        }
        let rows: Vec<usize> = (0..entities.rows()).collect();
        let aims = Aims { outputs: classes + 1, targets: &of_entities, weights: &weights };
        let of_entities = Forest::fit(&entities, &rows, aims, &shape);
        let rows: Vec<usize> = (0..past.len()).collect();
        let equal = vec![1.0; past.len()];
        let aims = Aims { outputs: classes, targets: &of_cases, weights: &equal };
        let of_cases = Forest::fit(&whole, &rows, aims, &shape);
        Self { classes, vocabulary, of_entities, of_cases }
    }

    /// Shares of the classes, and the likeliest cause.
    fn shares(&self, case: &Case) -> (Vec<f32>, Option<usize>) {
        let mut joint = vec![0.0; self.classes];
        let mut cause: Option<(usize, f32)> = None;
        let found = self.of_entities.predict(&self.vocabulary.entities(case));
        for (entity, shares) in found.chunks_exact(self.classes + 1).enumerate() {
            let guilt = 1.0 - shares[self.classes];
            if cause.is_none_or(|(_, most)| guilt > most) {
                cause = Some((entity, guilt));
            }
            // Squared in sum: one likely cause says more than many unlikely ones.
            let pairs = joint.iter_mut().zip(shares);
            pairs.for_each(|(sum, share)| *sum += share * guilt);
        }
        let mut table = Table::new(self.vocabulary.case_width());
        table.push(self.vocabulary.case(case));
        let whole = self.of_cases.predict(&table);
        let total = joint.iter().sum::<f32>();
        let mixed = joint
            .iter()
            .zip(&whole)
            .map(|(part, share)| if total > 0.0 { (part / total + share) / 2.0 } else { *share });
        (mixed.collect(), cause.map(|(entity, _)| entity))
    }
}

fn one_hot(class: usize, classes: usize) -> impl Iterator<Item = f32> {
    (0..classes).map(move |other| f32::from(u8::from(other == class)))
}

/// The verdict on each case, by a classifier that has not seen it.
#[must_use]
pub fn cross_validated(
    cases: &[Case],
    labels: &[Label],
    classes: usize,
    (count, accuracy): (usize, f64),
    mut progress: impl FnMut(usize),
) -> Vec<Verdict> {
    let kinds: Vec<(usize, usize)> =
        labels.iter().enumerate().map(|(case, label)| (case, label.class)).collect();
    let fold = folds(&kinds, count, SEED);
    let mut verdicts = vec![Verdict::default(); cases.len()];
    for turn in 0..count {
        progress(turn);
        let (own, others): (Vec<usize>, Vec<usize>) =
            (0..cases.len()).partition(|&case| fold[case] == turn);
        let classifier = Classifier::fit((cases, labels), &others, classes, accuracy);
        for case in own {
            verdicts[case] = classifier.classify(&cases[case]);
        }
    }
    verdicts
}
