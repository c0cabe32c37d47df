//! What is learnt of an instance, as it travels to whoever watches it next.
//!
//! What was learnt of an indicator is of use for the same indicator alone: its name, and the query behind it.
//! Where either changed, it starts cold; and the panel, which knows columns by their places, fits only the
//! same indicators altogether.

use std::collections::BTreeMap;

use medic_state::{Digest, codec, manifest::ServiceSpec, symptom::Target};
use minicbor::{Decode, Encode, bytes::ByteVec};

use super::{Entity, Foreknown, Now, carried::read, track::Watched};
use crate::detection::{
    detector::{Panel, SeriesState},
    health::Burn,
    indicator::{Counters, HandedCounters},
    intake::log::HandedLog,
    lord::Stream,
    predict::{budget::Budget, record::Waited, restarts::Restarts},
};

/// The form of [`SeriesState`]; raised when what a field means changes.
const SERIES_FORM: u16 = 1;

/// Detector state of one instance, as it travels.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct EntityCheckpoint {
    /// Instance.
    #[n(0)]
    pub target: Target,
    /// Monotonic time on the clock of its origin.
    #[n(1)]
    pub at_ms: u64,
    /// All indicators together, a [`Panel`]. Indices 2 to 4 held earlier forms, which are passed over.
    #[n(10)]
    pub panel: Option<ByteVec>,
    /// How fast its error budget burns.
    #[n(6)]
    pub burn: Option<Burn>,
    /// When it failed, by the wall's clock.
    #[n(7)]
    pub restarts: Option<Restarts>,
    /// What of its error budget is spent.
    #[n(8)]
    pub budget: Option<Budget>,
    /// What the tests of its shard have spent and earned; beside the first of a shard's instances.
    #[n(9)]
    pub stream: Option<Stream>,
    /// By indicator.
    #[n(11)]
    pub series: BTreeMap<String, CarriedSeries>,
    /// Of what the panel's columns and the counters are: the hash of all names and queries.
    #[n(12)]
    pub columns: u64,
    /// Counters as last scraped.
    #[n(13)]
    pub counters: Option<HandedCounters>,
    /// The process whose growth was watched.
    #[n(14)]
    pub process: Option<Watched>,
    /// What is known of its certificates, and of what falls to a floor.
    #[n(15)]
    pub foreknown: Option<Foreknown>,
    /// Forecasts that wait for their outcome; older builds tell of none.
    #[n(16)]
    pub waited: Option<Vec<Waited>>,
    /// What was learnt of its log; put here by whoever holds that.
    #[n(17)]
    pub log: Option<HandedLog>,
    /// Milliseconds for which it has been watched; older builds do not tell.
    #[n(18)]
    pub watched_ms: Option<u64>,
}

/// What was learnt of one indicator.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct CarriedSeries {
    /// Of the state.
    #[n(0)]
    form: u16,
    /// Of what it was learnt: the hash of its query.
    #[n(1)]
    source: u64,
    /// A [`SeriesState`].
    #[cbor(n(2), with = "minicbor::bytes")]
    state: Vec<u8>,
}

/// Of what the indicators of a service are made.
#[derive(Debug)]
pub(super) struct Sources {
    /// By name, the query behind it: the first bytes of its hash.
    each: BTreeMap<String, u64>,
    /// The names and queries of all, in the order of the names.
    all: u64,
    /// By name, all that is declared of it: its limit and the objective too.
    whole: BTreeMap<String, u64>,
}

impl Sources {
    pub(super) fn of(service: &ServiceSpec) -> Self {
        let hashed = |indicator: &medic_state::manifest::IndicatorSpec| {
            (indicator.name.clone(), short(&codec::encode(&indicator.source)))
        };
        let each: BTreeMap<String, u64> = service.indicators.iter().map(hashed).collect();
        let all = short(&codec::encode(&each));
        let whole = |indicator: &medic_state::manifest::IndicatorSpec| {
            (indicator.name.clone(), short(&codec::encode(&(indicator, &service.slo))))
        };
        Self { each, all, whole: service.indicators.iter().map(whole).collect() }
    }

    /// What is declared of the subject of a forecast; 0 where that is no indicator.
    fn declared(&self, subject: &str) -> u64 {
        self.whole.get(subject).copied().unwrap_or_default()
    }
}

