//! One experiment, from the first look to the report.
//!
//! ```text
//!   steady? ─► faults ⇄ watch every second ─► undo all ─► steady again? ─► report
//!      └ no: nothing is done    └ abort, Ctrl-C, blind, guardian gone: undo all at once
//! ```

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use medic_state::Millis;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, sleep_until},
};

use super::{
    crew::{Begun, CLUSTER, Crew, Done},
    guard::Guardian,
    journal::Journal,
    judge::{Judge, Streak},
    local::Local,
    manifest::{Experiment, ExperimentSpec, Inject, allow::AllowSpec},
    probe::{Probes, Round},
    report::{FaultLine, Report, Verdict},
    schedule::{self, Turn},
    undo::Undo,
};
use crate::campaign::say;

/// Between two rounds of probes.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// Signals that end an experiment in good order.
struct Stop([(&'static str, Signal); 3]);

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self([
            ("SIGINT", signal(SignalKind::interrupt())?),
            ("SIGTERM", signal(SignalKind::terminate())?),
            ("SIGHUP", signal(SignalKind::hangup())?),
        ]))
    }

    async fn told(&mut self) -> String {
        let [int, term, hup] = &mut self.0;
        let name = tokio::select! {
            _ = int.1.recv() => int.0,
            _ = term.1.recv() => term.0,
            _ = hup.1.recv() => hup.0,
        };
        format!("told to stop by {name}")
    }
}

/// Where an experiment keeps what it writes, and what it needs.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Folder of journal and report.
    pub(super) dir: PathBuf,
    /// The `medic` binary, for `cluster: local`.
    pub(super) medic: Option<PathBuf>,
}

/// Name of the journal in the folder.
pub(super) const JOURNAL: &str = "journal.jsonl";
/// Name of the folder of the experiment's own cluster beside it.
const CLUSTER_DIR: &str = "cluster";

struct Run {
    spec: Arc<ExperimentSpec>,
    turns: Vec<Turn>,
    began: Instant,
    judge: Judge,
    rounds: mpsc::Receiver<Round>,
    crew: Crew,
    guardian: Guardian,
    stop: Stop,
    report: Report,
    /// Faults in force: which, by number.
    in_force: BTreeMap<usize, usize>,
}

/// Runs it; gives the report. Everything that can be undone is.
///
/// # Errors
/// When it cannot even begin; nothing was done then.
pub(super) async fn run(
    experiment: &Experiment,
    allow: AllowSpec,
    place: &Place,
) -> anyhow::Result<Report> {
    let mut stop = Stop::listen()?;
    let (spec, dir) = (Arc::new(experiment.spec.clone()), &place.dir);
    let path = dir.join(JOURNAL);
    let journal = Journal::create(&path, &experiment.name)?;
    let guardian = Guardian::post(&path)?;
    say(&format!("journal: {}", path.display()));
    let id = format!("{:08x}", rand::random::<u32>());
    let mut crew = Crew::new(spec.clone(), Arc::new(allow), journal, id);
    let raised = tokio::select! {
        raised = raise(&spec, place, &crew) => raised,
        why = stop.told() => Err(anyhow::anyhow!(why)),
    };
    let probes = raised.and_then(|local| {
        let dialer = local.as_ref().map(Local::dialer).transpose()?;
        local.into_iter().for_each(|local| crew.employ(local));
        Ok((Probes::new(&spec, dialer.as_ref())?, Judge::new(&spec)?))
    });
    let (probes, judge) = match probes {
        Ok(ready) => ready,
        Err(error) => {
            crew.dismiss().await;
            guardian.dismiss()?;
            return Err(error);
        }
    };
    let (sender, rounds) = mpsc::channel(1);
    let sampler = tokio::spawn(sample(probes, sender));
    let run = Run {
        turns: schedule::turns(&spec),
        report: Report::new(experiment, &path),
        began: Instant::now(),
        in_force: BTreeMap::new(),
        spec,
        judge,
        rounds,
        crew,
        guardian,
        stop,
    };
    let report = run.whole().await;
    sampler.abort();
    report
}

/// The experiment's own cluster, if it has one. Its end is noted before its beginning.
async fn raise(spec: &ExperimentSpec, place: &Place, crew: &Crew) -> anyhow::Result<Option<Local>> {
    if spec.cluster.is_none() {
        return Ok(None);
    }
    let dir = place.dir.join(CLUSTER_DIR);
    crew.intend(CLUSTER, "the cluster", &[Undo::EndCluster { dir: dir.clone() }])?;
    say("starting a cluster of three nodes");
    let clocks = spec.faults.iter().any(|fault| matches!(fault.inject, Inject::ClockSkew(_)));
    let local = Local::raise(&dir, place.medic.as_deref(), spec.seed, clocks).await;
    local.map(Some).context("starting the cluster")
}

