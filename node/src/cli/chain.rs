//! `medic audit verify`: the whole chain computed again, without a cluster and without trust in one.

use std::{
    io::{BufRead as _, BufReader},
    ops::ControlFlow,
    path::Path,
};

use medic_raft::store::read_audit;
use medic_state::{
    AuditRecord, Digest, IncidentId, TraceId,
    applied::verify_chain,
    rbac::{Principal, PrincipalKind},
    state::AuditHead,
    time::parse_rfc3339,
};
use serde::{Deserialize, Serialize};

use super::{args::VerifyArgs, error::CliError, out::Out, render::words::plural};

/// Links verified at a time: bounds memory, whatever the length of the chain.
const BATCH: usize = 10_000;

/// What was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    links: u64,
    first: u64,
    head_seq: u64,
    head_hash: String,
}

/// Verifies a chain as it comes.
#[derive(Default)]
struct Verifier {
    batch: Vec<AuditRecord>,
    links: u64,
    first: Option<u64>,
    head: AuditHead,
}

impl Verifier {
    fn push(&mut self, record: AuditRecord) -> Result<(), String> {
        self.first.get_or_insert(record.seq);
        self.links += 1;
        self.batch.push(record);
        if self.batch.len() > BATCH { self.check() } else { Ok(()) }
    }

    /// Checks what has come, and keeps the last link to check the next against.
    fn check(&mut self) -> Result<(), String> {
        self.head = verify_chain(&self.batch).map_err(|broken| broken.to_string())?;
        let keep = self.batch.len().saturating_sub(1);
        self.batch.drain(..keep);
        Ok(())
    }

    fn finish(mut self) -> Result<Report, String> {
        self.check()?;
        Ok(Report {
            links: self.links,
            first: self.first.unwrap_or(0),
            head_seq: self.head.seq,
            head_hash: self.head.hash.to_string(),
        })
    }
}

/// `medic audit verify`.
pub(super) fn verify(args: &VerifyArgs) -> Result<(), CliError> {
    let out = Out::new(args.output.output);
    let report = match (&args.file, &args.dir) {
        (Some(file), _) => verify_file(file)?,
        (None, Some(dir)) => verify_dir(dir)?,
        (None, None) => return Err(CliError::Usage("name a --file or a --dir".to_owned())),
    };
    out.value(&report, |report| {
        let begin = match report.first {
            0 => return "there is no link: an empty chain".to_owned(),
            1 => "from the first one on".to_owned(),
            first => format!("from link {first} on; the links before it are not here"),
        };
        format!(
            "the chain holds: {}, {begin}; head {} {} (what came after it is not here to be seen: compare it with `medic cluster status`)",
            plural(usize::try_from(report.links).unwrap_or(usize::MAX), "link"),
            report.head_seq,
            report.head_hash
        )
    })
}

fn broken(place: &Path, reason: &str) -> CliError {
    CliError::Failed(format!("{}: the chain is broken: {reason}", place.display()))
}

fn verify_dir(dir: &Path) -> Result<Report, CliError> {
    let mut verifier = Verifier::default();
    let mut bad = None;
    read_audit(dir, |record| match verifier.push(record) {
        Ok(()) => ControlFlow::Continue(()),
        Err(reason) => {
            bad = Some(reason);
            ControlFlow::Break(())
        }
    })
    .map_err(CliError::failed)?;
    match bad {
        Some(reason) => Err(broken(dir, &reason)),
        None => verifier.finish().map_err(|reason| broken(dir, &reason)),
    }
}

fn verify_file(path: &Path) -> Result<Report, CliError> {
    let unreadable =
        |error: std::io::Error| CliError::Usage(format!("cannot read {}: {error}", path.display()));
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut verifier = Verifier::default();
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(unreadable)?;
        if line.trim().is_empty() {
            continue;
        }
        let record = read(&line).map_err(|reason| {
            CliError::Failed(format!("{}:{}: no audit record: {reason}", path.display(), i + 1))
        })?;
        verifier.push(record).map_err(|reason| broken(path, &reason))?;
    }
    verifier.finish().map_err(|reason| broken(path, &reason))
}

/// A line of `medic audit export`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    seq: u64,
    index: u64,
    at: String,
    principal: LinePrincipal,
    command: String,
    subject: String,
    outcome: String,
    entry: String,
    trace_id: String,
    previous: String,
    hash: String,
    tenant: String,
    incident: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinePrincipal {
    kind: String,
    name: String,
}

