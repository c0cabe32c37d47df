//! Is a declared limit crossed? A fact, not a test: two values in a row, so that one bad scrape is
//! no incident.

use minicbor::{Decode, Encode};

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
    pub fn update(&mut self, value: f64, limit: f64) -> bool {
        self.beyond = if value > limit { self.beyond.saturating_add(1) } else { 0 };
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