/// The first bytes of a hash: these tell apart what people write, not what somebody forges.
pub(in crate::detection) fn short(bytes: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&Digest::of(&[bytes]).0[..8]);
    u64::from_be_bytes(first)
}

/// What of a checkpoint could not be gone on from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Misfits {
    /// Series of another form, or of another query behind the same name.
    pub series: u64,
    /// The panel: of another form, or of other indicators.
    pub panel: u64,
}

impl Entity {
    /// Detector state, to be shipped.
    #[must_use]
    pub fn checkpoint(&self, now: Now) -> EntityCheckpoint {
        let (restarts, budget) = self.prognosis.learnt();
        let carried = self.series.iter().map(|(name, series)| {
            let source = self.sources.each.get(name).copied().unwrap_or_default();
            let state = codec::encode(&series.state);
            (name.clone(), CarriedSeries { form: SERIES_FORM, source, state })
        });
        EntityCheckpoint {
            target: self.target.clone(),
            at_ms: now.mono_ms,
            panel: Some(codec::encode(&self.together.panel).into()),
            burn: self.budget.as_ref().map(|budget| budget.burn.clone()),
            restarts: Some(restarts),
            budget,
            stream: None,
            series: carried.collect(),
            columns: self.sources.all,
            counters: self.counters.as_ref().and_then(Counters::handed),
            process: self.process.watched(now),
            foreknown: Some(self.prognosis.foreknown()),
            waited: Some(self.prognosis.waited(now, |subject| self.sources.declared(subject))),
            log: None,
            watched_ms: Some(now.mono_ms.saturating_sub(self.watched_since_ms)),
        }
    }

    /// Starts warm from a checkpoint that came at a time; tells what of it does not fit. Indicators it does not
    /// know start cold, and so do those that are other than they were.
    pub fn restore(&mut self, checkpoint: EntityCheckpoint, came: Now) -> Misfits {
        let mut misfits = Misfits::default();
        let same = checkpoint.columns == self.sources.all;
        if let Some(panel) = checkpoint.panel {
            let panel = read::<Panel>(&panel).ok().filter(|_| same);
            match panel.filter(|panel| panel.fits(self.series.len())) {
                Some(panel) => self.together.panel = panel,
                None => misfits.panel += 1,
            }
        }
        self.prognosis.learn(checkpoint.restarts.as_ref(), checkpoint.budget.as_ref());
        if let Some(known) = checkpoint.foreknown {
            self.prognosis.foreknow(known, checkpoint.at_ms, came);
        }
        if let Some(waited) = checkpoint.waited {
            let at_ms = (came.mono_ms, self.begun_ms);
            self.prognosis.wait_on(waited, at_ms, |subject| self.sources.declared(subject));
        }
        if let (Some(budget), Some(burn)) = (&mut self.budget, checkpoint.burn) {
            budget.burn = burn;
        }
        let same_process = self.process.take_over(checkpoint.process, came);
        if !same_process {
            self.prognosis.replaced_meanwhile();
        }
        // Where nobody knows of a process, it is not young for having moved.
        if let Some(watched_ms) = checkpoint.watched_ms {
            let since_ms = came.mono_ms.saturating_sub(watched_ms);
            self.watched_since_ms = self.watched_since_ms.min(since_ms);
        }
        for (name, carried) in checkpoint.series {
            let Some(series) = self.series.get_mut(&name) else { continue };
            let fits = carried.form == SERIES_FORM
                && self.sources.each.get(&name) == Some(&carried.source);
            match read::<SeriesState>(&carried.state).ok().filter(|_| fits) {
                Some(mut state) => {
                    state.rebase(checkpoint.at_ms, came.mono_ms);
                    series.state = state;
                    if !same_process {
                        series.process_changed();
                    }
                }
                None => misfits.series += 1,
            }
        }
        // A counter that nobody asked for before would count from zero, not from where it was.
        if let (true, None, Some(handed)) = (same, &self.counters, checkpoint.counters) {
            let then = (checkpoint.at_ms, came.mono_ms);
            self.counters = handed.rebased(then, came.mono_ms.max(self.begun_ms));
        }
        misfits
    }
}