async fn sample(probes: Probes, sender: mpsc::Sender<Round>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if sender.send(probes.round().await).await.is_err() {
            return;
        }
    }
}

impl Run {
    async fn whole(mut self) -> anyhow::Result<Report> {
        let before = self.settle("before").await;
        let mut verdict = match before {
            Ok(()) => self.faults().await,
            Err(verdict) => Some(verdict),
        };
        let touched = !self.report.faults.is_empty();
        for done in self.crew.end_all().await {
            self.note(done);
        }
        if touched {
            self.event("everything is undone; is it steady again?");
            let after = self.settle("after").await.err();
            verdict = match (verdict, after) {
                // A second Ctrl-C while waiting adds nothing to the first.
                (Some(Verdict::Aborted(why)), _) => Some(Verdict::Aborted(why)),
                (first, after) => after.or(first),
            };
        }
        let verdict = verdict.unwrap_or_else(|| match &self.report.broken_during {
            Some(why) => Verdict::NotSteady(format!("while faults were in force: {why}")),
            None => Verdict::Steady,
        });
        self.report.left = self.crew.dismiss().await;
        self.guardian.dismiss().context("the guardian does not end")?;
        self.report.verdict =
            if self.report.left.is_empty() { verdict } else { Verdict::UndoIncomplete };
        self.report.length_ms = millis(self.began.elapsed());
        Ok(self.report)
    }

    fn event(&mut self, text: &str) {
        let at_ms = millis(self.began.elapsed());
        say(&format!("{:>7.1} s  {text}", crate::campaign::seconds(at_ms)));
        self.report.event(at_ms, text);
    }

    /// Takes a round into the report; gives whether it is steady.
    fn see(&mut self, round: &Round) -> Result<(), String> {
        let steady = self.judge.steady(round);
        let at_ms = millis(round.at.duration_since(self.began));
        self.report.sample(at_ms, round, steady.is_ok());
        steady
    }

    /// Waits until the system has been steady for as long as it must.
    async fn settle(&mut self, phase: &'static str) -> Result<(), Verdict> {
        let (hold, within) = (self.spec.steady_state.hold, self.spec.steady_state.within);
        let began = Instant::now();
        let deadline = began + within.as_duration();
        let mut streak = Streak::default();
        let mut why = "no probe has answered".to_owned();
        loop {
            let round = tokio::select! {
                round = self.rounds.recv() => round,
                why = self.stop.told() => return Err(Verdict::Aborted(why)),
            };
            let Some(round) = round else {
                return Err(Verdict::Aborted("the probes have ended".to_owned()));
            };
            if round.at < began {
                continue;
            }
            let steady = self.see(&round);
            if streak.count(&round, steady.is_ok()).is_some_and(|s| s >= hold.as_duration()) {
                let took = millis(began.elapsed());
                let took = crate::campaign::seconds(took);
                self.event(&format!("steady {phase} the faults, after {took:.1} s"));
                self.report.settled(phase, took);
                return Ok(());
            }
            if let Err(reason) = steady {
                why = reason;
            }
            if Instant::now() > deadline {
                let expect = self.spec.steady_state.expect.clone();
                let text =
                    format!("not steady {phase} the faults within {within}: `{expect}`: {why}");
                self.event(&text);
                return Err(Verdict::NotSteady(text));
            }
        }
    }

    /// Plays the faults. Gives why that ended early, if it did.
    async fn faults(&mut self) -> Option<Verdict> {
        let began = Instant::now();
        let over = began + schedule::length(&self.spec, &self.turns).as_duration();
        let mut next = 0;
        let mut ends: BTreeMap<(Instant, usize), ()> = BTreeMap::new();
        loop {
            let due = self.turns.get(next).map(|turn| began + turn.at.as_duration());
            let end = ends.first_key_value().map(|(key, ())| *key);
            let idle = due.is_none() && end.is_none() && !self.crew.busy();
            if idle && Instant::now() >= over {
                return None;
            }
            let wake = [due, end.map(|(at, _)| at), idle.then_some(over)];
            let wake = wake.into_iter().flatten().min();
            tokio::select! {
                biased;
                why = self.stop.told() => return self.aborted(why),
                done = self.crew.done(), if self.crew.busy() => {
                    if let Some(begun) = done.and_then(|done| self.note(done)) {
                        if let Some(why) = begun.failed {
                            return self.aborted(format!("a fault could not be begun: {why}"));
                        }
                        let lasts = self.turns[begun.number - 1].lasts;
                        if lasts > Millis(0) {
                            ends.insert((Instant::now() + lasts.as_duration(), begun.number), ());
                        }
                    }
                }
                round = self.rounds.recv() => {
                    let Some(round) = round else {
                        return self.aborted("the probes have ended".to_owned());
                    };
                    if let Some(why) = self.watch(&round) {
                        return self.aborted(why);
                    }
                }
                () = sleep_until(wake.unwrap_or(over).into()), if wake.is_some() => {
                    if let Some((at, number)) = end.filter(|(at, _)| *at <= Instant::now()) {
                        ends.remove(&(at, number));
                        self.crew.end(number);
                    } else if due.is_some_and(|due| due <= Instant::now()) {
                        let turn = self.turns[next];
                        next += 1;
                        self.begin(next, turn).await;
                    }
                }
            }
        }
    }

