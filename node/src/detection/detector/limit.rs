//! Is a declared limit crossed? A fact, not a test: two values in a row, so that one bad scrape is
//! no incident.
//!
//! Of figures of counted events the first must prove it; the second may come of few events, when it was
//! asked for a moment later, and need only be beyond as it is.

use minicbor::{Decode, Encode};

use crate::detection::counted::Measured;

/// Values beyond the limit in a row that count.
const CROSSED_AFTER: u16 = 2;

/// Counts values beyond a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Limit {
    #[n(0)]
    beyond: u16,
}

impl Limit {
    /// Takes a value; tells whether the limit is crossed.
    pub fn update(&mut self, Measured { value, at_least }: Measured, limit: f64) -> bool {
        let counts = at_least > limit || (self.beyond > 0 && value > limit);
        self.beyond = if counts { self.beyond.saturating_add(1) } else { 0 };
        self.crossed()
    }

    /// Whether it is crossed.
    #[must_use]
    pub const fn crossed(&self) -> bool {
        self.beyond >= CROSSED_AFTER
    }

    /// Whether the last value was beyond it.
    #[must_use]
    pub const fn beyond(&self) -> bool {
        self.beyond > 0
    }
}
