//! Votes of probes, agents and detectors about one instance, turned into one finding.
//!
//! | vote | weight | kind |
//! |---|---|---|
//! | process dead | 2 | down |
//! | process paused, twice | 2 | unresponsive |
//! | probe refused / timed out / bad status | 1, from the second in a row 2 | down / unresponsive / errors |
//! | declared limit crossed twice in a row | 2 | errors, latency, saturation |
//! | limit will be reached (confirmed trend) | 2 | saturation-predicted |
//! | odd value that matters, p below 1e-6 | 2 | errors, latency |
//! | odd value, or a small lasting shift | 1 | errors, latency, anomaly |
//! | all indicators together are odd, and stay so | 1 | anomaly |
//! | agent away from every node | 2 | agent-lost |
//! | an agent's sign of trouble with its safety | 2 | saturation |
//! | its error budget burns too fast | 2 | errors |
//!
//! Odd latency weighs nothing until it has lasted for seconds: a hiccup of a callee is as odd, for two scrapes.
//! All indicators together weigh nothing beside the vote of the one that they are odd for: that is one witness.
//! Who says nothing does not vote: that is `monitor-silent`, see [`super::entity`].
//!
//! A finding needs weight 2. Probes of one instance share one vote (the strongest): they fail
//! together. So one extreme signal suffices, and soft ones need a second, different one.
//!
//! Combined p-value: Bonferroni, the smallest p times the number of series tested. It holds under any
//! dependence; Fisher's product would not, and the series of one instance do depend on each other.
//! Facts (a process is dead, a limit is crossed) are no tests: their p is 0. Votes come weighted by what
//! outcomes have taught of their detectors, and the number of tests with them.

use std::{collections::BTreeSet, fmt};

use medic_state::{
    Millis, Ppm,
    symptom::{MAX_SIGNALS, Severity, Signal},
};

/// Kinds of findings, the weightiest first: a finding does not raise a lesser one beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The process is dead, or nobody listens.
    Down,
    /// It is there and does not answer.
    Unresponsive,
    /// It answers with failures.
    Errors,
    /// A limit is crossed.
    Saturation,
    /// It answers slowly.
    Latency,
    /// A limit will be crossed.
    SaturationPredicted,
    /// Nobody hears the agent on its host.
    AgentLost,
    /// It behaves unusually.
    Anomaly,
    /// What should say how it does says nothing.
    MonitorSilent,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Down,
        Self::Unresponsive,
        Self::Errors,
        Self::Saturation,
        Self::Latency,
        Self::SaturationPredicted,
        Self::AgentLost,
        Self::Anomaly,
        Self::MonitorSilent,
    ];

    /// As in `Symptom::kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Unresponsive => "unresponsive",
            Self::Errors => "errors",
            Self::Saturation => "saturation",
            Self::Latency => "latency",
            Self::SaturationPredicted => "saturation-predicted",
            Self::AgentLost => "agent-lost",
            Self::Anomaly => "anomaly",
            Self::MonitorSilent => "monitor-silent",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether a finding of this kind leaves no room for one of the other beside it. That something will
    /// be full, or is odd, explains no silence.
    #[must_use]
    pub fn outranks(self, other: Self) -> bool {
        let apart = matches!(self, Self::SaturationPredicted | Self::Anomaly);
        self < other && !(apart && other == Self::MonitorSilent)
    }

    /// How a summary begins. Whoever shows it shows the target before it.
    pub(super) const fn says(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Unresponsive => "not answering",
            Self::Errors => "failing requests",
            Self::Saturation => "at its limit",
            Self::Latency => "answering slowly",
            Self::SaturationPredicted => "about to reach its limit",
            Self::AgentLost => "without its agent",
            Self::Anomaly => "behaving unusually",
            Self::MonitorSilent => "not fully watched, monitors are silent",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who votes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Voter {
    /// The agent, about the process.
    Process,
    /// A probe, by name.
    Probe(String),
    /// An indicator, by name.
    Series(String),
    /// All indicators, looked at together.
    Together,
    /// The connections of agents.
    Agent,
    /// A sign of its safety, by name.
    Guard(String),
    /// The error budget.
    Budget,
}

impl fmt::Display for Voter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process => f.write_str("process.state"),
            Self::Agent => f.write_str("agent.connected"),
            Self::Together => f.write_str("metrics.together"),
            Self::Probe(name) => write!(f, "probe.{name}"),
            Self::Series(name) | Self::Guard(name) => write!(f, "metric.{name}"),
            Self::Budget => f.write_str("slo.budget"),
        }
    }
}