/// Reads one.
///
/// # Errors
/// With what is wrong.
pub fn read(line: &str) -> Result<AuditRecord, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let digest = |text: &str| {
        // The law's words take a sign before a digit; a link has one form.
        if !hexadecimal(text) {
            return Err(format!("`{text}` is not hexadecimal"));
        }
        text.parse::<Digest>().map_err(|error| error.to_string())
    };
    let kind = match line.principal.kind.as_str() {
        "user" => PrincipalKind::User,
        "node" => PrincipalKind::Node,
        "agent" => PrincipalKind::Agent,
        other => return Err(format!("`{other}` is no kind of principal")),
    };
    let incident = match line.incident.as_str() {
        "" => None,
        text => Some(text.parse::<IncidentId>().map_err(|error| error.to_string())?),
    };
    Ok(AuditRecord {
        seq: line.seq,
        index: line.index,
        at: parse_rfc3339(&line.at).map_err(|error| error.to_string())?,
        principal: Principal { kind, name: line.principal.name },
        command: line.command,
        subject: line.subject,
        outcome: line.outcome,
        entry: digest(&line.entry)?,
        trace: trace(&line.trace_id).ok_or("the trace id is not 32 hexadecimal digits")?,
        previous: digest(&line.previous)?,
        hash: digest(&line.hash)?,
        tenant: line.tenant,
        incident,
    })
}

fn hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn trace(text: &str) -> Option<TraceId> {
    (text.len() == 32 && hexadecimal(text)).then_some(())?;
    u128::from_str_radix(text, 16).ok().map(|number| TraceId(number.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use medic_raft::{
        Env,
        ledger::{Ledger as _, LedgerExt as _, LocalLedger, RecordQuery},
    };
    use medic_state::{BootId, Command, NodeId, Record};

    use super::*;

    /// A chain that the real law made, as `medic audit export` writes it.
    async fn export() -> Vec<String> {
        let ledger = LocalLedger::new(NodeId(1), BootId(7), Env::system());
        for n in 0..3 {
            let fence = medic_state::command::FenceCommand { node: NodeId(1), boot: BootId(n) };
            let entry = ledger.entry(TraceId([3; 16]), Command::Fence(fence));
            ledger.propose(entry).await.unwrap().answer.unwrap();
        }
        lines(&ledger)
    }

    fn lines(ledger: &Arc<LocalLedger>) -> Vec<String> {
        let records = ledger.records(RecordQuery { after: 0, limit: 1_000 }).unwrap();
        records
            .into_iter()
            .filter_map(|stored| match stored.record {
                Record::Audit(record) => Some(record),
                Record::Closed(_) => None,
            })
            .map(|record| {
                let record = medic_api::convert::audit_record(&record);
                serde_json::to_string(&record).unwrap()
            })
            .collect()
    }

    fn check(lines: &[String]) -> Result<Report, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines.join("\n")).unwrap();
        verify_file(file.path()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn an_export_verifies_and_every_change_is_found() {
        let lines = export().await;
        assert!(lines.len() >= 3, "{lines:?}");
        let report = check(&lines).unwrap();
        assert_eq!((report.links, report.first), (lines.len() as u64, 1));

        let mut missing = lines.clone();
        missing.remove(1);
        assert!(check(&missing).unwrap_err().contains("link 3 stands where link 2 should"));
        let mut changed = lines.clone();
        changed[1] = changed[1].replace("\"Fence\"", "\"Tick\"");
        assert!(check(&changed).unwrap_err().contains("link 2 was changed"), "{changed:?}");
        let mut torn = lines.clone();
        torn[2].truncate(20);
        assert!(check(&torn).unwrap_err().contains(":3: no audit record"));
        assert_eq!(check(&lines[1..]).unwrap().first, 2);
        assert_eq!(check(&[]).unwrap().links, 0);
    }

    #[test]
    fn a_directory_without_a_database_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let error = verify_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("holds no database"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_trace_is_of_hexadecimal_digits_alone() {
        assert_eq!(trace(&"0A".repeat(16)), Some(TraceId([10; 16])));
        assert_eq!(trace(&format!("+{}", "0".repeat(31))), None);
        assert_eq!(trace(&"0".repeat(31)), None);
    }
}
