//! What clients felt and what became of incidents, in figures: for whoever asks "how long was it away?".

use serde::Serialize;

use super::{End, Report};
use crate::{
    campaign::seconds,
    history::{Act, Call, Outcome},
};

/// Median, 99th percentile and worst of so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Spread {
    pub(crate) count: usize,
    pub(crate) median: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

impl Spread {
    /// By the nearest rank; all zero of nothing, with a count of zero that says so.
    pub(crate) fn of(values: impl Iterator<Item = u64>) -> Self {
        let mut values: Vec<u64> = values.collect();
        values.sort_unstable();
        let at = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100).max(1) - 1;
            values.get(rank).copied().unwrap_or(0)
        };
        Self {
            count: values.len(),
            median: at(50),
            p99: at(99),
            max: values.last().copied().unwrap_or(0),
        }
    }

    /// For people: milliseconds as seconds, and never a figure of nothing.
    pub(crate) fn seconds(&self) -> String {
        if self.count == 0 {
            return "none".to_owned();
        }
        format!(
            "median {:.2} s, p99 {:.2} s, worst {:.2} s, of {}",
            seconds(self.median),
            seconds(self.p99),
            seconds(self.max),
            self.count
        )
    }
}

impl Spread {
    /// The same of so many that should have come: whoever never came is not in the spread.
    fn seconds_of(&self, expected: usize) -> String {
        match expected.saturating_sub(self.count) {
            0 => self.seconds(),
            never => format!("{}; {never} NEVER", self.seconds()),
        }
    }
}

/// What clients felt. Milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Figures {
    /// Writes with an answer.
    pub(super) writes: usize,
    /// Reads with an answer.
    pub(super) reads: usize,
    /// Calls that nobody answered.
    pub(super) open: usize,
    /// Answered calls that had to be sent more than once.
    pub(super) resent: usize,
    /// From the first request of a write to its answer.
    pub(super) write_ms: Spread,
    /// Of a read.
    pub(super) read_ms: Spread,
    /// The longest time in which no write was acknowledged …
    pub(super) gap_ms: u64,
    /// … and when it began, milliseconds of the campaign.
    pub(super) gap_at_ms: u64,
    /// From the end of a leader to the answer of the first write that began after it.
    pub(super) failover_ms: Spread,
    /// From the heal, when everything is undone, until all was well.
    pub(super) recovery_ms: Spread,
}

fn is_write(call: &Call) -> bool {
    call.act != Act::Read && call.outcome != Outcome::Open
}

impl Figures {
    pub(super) fn of(report: &Report) -> Self {
        let calls = &report.calls;
        let open = calls.iter().filter(|call| call.outcome == Outcome::Open).count();
        let answered = || calls.iter().filter_map(|call| Some((call, call.end_us?)));
        let took = |writes: bool| {
            let of = answered().filter(move |(call, _)| is_write(call) == writes);
            Spread::of(of.map(|(call, end)| end.saturating_sub(call.start_us) / 1_000))
        };
        let (write_ms, read_ms) = (took(true), took(false));
        let (gap_at_ms, gap_ms) = gap(calls);
        let leaders = report.deaths.iter().filter(|death| death.led);
        Self {
            writes: write_ms.count,
            reads: read_ms.count,
            open,
            resent: answered().filter(|(call, _)| call.tries > 1).count(),
            write_ms,
            read_ms,
            gap_ms,
            gap_at_ms,
            failover_ms: Spread::of(leaders.filter_map(|death| failover(calls, death.at_ms))),
            recovery_ms: Spread::of(report.recoveries.iter().filter_map(|(_, took)| *took)),
        }
    }
}

/// The longest time between two answers to writes, by when it began: from, length (milliseconds).
fn gap(calls: &[Call]) -> (u64, u64) {
    let acknowledged = calls.iter().filter(|call| is_write(call));
    let mut ends: Vec<u64> = acknowledged.filter_map(|call| Some(call.end_us? / 1_000)).collect();
    ends.sort_unstable();
    let gaps = ends.windows(2).map(|pair| (pair[1] - pair[0], pair[0]));
    gaps.max().map_or((0, 0), |(length, from)| (from, length))
}

/// From a moment (milliseconds) to the answer of the first write that began after it.
fn failover(calls: &[Call], from_ms: u64) -> Option<u64> {
    let after = calls.iter().filter(|call| is_write(call) && call.start_us >= from_ms * 1_000);
    let first = after.filter_map(|call| call.end_us).min()?;
    Some((first / 1_000).saturating_sub(from_ms))
}

