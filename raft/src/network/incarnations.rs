//! Which process speaks for a node now.
//!
//! Nodes restart, and boot ids have no order: the one that was not heard before is the newer one. Except where the
//! network was late: what a process sent before it died may arrive after its successor was heard, twice removed, and
//! it would take that one's place for good. So a process that fell behind is refused only while the one that took its
//! place is still heard: two that are both alive are a mistake of whoever started them.

use std::time::Duration;

use medic_state::BootId;
use tokio::time::Instant;

/// Whoever is alive calls its peers more often than this.
const SILENT: Duration = Duration::from_secs(5);

/// The incarnation of a peer now, and the one before it.
#[derive(Debug)]
pub(super) struct Incarnations {
    now: BootId,
    heard: Instant,
    before: Option<BootId>,
    /// Whether the one before has been refused since this one took its place.
    refused: bool,
}

/// Why a call is refused: another incarnation took its place, and lives.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) other: BootId,
    /// Not refused yet since then: worth telling.
    pub(super) first: bool,
}

impl Incarnations {
    pub(super) fn first(boot: BootId, at: Instant) -> Self {
        Self { now: boot, heard: at, before: None, refused: false }
    }

    /// Takes a call of an incarnation.
    ///
    /// # Errors
    /// Where the one that took its place is alive too.
    pub(super) fn admit(&mut self, boot: BootId, at: Instant) -> Result<(), Refused> {
        if boot != self.now {
            let silent = at.saturating_duration_since(self.heard) >= SILENT;
            if self.before == Some(boot) && !silent {
                let first = !std::mem::replace(&mut self.refused, true);
                return Err(Refused { other: self.now, first });
            }
            self.refused = false;
            self.before = Some(self.now);
            self.now = boot;
        }
        self.heard = at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: BootId = BootId(1);
    const B: BootId = BootId(2);
    const C: BootId = BootId(3);

    /// A leader that was deaf for a while heard the last start of a node first, then the one before it, and
    /// refused that node's calls for as long as it led.
    #[test]
    fn a_late_word_of_a_dead_process_does_not_take_the_place_of_a_live_one_for_good() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut node = Incarnations::first(A, begun);
        assert_eq!(node.admit(C, after(3)), Ok(()));
        assert_eq!(node.admit(B, after(4)), Ok(()), "nobody can tell yet that it has ended");
        assert_eq!(node.admit(C, after(5)), Err(Refused { other: B, first: true }));
        assert_eq!(node.admit(C, after(9)), Ok(()), "B has been silent");
        assert_eq!(node.admit(C, after(10)), Ok(()));
        assert_eq!(node.admit(B, after(11)), Err(Refused { other: C, first: true }));
    }

    #[test]
    fn of_two_that_are_both_alive_one_is_refused() {
        let begun = Instant::now();
        let mut node = Incarnations::first(A, begun);
        for second in 1..60 {
            let at = begun + Duration::from_secs(second);
            assert_eq!(node.admit(B, at), Ok(()));
            assert_eq!(node.admit(A, at), Err(Refused { other: B, first: second == 1 }));
        }
    }
}
