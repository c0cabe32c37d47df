//! The journals of agents, read by other code than wrote them: they are the oracle of what was done.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;

/// A line of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Line {
    /// The first.
    Header {
        /// Version of the format.
        version: u32,
    },
    /// A fence was accepted.
    Fence {
        /// Which.
        fence: u64,
    },
    /// An act is about to be done.
    Begin {
        /// `PLAN-7/0/do`.
        key: String,
        /// From 1.
        attempt: u32,
        /// Under which fence.
        fence: u64,
        /// By the agent's wall clock.
        at_ms: u64,
        /// `process.restart`.
        action: String,
        /// `tenant/service/instance`.
        target: String,
    },
    /// What came of the last begin of a key.
    Outcome {
        /// Which.
        key: String,
        /// Of which attempt.
        attempt: u32,
        /// Under which fence it was found out.
        fence: u64,
        /// By the agent's wall clock.
        at_ms: u64,
        /// `{"is": "done", "evidence": {…}}` or `{"is": "failed", …}`.
        outcome: serde_json::Value,
    },
}

/// One agent's journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal {
    /// Whose.
    pub agent: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Its lines; a torn last one is left out, as the agent leaves it out.
    pub lines: Vec<Line>,
}

/// Reads a journal.
///
/// # Errors
/// When it cannot be read, or a line before the last makes no sense.
pub fn read(agent: &str, path: &Path) -> anyhow::Result<Journal> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(agent, path, &text)
}

fn parse(agent: &str, path: &Path, text: &str) -> anyhow::Result<Journal> {
    let mut lines = Vec::new();
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let written: Vec<&str> = text.get(..whole).unwrap_or_default().lines().collect();
    for (number, line) in written.iter().enumerate() {
        let json = line.split_once(' ').map_or("", |(_, json)| json);
        match serde_json::from_str(json) {
            Ok(line) => lines.push(line),
            Err(_) if number + 1 == written.len() => break,
            Err(error) => bail!("{}:{}: {error}", path.display(), number + 1),
        }
    }
    Ok(Journal { agent: agent.to_owned(), path: path.to_owned(), lines })
}

/// The instance of a target.
#[must_use]
pub fn instance(target: &str) -> &str {
    target.rsplit_once('/').map_or(target, |(_, instance)| instance)
}

/// The process that an outcome says runs now, when it was done.
#[must_use]
pub fn pid_of(outcome: &serde_json::Value) -> Option<u64> {
    (outcome.get("is")? == "done").then_some(())?;
    outcome.get("evidence")?.get("pid")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const TEXT: &str = concat!(
        "00000000 {\"record\":\"header\",\"version\":1}\n",
        "00000000 {\"record\":\"fence\",\"fence\":31}\n",
        "00000000 {\"record\":\"begin\",\"key\":\"PLAN-7/0/do\",\"attempt\":1,\"fence\":31,\"at_ms\":5,\"action\":\"process.restart\",\"target\":\"default/orders/orders-1\"}\n",
        "00000000 {\"record\":\"outcome\",\"key\":\"PLAN-7/0/do\",\"attempt\":1,\"fence\":31,\"at_ms\":6,\"outcome\":{\"is\":\"done\",\"evidence\":{\"pid\":\"12\"}}}\n",
    );

    #[test]
    fn what_an_agent_writes_is_read_and_a_torn_end_is_left_out() {
        let torn = format!("{TEXT}0000 {{\"record\":\"fe");
        let journal = parse("a", Path::new("j"), &torn).unwrap();
        assert_eq!(journal.lines.len(), 4);
        let Line::Outcome { outcome, .. } = &journal.lines[3] else { panic!("{journal:?}") };
        assert_eq!(pid_of(outcome), Some(12));
        assert_eq!(instance("default/orders/orders-1"), "orders-1");
        assert!(
            parse("a", Path::new("j"), &TEXT.replace("\"fence\":31}\n00", "oops\n00")).is_err()
        );
    }
}