/// One vote.
#[derive(Clone, Debug, PartialEq)]
pub struct Vote {
    /// Who.
    pub voter: Voter,
    /// For what.
    pub kind: Kind,
    /// 2 suffices alone; 0 keeps a finding of its kind open, and raises none.
    pub weight: u8,
    /// How bad it would be.
    pub severity: Severity,
    /// Probability of the observation when all is well; 0 for facts.
    pub p_value: f64,
    /// A clause for people.
    pub text: String,
    /// The observed value, as text.
    pub value: String,
    /// What was expected, as text.
    pub expected: String,
    /// The detector.
    pub detector: &'static str,
    /// For predictions.
    pub time_to_event: Option<Millis>,
    /// Of [`Voter::Together`], the one indicator that it is odd for.
    pub rests_on: Option<String>,
}

impl Vote {
    fn signal(&self) -> Signal {
        Signal {
            name: self.voter.to_string(),
            value: self.value.clone(),
            expected: self.expected.clone(),
            detector: self.detector.to_owned(),
            p_value: ppm(self.p_value),
        }
    }
}

/// Votes that agree.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Of what kind.
    pub kind: Kind,
    /// The worst of those who vote for this kind.
    pub severity: Severity,
    /// One sentence for people, without the target's name.
    pub summary: String,
    /// Combined.
    pub p_value: Ppm,
    /// Strongest first.
    pub signals: Vec<Signal>,
    /// For predictions.
    pub time_to_event: Option<Millis>,
    /// Who voted for this kind.
    pub voters: BTreeSet<Voter>,
    /// Who states a fact that would suffice alone, of whatever kind: what is wrong beside it.
    pub facts: BTreeSet<Voter>,
    /// The indicator that weighs most, if one does.
    pub indicator: Option<String>,
}

/// The weight that makes a finding.
const NEEDED: u32 = 2;

/// The finding that the votes agree on, if they do. `tested`: how many series were looked at.
#[must_use]
pub fn agree(votes: &[Vote], tested: f64) -> Option<Finding> {
    let strongest = |pick: fn(&Voter) -> bool| {
        votes.iter().filter(|vote| pick(&vote.voter)).map(|vote| u32::from(vote.weight)).max()
    };
    let weight = strongest(|voter| matches!(voter, Voter::Process)).unwrap_or(0)
        + strongest(|voter| matches!(voter, Voter::Probe(_))).unwrap_or(0)
        + strongest(|voter| matches!(voter, Voter::Agent)).unwrap_or(0)
        + together(votes)
        + votes
            .iter()
            .filter(|vote| matches!(vote.voter, Voter::Series(_) | Voter::Guard(_) | Voter::Budget))
            .map(|vote| u32::from(vote.weight))
            .sum::<u32>();
    if weight < NEEDED {
        return None;
    }
    // The weightiest kind among those that would stand alone; else among all. A budget that is spent slowly says what
    // has been so for long: it hides nothing of what is so now.
    let alone = |of_budget: bool| {
        let stands = |vote: &&Vote| u32::from(vote.weight) >= NEEDED;
        let of_it = |vote: &&Vote| (vote.voter == Voter::Budget) == of_budget;
        votes.iter().filter(stands).filter(of_it).map(|vote| vote.kind).min()
    };
    let kind = alone(false)
        .or_else(|| alone(true))
        .or_else(|| votes.iter().filter(|v| v.weight > 0).map(|vote| vote.kind).min())?;
    describe(kind, votes, tested)
}

/// What all indicators together weigh: nothing beside the vote of the one that they are odd for, unless somebody
/// else votes too.
fn together(votes: &[Vote]) -> u32 {
    let vote = votes.iter().find(|vote| vote.voter == Voter::Together);
    vote.map_or(0, |vote| weight_beside(vote, votes))
}

/// What a vote weighs among these.
fn weight_beside(vote: &Vote, votes: &[Vote]) -> u32 {
    let weight = u32::from(vote.weight);
    let Some(own) = vote.rests_on.clone().map(Voter::Series) else { return weight };
    let other = |vote: &Vote| vote.voter != own && vote.voter != Voter::Together;
    let others = votes.iter().any(|vote| vote.weight > 0 && other(vote));
    if !others && votes.iter().any(|vote| vote.voter == own) { 0 } else { weight }
}