impl Report {
    /// The figures, a line each: what, and how much.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let figures = Figures::of(self);
        let mut facts = self.where_and_when();
        let mut add = |what, text: String| facts.push((what, text));
        let tallies = self.tallies();
        let (begun, felt) = tallies
            .iter()
            .fold((0, 0), |(begun, felt), (_, tally)| (begun + tally.begun, felt + tally.felt));
        let (drawn, kinds) = (self.faults.len(), tallies.len());
        add("faults", format!("{drawn} drawn of {kinds} kinds, {begun} begun, {felt} felt"));
        let (leaders, at_points) = self.ends();
        let ended = self.deaths.len();
        add(
            "processes of nodes ended",
            format!("{ended}, {leaders} of them leaders, {at_points} at failpoints"),
        );
        add("in mid-remediation", self.mid_remediation());
        add(
            "power cuts, replacements",
            format!(
                "{} nodes lost power, {} were replaced, {} damaged; {} certificates taken over",
                self.power_cuts,
                self.replaced,
                self.damage.len(),
                self.renewed
            ),
        );
        add(
            "calls of clients",
            format!(
                "{} writes and {} reads answered, {} of them sent again; {} never answered",
                figures.writes, figures.reads, figures.resent, figures.open
            ),
        );
        add("answer to a write", figures.write_ms.seconds());
        add("answer to a read", figures.read_ms.seconds());
        add(
            "longest time without an acknowledged write",
            format!(
                "{:.1} s, from {:.1} s on",
                seconds(figures.gap_ms),
                seconds(figures.gap_at_ms)
            ),
        );
        add("leader's end to the next acknowledged write", figures.failover_ms.seconds_of(leaders));
        add(
            "heal (everything undone) to all well",
            figures.recovery_ms.seconds_of(self.recoveries.len()),
        );
        add("incidents", self.incident_counts());
        add(
            "plans",
            format!(
                "{}, {} steps taken over by a later leader, {} acts",
                self.plans,
                self.taken_over,
                self.acts.len()
            ),
        );
        add("messages to people", self.told.to_string());
        add("failpoints reached", format!("{} of {}", self.reached(), self.hits.len()));
        facts
    }

    fn where_and_when(&self) -> Vec<(&'static str, String)> {
        let mut facts = vec![("build", self.build.clone())];
        let began = i64::try_from(self.wall_began_ms).ok();
        let began = began.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let began = began.map(|at| format!("{at:.0}, ")).unwrap_or_default();
        let long = seconds(self.length_ms) / 60.0;
        let text =
            format!("{began}{long:.1} min with settling; {} min of faults asked for", self.minutes);
        facts.push(("when", text));
        if let Some(machine) = &self.machine {
            facts.push(("machine", machine.whole()));
        }
        facts.push(("network", self.ground().trim_start_matches("Network: ").to_owned()));
        facts
    }

    /// Failpoints that somebody passed.
    pub(super) fn reached(&self) -> usize {
        self.hits.values().filter(|hits| hits.passed > 0).count()
    }

    /// What became of incidents, in a line.
    pub(super) fn incident_counts(&self) -> String {
        let of = |end: End| self.incidents.iter().filter(|incident| incident.end == end).count();
        let escalated = self.incidents.iter().filter(|i| !i.escalation.is_empty()).count();
        format!(
            "{} opened for {} troubles made: {} healed by Medic, {} passed by themselves, {} merged, {} \
             closed by hand, {} still open; {escalated} were handed to a person",
            self.incidents.len(),
            self.troubles,
            of(End::Remediated),
            of(End::SelfCleared),
            of(End::Merged),
            of(End::ByHand),
            of(End::Open)
        )
    }
}

/// As reports say it.
impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Remediated => "healed by Medic",
            Self::SelfCleared => "passed by itself",
            Self::ByHand => "closed by hand",
            Self::Merged => "merged",
            Self::Open => "still open",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::fixture::call;

    #[test]
    fn the_longest_time_without_a_write_and_the_way_to_the_next_leader_are_found() {
        let write =
            |from: u64, to: u64| call(Act::Write(1), Outcome::Done, from * 1_000, to * 1_000);
        let read = call(Act::Read, Outcome::Saw(None), 1_500_000, 1_600_000);
        let open = call(Act::Write(2), Outcome::Open, 1_200_000, 0);
        // Sent before the leader's end: it may have been answered by it.
        let calls = [write(900, 1_000), open, read, write(1_050, 1_900), write(1_100, 2_600)];
        assert_eq!(gap(&calls), (1_000, 900));
        assert_eq!(failover(&calls, 1_080), Some(1_520));
        assert_eq!(failover(&calls, 3_000), None, "nothing was written since");
        let mut report = Report { calls: calls.to_vec(), ..Report::default() };
        report.calls[4].tries = 3;
        let figures = Figures::of(&report);
        assert_eq!((figures.writes, figures.reads, figures.open, figures.resent), (3, 1, 1, 1));
        assert_eq!(figures.read_ms.median, 100);
    }

    #[test]
    fn a_spread_of_nothing_says_so() {
        assert_eq!(Spread::of(std::iter::empty()).seconds(), "none");
        assert_eq!(Spread::default().seconds_of(2), "none; 2 NEVER");
        let spread = Spread::of([4_000, 1_000, 2_000].into_iter());
        assert_eq!(spread, Spread { count: 3, median: 2_000, p99: 4_000, max: 4_000 });
    }
}
