//! The report of an experiment: Markdown for reading, HTML for looking, JSON for programs.

mod html;
mod markdown;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use medic_node::expr::Scalar;
use serde::Serialize;

use super::{
    manifest::{Experiment, Kind},
    probe::Round,
};

/// What it came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Steady before and after, and while it lasted what must hold held.
    Steady,
    /// Not so: why.
    NotSteady(String),
    /// Ended early: why.
    Aborted(String),
    /// Something is not as it was.
    UndoIncomplete,
}

impl Verdict {
    /// The exit code that says so.
    #[must_use]
    pub const fn exit(&self) -> u8 {
        match self {
            Self::Steady => 0,
            Self::NotSteady(_) => 1,
            Self::Aborted(_) => 3,
            Self::UndoIncomplete => 4,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steady => f.write_str("the hypothesis holds: steady before and after"),
            Self::NotSteady(why) => write!(f, "the hypothesis FAILED: {why}"),
            Self::Aborted(why) => write!(f, "ABORTED: {why}"),
            Self::UndoIncomplete => f.write_str("UNDO INCOMPLETE: something is not as it was"),
        }
    }
}

/// One fault, once.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultLine {
    /// Its number.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// What sort.
    pub kind: Kind,
    /// What the target was found to be.
    pub target: String,
    /// What was done.
    pub acts: Vec<String>,
    /// What takes it back; none: nothing does.
    pub undo: Vec<String>,
    /// When it was in force.
    pub began_ms: Option<u64>,
    /// When it was taken back.
    pub ended_ms: Option<u64>,
    /// Whether it was taken back.
    pub undone: Option<bool>,
    /// Why it could not be begun.
    pub failed: Option<String>,
}

impl Default for FaultLine {
    fn default() -> Self {
        Self {
            number: 0,
            name: String::new(),
            kind: Kind::Signal,
            target: String::new(),
            acts: Vec::new(),
            undo: Vec::new(),
            began_ms: None,
            ended_ms: None,
            undone: None,
            failed: None,
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When.
    pub at_ms: u64,
    /// In words.
    pub text: String,
}

/// One round of probes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// When.
    pub at_ms: u64,
    /// Whether it was steady.
    pub steady: bool,
    /// Numbers by `probe.field`; facts are 0 and 1.
    pub values: BTreeMap<String, f64>,
}

/// Everything. Times are milliseconds from the first look.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The experiment's name.
    pub experiment: String,
    /// What was to be learnt.
    pub description: String,
    /// What it came to.
    pub verdict: Verdict,
    /// The exit code that says so.
    pub exit_code: u8,
    /// Seed of the drawn times.
    pub seed: u64,
    /// What was expected.
    pub expect: String,
    /// Wall clock at the beginning.
    pub began_wall_ms: u64,
    /// How long it took.
    pub length_ms: u64,
    /// Seconds until it was steady, before and after.
    pub steady_after_s: BTreeMap<&'static str, f64>,
    /// What did not hold while faults were in force.
    pub broken_during: Option<String>,
    /// What was done.
    pub faults: Vec<FaultLine>,
    /// What happened.
    pub events: Vec<Event>,
    /// What was seen.
    pub samples: Vec<Sample>,
    /// What could not be undone.
    pub left: Vec<String>,
    /// Where the undos stand.
    pub journal: PathBuf,
}

impl Report {
    /// An empty report.
    #[must_use]
    pub fn new(experiment: &Experiment, journal: &Path) -> Self {
        Self {
            experiment: experiment.name.clone(),
            description: experiment.spec.description.clone(),
            verdict: Verdict::Steady,
            exit_code: 0,
            seed: experiment.spec.seed,
            expect: experiment.spec.steady_state.expect.clone(),
            began_wall_ms: crate::harness::wall_clock().0,
            length_ms: 0,
            steady_after_s: BTreeMap::new(),
            broken_during: None,
            faults: Vec::new(),
            events: Vec::new(),
            samples: Vec::new(),
            left: Vec::new(),
            journal: journal.to_owned(),
        }
    }

    /// Something happened.
    pub fn event(&mut self, at_ms: u64, text: &str) {
        self.events.push(Event { at_ms, text: text.to_owned() });
    }

    /// It was steady, so many seconds after it was first asked.
    pub fn settled(&mut self, phase: &'static str, took_s: f64) {
        self.steady_after_s.insert(phase, took_s);
    }

    /// A round was seen.
    pub fn sample(&mut self, at_ms: u64, round: &Round, steady: bool) {
        let mut values = BTreeMap::new();
        for (name, fields) in &round.values {
            for (field, value) in fields {
                if let Some(number) = number(value) {
                    values.insert(format!("{name}.{field}"), number);
                }
            }
        }
        self.samples.push(Sample { at_ms, steady, values });
    }

    /// The line of a fault.
    pub fn line(&mut self, number: usize) -> Option<&mut FaultLine> {
        self.faults.iter_mut().find(|line| line.number == number)
    }

    /// Writes `report.md`, `report.html` and `report.json` into a folder.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&mut self, dir: &Path) -> anyhow::Result<()> {
        self.exit_code = self.verdict.exit();
        let files = [
            ("report.md", markdown::render(self)),
            ("report.html", html::render(self)),
            ("report.json", serde_json::to_string_pretty(self)?),
        ];
        for (name, text) in files {
            let path = dir.join(name);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people and plots")]
fn number(value: &Scalar) -> Option<f64> {
    match value {
        Scalar::Number(number) => Some(*number),
        Scalar::Count(count) => Some(*count as f64),
        Scalar::Flag(flag) => Some(f64::from(u8::from(*flag))),
        Scalar::Text(_) => None,
    }
}