/// The finding of this kind with the present votes as evidence; `None` when nobody votes for it.
#[must_use]
pub fn describe(kind: Kind, votes: &[Vote], tested: f64) -> Option<Finding> {
    let mut ordered: Vec<&Vote> = votes.iter().collect();
    ordered.sort_by(|a, b| {
        (b.kind == kind, b.weight, b.severity)
            .cmp(&(a.kind == kind, a.weight, a.severity))
            .then(a.p_value.total_cmp(&b.p_value))
            .then_with(|| a.voter.cmp(&b.voter))
    });
    let own: Vec<&Vote> = ordered.iter().filter(|vote| vote.kind == kind).copied().collect();
    let severity = own.iter().map(|vote| vote.severity).max()?;
    // Who weighs nothing has raised nothing, and outcomes teach nothing about it; unless the finding rests on it alone.
    let weighs = |vote: &Vote| weight_beside(vote, votes) > 0;
    let alone = !own.iter().any(|vote| weighs(vote));
    ordered.retain(|vote| weighs(vote) || (alone && vote.kind == kind));
    let smallest = ordered.iter().map(|vote| vote.p_value).fold(1.0, f64::min);
    let clauses: Vec<&str> = ordered.iter().take(3).map(|vote| vote.text.as_str()).collect();
    Some(Finding {
        kind,
        severity,
        summary: format!("{}: {}", says(kind, ordered.first()), clauses.join("; ")),
        p_value: ppm(smallest * tested.max(1.0)),
        signals: ordered.iter().take(MAX_SIGNALS).map(|vote| vote.signal()).collect(),
        time_to_event: own.iter().filter_map(|vote| vote.time_to_event).min(),
        voters: own.iter().map(|vote| vote.voter.clone()).collect(),
        facts: (votes.iter())
            .filter(|vote| u32::from(vote.weight) >= NEEDED && vote.p_value <= 0.0)
            .map(|vote| vote.voter.clone())
            .collect(),
        indicator: ordered.iter().find_map(|vote| match &vote.voter {
            Voter::Series(name) | Voter::Guard(name) => Some(name.clone()),
            Voter::Process | Voter::Probe(_) | Voter::Together => None,
            Voter::Agent | Voter::Budget => None,
        }),
    })
}

/// How a summary begins. What listens where it should not is at no limit.
fn says(kind: Kind, first: Option<&&Vote>) -> &'static str {
    match first.map(|vote| &vote.voter) {
        Some(Voter::Guard(_)) => "not what was started",
        Some(Voter::Budget) => "spending its error budget",
        _ => kind.says(),
    }
}