    async fn begin(&mut self, number: usize, turn: Turn) {
        let fault = &self.spec.faults[turn.fault];
        self.report.faults.push(FaultLine {
            number,
            name: fault.title(),
            kind: fault.inject.kind(),
            ..FaultLine::default()
        });
        self.in_force.insert(number, turn.fault);
        self.crew.begin(number, turn.fault).await;
    }

    fn aborted(&mut self, why: String) -> Option<Verdict> {
        self.event(&format!("aborted: {why}"));
        Some(Verdict::Aborted(why))
    }

    /// One round under faults; gives why to stop, if so.
    fn watch(&mut self, round: &Round) -> Option<String> {
        // What does not hold under faults is no failure unless `during` says so.
        drop(self.see(round));
        if !self.in_force.is_empty()
            && let Err(why) = self.judge.during(round)
            && self.report.broken_during.is_none()
        {
            let text = self.spec.steady_state.during.clone().unwrap_or_default();
            let why = format!("`{text}`: {why}");
            self.event(&format!("does not hold: {why}"));
            self.report.broken_during = Some(why);
        }
        if !self.guardian.stands() {
            return Some("the guardian is gone, and nobody would undo after us".to_owned());
        }
        self.judge.abort(round)
    }

    /// Writes down what has come to its end; gives a fault that was begun.
    fn note(&mut self, done: Done) -> Option<Begun> {
        let at_ms = millis(self.began.elapsed());
        match done {
            Done::Begun(begun) => {
                let name = self.report.line(begun.number).map(|line| {
                    line.target.clone_from(&begun.target);
                    line.acts.clone_from(&begun.acts);
                    line.undo.clone_from(&begun.undo);
                    line.began_ms = Some(at_ms);
                    line.failed.clone_from(&begun.failed);
                    line.name.clone()
                });
                let lasting = self.turns.get(begun.number - 1).is_some_and(|t| t.lasts > Millis(0));
                if begun.failed.is_some() || !lasting {
                    self.in_force.remove(&begun.number);
                }
                let (name, target) = (name.unwrap_or_default(), &begun.target);
                self.event(&match &begun.failed {
                    None => format!("{name}: {} ({target})", begun.acts.join("; ")),
                    Some(why) => format!("{name}: not begun: {why}"),
                });
                Some(begun)
            }
            Done::Ended(undone) => {
                self.in_force.remove(&undone.number);
                let text = match &undone.how {
                    Ok(how) => format!("{}: undone: {}", undone.name, how.join("; ")),
                    Err(why) => format!("{}: NOT UNDONE: {}", undone.name, why.join("; ")),
                };
                self.event(&text);
                if let Some(line) = self.report.line(undone.number) {
                    line.ended_ms = Some(at_ms);
                    line.undone = Some(undone.how.map_err(|why| why.join("; ")).is_ok());
                }
                None
            }
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A fresh folder for an experiment's files.
pub(super) fn folder(out: Option<&Path>, name: &str) -> anyhow::Result<PathBuf> {
    let base = out.map_or_else(
        || Ok(PathBuf::from(".")),
        |out| std::fs::create_dir_all(out).map(|()| out.to_owned()),
    );
    let base = base.and_then(std::fs::canonicalize);
    let base =
        base.with_context(|| format!("making {}", out.unwrap_or(Path::new(".")).display()))?;
    let prefix = format!("experiment-{name}-");
    Ok(tempfile::Builder::new().prefix(&prefix).tempdir_in(&base)?.keep())
}

/// Removes the data of the experiment's own cluster, which has ended: where the hypothesis holds,
/// nobody looks at them. Else they are kept, and it is said where.
pub(super) fn tidy(dir: &Path, verdict: &Verdict) {
    let cluster = dir.join(CLUSTER_DIR);
    if *verdict != Verdict::Steady {
        return say(&format!("its cluster's logs and data: {}", cluster.display()));
    }
    if let Err(error) = std::fs::remove_dir_all(&cluster) {
        say(&format!("its cluster's data are not removed: {}: {error}", cluster.display()));
    }
}
