//! What people were told, by what a webhook received, held against what the log knows of it.
//!
//! ```text
//!   POST, Idempotency-Key ─► cluster/tenant/channel/INC-7/number/text
//!                                                     │      └ what it says, as in the note of the log
//!                                                     └ deliveries noted before it
//! ```
//!
//! A webhook recognises a repeat, so the product may send a message again under its key: when its fate
//! was noted as failed or unknown, or a leader was gone before it noted anything. It promises three
//! things. A key means one thing. No message comes more often than there are notes of it in the log,
//! and one more for each office since its incident opened: a leader remembers what it told. And a new
//! key for the same words needs a delivery noted before it.

use std::collections::{BTreeMap, BTreeSet};

use medic_state::Digest;
use serde_json::Value;

use super::{Verdict, Violation, chain::Chain};

/// Messages named in one violation.
const SHOWN: usize = 6;

/// What one POST brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// `Idempotency-Key`.
    pub key: Option<String>,
    /// The body; null: it was no JSON.
    pub body: Value,
}

/// Of which incident a message is first, and the digest of what it says of it, as in the log.
type Subject = (String, String);

impl Posted {
    /// Each incident it tells of, what kind of news, and the news.
    fn meaning(&self) -> Vec<[String; 3]> {
        let notices = self.body.get("notices").and_then(Value::as_array);
        let text = |notice: &Value, name: &str| {
            notice.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let of = |notice: &Value| ["incident", "kind", "text"].map(|name| text(notice, name));
        notices.into_iter().flatten().map(of).collect()
    }

    fn subject(&self) -> Option<Subject> {
        let [incident, _, text] = self.meaning().into_iter().next()?;
        Some((incident, Digest::of(&[text.as_bytes()]).short()))
    }
}

/// 4, as told: `None` when nobody was told anything.
#[must_use]
pub fn check(posted: &[Posted], chain: &Chain) -> Option<Verdict> {
    if posted.is_empty() {
        return None;
    }
    let notes = notes(chain);
    let mut violations = one_meaning(posted);
    violations.extend(not_too_often(posted, chain, &notes));
    violations.extend(new_keys(posted, &notes));
    Some(Verdict::new(4, posted.len(), "messages to people", violations))
}

/// How often the log notes the fate of a message, by its subject.
fn notes(chain: &Chain) -> BTreeMap<Subject, usize> {
    let mut notes = BTreeMap::new();
    for (command, subject) in chain.admitted.values() {
        if command == "NoteTold"
            && let Some((incident, text)) = subject.split_once(": ")
        {
            *notes.entry((incident.to_owned(), text.to_owned())).or_default() += 1;
        }
    }
    notes
}

fn one_meaning(posted: &[Posted]) -> Vec<Violation> {
    let mut meanings: BTreeMap<&str, BTreeSet<Vec<[String; 3]>>> = BTreeMap::new();
    let mut violations = Vec::new();
    for one in posted {
        let meaning = one.meaning();
        match &one.key {
            Some(key) if !meaning.is_empty() => {
                meanings.entry(key).or_default().insert(meaning);
            }
            Some(_) | None => {
                let text = "a message without a key, or one that tells nothing";
                violations.push(Violation::new(text).with([format!("{one:?}")]));
            }
        }
    }
    for (key, meanings) in meanings.into_iter().filter(|(_, meanings)| meanings.len() > 1) {
        let text = format!("the key {key} came with {} meanings", meanings.len());
        let shown = meanings.iter().take(SHOWN).map(|meaning| format!("{meaning:?}"));
        violations.push(Violation::new(text).with(shown));
    }
    violations
}

fn not_too_often(
    posted: &[Posted],
    chain: &Chain,
    notes: &BTreeMap<Subject, usize>,
) -> Vec<Violation> {
    let mut came: BTreeMap<Subject, usize> = BTreeMap::new();
    for subject in posted.iter().filter_map(Posted::subject) {
        *came.entry(subject).or_default() += 1;
    }
    let mut violations = Vec::new();
    for (subject, count) in came {
        let noted = notes.get(&subject).copied().unwrap_or(0);
        let opened = opened_at(&subject.0);
        let offices = 1 + chain.fences.range(opened..).count();
        if count > noted + offices {
            let text = format!(
                "{} was told {count} times in the same words: the log notes {noted}, and there were \
                 {offices} offices",
                subject.0
            );
            violations.push(Violation::new(text));
        }
    }
    violations
}

/// The number in a key is of deliveries before it, each with its note.
fn new_keys(posted: &[Posted], notes: &BTreeMap<Subject, usize>) -> Vec<Violation> {
    let mut noted: BTreeMap<&str, usize> = BTreeMap::new();
    for ((incident, _), count) in notes {
        *noted.entry(incident).or_default() += count;
    }
    let mut violations = Vec::new();
    let keys: BTreeSet<&str> = posted.iter().filter_map(|one| one.key.as_deref()).collect();
    for key in keys {
        let mut parts = key.rsplit('/').skip(1);
        let number = parts.next().and_then(|number| number.parse::<usize>().ok());
        let incident = parts.next().unwrap_or_default();
        // Several notices in one message are noted together, under the first.
        let most = noted.get(incident).copied().unwrap_or(0) + summed(posted, incident);
        if number.is_none_or(|number| number > most) {
            let text =
                format!("the key {key} counts deliveries that the log does not note: {most}");
            violations.push(Violation::new(text));
        }
    }
    violations
}

/// In how many messages an incident stood behind another.
fn summed(posted: &[Posted], incident: &str) -> usize {
    let behind = |one: &&Posted| one.meaning().iter().skip(1).any(|[id, ..]| id == incident);
    posted.iter().filter(behind).count()
}

/// The number in `INC-57`: the log index of what opened it.
fn opened_at(incident: &str) -> u64 {
    incident.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NEWS: &str = "INC-7 (web/w) needs a human: no playbook fits";

    fn short(text: &str) -> String {
        Digest::of(&[text.as_bytes()]).short()
    }

    fn post_as(key: &str, text: &str) -> Posted {
        let notice = json!({"incident": "INC-7", "kind": "needs-human", "text": text});
        Posted { key: Some(key.to_owned()), body: json!({ "notices": [notice] }) }
    }

    fn post(number: usize, text: &str) -> Posted {
        post_as(&format!("c/default/pager/INC-7/{number}/{}", short(text)), text)
    }

    /// Fences at these indexes, and notes about these texts.
    fn log(fences: &[u64], notes: &[&str]) -> Chain {
        let note = |text: &&str| ("NoteTold".to_owned(), format!("INC-7: {}", short(text)));
        Chain {
            fences: fences.iter().map(|at| (*at, "node-1".to_owned())).collect(),
            admitted: (100..).zip(notes.iter().map(note)).collect(),
            ..Chain::default()
        }
    }

    fn wrong(posted: &[Posted], chain: &Chain) -> Vec<String> {
        let violations = check(posted, chain).map(|verdict| verdict.violations);
        violations.unwrap_or_default().into_iter().map(|one| one.what).collect()
    }

    #[test]
    fn a_message_that_came_once_and_is_noted_is_well_and_so_is_silence() {
        assert_eq!(check(&[], &log(&[1], &[])), None);
        assert_eq!(wrong(&[post(0, NEWS)], &log(&[1], &[NEWS])), [""; 0]);
        let again = [post(0, NEWS), post(1, "resolved"), post(2, NEWS)];
        assert_eq!(wrong(&again, &log(&[1], &[NEWS, "resolved", NEWS])), [""; 0], "news again");
    }

    #[test]
    fn a_repeat_under_its_key_is_well_where_a_leader_died_or_its_fate_was_not_known() {
        let twice = [post(0, NEWS), post(0, NEWS)];
        assert_eq!(wrong(&twice, &log(&[1, 50], &[])), [""; 0], "neither noted it");
        assert_eq!(
            wrong(&twice, &log(&[1], &[NEWS])),
            [""; 0],
            "noted as unknown, then sent again"
        );
    }

    #[test]
    fn one_message_too_many_is_found() {
        let often = vec![post(0, NEWS); 4];
        let found = wrong(&often, &log(&[1, 5], &[NEWS, NEWS]));
        assert_eq!(
            found,
            ["INC-7 was told 4 times in the same words: the log notes 2, and there were 1 offices"]
        );
        assert_eq!(wrong(&often, &log(&[1, 50], &[NEWS, NEWS])), [""; 0], "one more office");
    }

    #[test]
    fn a_key_with_two_meanings_and_a_message_without_one_are_found() {
        let two = [
            post_as("c/default/pager/INC-7/0/x", NEWS),
            post_as("c/default/pager/INC-7/0/x", "other"),
        ];
        let found = wrong(&two, &log(&[1, 50], &[]));
        assert_eq!(found, ["the key c/default/pager/INC-7/0/x came with 2 meanings"]);
        let bare = Posted { key: None, ..post(0, NEWS) };
        assert_eq!(wrong(&[bare], &log(&[1], &[])).len(), 1);
        let empty = Posted { body: Value::Null, ..post(0, NEWS) };
        assert_eq!(wrong(&[empty], &log(&[1], &[])).len(), 1);
    }

    #[test]
    fn a_new_key_without_a_delivery_before_it_is_found() {
        let found = wrong(&[post(0, NEWS), post(3, NEWS)], &log(&[1, 50], &[NEWS]));
        assert_eq!(found.len(), 1);
        assert!(found.iter().all(|what| what.contains("counts deliveries")), "{found:?}");
    }

    #[test]
    fn what_stood_behind_another_is_noted_with_it() {
        let behind = json!([
            {"incident": "INC-3", "kind": "needs-human", "text": "x"},
            {"incident": "INC-7", "kind": "needs-human", "text": NEWS},
        ]);
        let key = format!("c/default/pager/INC-3/0/{}", short("both"));
        let summed = Posted { key: Some(key), body: json!({ "notices": behind }) };
        let posted = [summed, post(1, "resolved")];
        assert_eq!(wrong(&posted, &log(&[1], &[])), [""; 0]);
    }
}