/// A probability as the law keeps it.
fn ppm(p: f64) -> Ppm {
    Ppm((p.clamp(0.0, 1.0) * 1e6).round() as u32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn vote(voter: Voter, kind: Kind, weight: u8, p_value: f64) -> Vote {
        Vote {
            voter,
            kind,
            weight,
            severity: if weight == 2 { Severity::Critical } else { Severity::Warning },
            p_value,
            text: format!("{kind} seen"),
            value: "1".to_owned(),
            expected: "0".to_owned(),
            detector: "test",
            time_to_event: None,
            rests_on: None,
        }
    }

    fn probe(name: &str, kind: Kind, weight: u8) -> Vote {
        vote(Voter::Probe(name.to_owned()), kind, weight, 0.0)
    }

    fn series(name: &str, kind: Kind, weight: u8, p: f64) -> Vote {
        vote(Voter::Series(name.to_owned()), kind, weight, p)
    }

    #[test]
    fn who_agrees_with_whom() {
        let process = |kind| vote(Voter::Process, kind, 2, 0.0);
        for (votes, expected) in [
            (vec![], None),
            (vec![process(Kind::Down)], Some(Kind::Down)),
            (vec![probe("http", Kind::Down, 1)], None),
            // Two probes that fail once fail together: still one soft vote.
            (vec![probe("http", Kind::Down, 1), probe("tcp", Kind::Down, 1)], None),
            (vec![probe("http", Kind::Unresponsive, 2)], Some(Kind::Unresponsive)),
            (vec![series("error_rate", Kind::Errors, 1, 1e-3)], None),
            (
                vec![
                    series("error_rate", Kind::Errors, 1, 1e-3),
                    series("latency", Kind::Latency, 1, 1e-3),
                ],
                Some(Kind::Errors),
            ),
            (
                vec![
                    probe("http", Kind::Unresponsive, 1),
                    series("latency", Kind::Latency, 1, 1e-3),
                ],
                Some(Kind::Unresponsive),
            ),
            (vec![vote(Voter::Together, Kind::Anomaly, 1, 1e-3)], None),
            (
                vec![
                    vote(Voter::Together, Kind::Anomaly, 1, 1e-3),
                    series("latency", Kind::Latency, 1, 1e-3),
                ],
                Some(Kind::Latency),
            ),
            // A soft vote for a weightier kind does not rename what stands alone.
            (
                vec![probe("http", Kind::Down, 1), series("memory", Kind::Saturation, 2, 0.0)],
                Some(Kind::Saturation),
            ),
            (vec![process(Kind::Unresponsive), probe("http", Kind::Down, 2)], Some(Kind::Down)),
            // What a slow burn says hides nothing that is so now.
            (vec![vote(Voter::Budget, Kind::Errors, 2, 0.0)], Some(Kind::Errors)),
            (
                vec![
                    vote(Voter::Budget, Kind::Errors, 2, 0.0),
                    series("latency", Kind::Latency, 2, 0.0),
                ],
                Some(Kind::Latency),
            ),
            (
                vec![
                    vote(Voter::Budget, Kind::Errors, 2, 0.0),
                    series("latency", Kind::Latency, 1, 1e-3),
                ],
                Some(Kind::Errors),
            ),
        ] {
            assert_eq!(agree(&votes, 3.0).map(|finding| finding.kind), expected, "{votes:?}");
        }
    }

    #[test]
    fn one_metric_is_no_second_witness_of_itself() {
        let together = |of: &str| Vote {
            rests_on: Some(of.to_owned()),
            ..vote(Voter::Together, Kind::Anomaly, 1, 1e-3)
        };
        let latency = || series("latency", Kind::Latency, 1, 1e-3);
        let hiccup = || series("latency", Kind::Latency, 0, 1e-3);
        let probe = || probe("http", Kind::Unresponsive, 1);
        for (votes, expected) in [
            (vec![together("latency"), latency()], None),
            (vec![together("latency"), hiccup()], None),
            // Of another one it is, and so it is beside others.
            (vec![together("memory"), latency()], Some(Kind::Latency)),
            (vec![together("latency"), probe()], Some(Kind::Unresponsive)),
            (vec![together("latency"), hiccup(), probe()], Some(Kind::Unresponsive)),
            (
                vec![together("latency"), series("latency", Kind::Latency, 2, 1e-9)],
                Some(Kind::Latency),
            ),
        ] {
            assert_eq!(agree(&votes, 3.0).map(|finding| finding.kind), expected, "{votes:?}");
        }
    }

    #[test]
    fn who_weighs_nothing_is_no_witness_unless_nobody_else_is_left() {
        let latency = |weight| series("latency", Kind::Latency, weight, 1e-3);
        let hiccup = || series("memory", Kind::Anomaly, 0, 1e-9);
        let panel = Vote {
            rests_on: Some("latency".to_owned()),
            ..vote(Voter::Together, Kind::Anomaly, 1, 1e-9)
        };
        let signals = |votes: &[Vote]| {
            let finding = describe(Kind::Latency, votes, 1.0).unwrap();
            let names = finding.signals.iter().map(|signal| signal.name.clone());
            (names.collect::<Vec<_>>().join(" "), finding.p_value)
        };
        let metric = "metric.latency".to_owned();
        assert_eq!(signals(&[hiccup(), latency(1)]), (metric.clone(), Ppm(1000)));
        assert_eq!(signals(&[panel, latency(1)]), (metric.clone(), Ppm(1000)));
        assert_eq!(signals(&[latency(0)]), (metric, Ppm(1000)), "it keeps the finding open");
        let beside = signals(&[latency(0), series("error_rate", Kind::Errors, 2, 0.0)]).0;
        assert_eq!(beside, "metric.latency metric.error_rate", "and is what it is about");
        assert!(describe(Kind::Latency, &[hiccup()], 1.0).is_none());
    }

    #[test]
    fn p_values_are_corrected_for_the_number_of_series() {
        let votes = [series("a", Kind::Errors, 1, 1e-4), series("b", Kind::Latency, 1, 1e-3)];
        let finding = agree(&votes, 5.0).unwrap();
        assert_eq!(finding.p_value, Ppm(500));
        assert_eq!(finding.voters.len(), 1);
        assert_eq!(finding.indicator.as_deref(), Some("a"));
        assert_eq!(finding.signals.len(), 2);
        assert_eq!(
            agree(&[vote(Voter::Process, Kind::Down, 2, 0.0)], 5.0).unwrap().p_value,
            Ppm(0)
        );
    }

    #[test]
    fn kinds_read_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(Kind::parse("alert"), None);
    }
}
