//! Where the records about something are: keys of their own table, written with the record.
//!
//! ```text
//!   'i' ‖ incident ‖ log index ‖ ordinal    every record about an incident
//!   'c' ‖ incident ‖ log index ‖ ordinal    the incident as it was closed
//!   'p' ‖ plan     ‖ log index ‖ ordinal    the closed incident whose plan it was
//! ```
//!
//! Numbers are big-endian, so keys of one thing are in the order of the log. Invariant: a key is in
//! the same write as its record. Deliberately absent: labels; whoever filters by them pages.

use medic_state::{IncidentId, PlanId, Record};

use super::disk::record_key;

/// What the wanted records are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// All about an incident: its links of the audit chain, and itself when it closed.
    Incident(IncidentId),
    /// An incident as it was closed; the newest counts.
    Closed(IncidentId),
    /// The closed incident that a plan belonged to; the newest counts.
    Plan(PlanId),
}

impl About {
    /// Whether a record is about it.
    #[must_use]
    pub fn holds(self, record: &Record) -> bool {
        of_record(record).contains(&self)
    }

    /// What the keys begin with.
    fn prefix(self) -> [u8; 9] {
        let (kind, number) = match self {
            Self::Incident(id) => (b'i', id.0),
            Self::Closed(id) => (b'c', id.0),
            Self::Plan(id) => (b'p', id.0),
        };
        let mut prefix = [kind; 9];
        prefix[1..].copy_from_slice(&number.to_be_bytes());
        prefix
    }

    /// Its key for the record at this place.
    pub(super) fn key(self, index: u64, ordinal: u32) -> Vec<u8> {
        let mut key = self.prefix().to_vec();
        key.extend(record_key(index, ordinal));
        key
    }
}

/// What a record is about.
fn of_record(record: &Record) -> Vec<About> {
    match record {
        Record::Audit(link) => link.incident.map(About::Incident).into_iter().collect(),
        Record::Closed(closed) => {
            let id = closed.incident.id;
            let plans = closed.sagas.iter().map(|saga| About::Plan(saga.id));
            [About::Incident(id), About::Closed(id)].into_iter().chain(plans).collect()
        }
    }
}

/// The keys of a record.
pub(super) fn keys(index: u64, ordinal: u32, record: &Record) -> Vec<Vec<u8>> {
    of_record(record).into_iter().map(|about| about.key(index, ordinal)).collect()
}

/// The place of the record that a key stands for.
pub(super) fn place(key: &[u8]) -> Option<(u64, u32)> {
    super::disk::parse_record_key(key.get(9..)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_thing_are_in_the_order_of_the_log() {
        let about = About::Incident(IncidentId(7));
        let key = about.key(300, 2);
        assert_eq!(place(&key), Some((300, 2)));
        assert!(about.key(255, 9) < key && key < about.key(300, 3));
        assert!(About::Closed(IncidentId(7)).key(0, 0) < about.key(0, 0));
        assert_eq!(place(b"i123"), None);
    }
}
