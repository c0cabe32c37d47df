//! Detectors over one series: pure, streaming, of fixed size, deterministic, serialisable.
//!
//! * [`Level`]: is this value usual? A robust running level and scale, a streak and a CUSUM.
//! * [`Limit`]: is a declared limit crossed?
//! * [`Panel`]: are all metrics of an entity, together and each alone, as they ever were? Backtests run it
//!   too.
//! * [`Trend`]: when will the limit be reached, if things go on like this?
//! * [`Lives`]: how fast did it fill in the lives of the process before this one?
//!
//! [`Series`] runs those that suit one indicator. Invariant: an odd value never teaches the detector
//! that it is usual. Deliberately absent: probes, processes and votes (the entity and the ensemble).

mod calibrated;
mod conformal;
mod level;
mod limit;
mod lives;
mod panel;
mod series;
mod stats;
mod trend;

pub use calibrated::Example;
pub use level::{Eager, Judged, Level, Tuning};
pub use limit::Limit;
pub use lives::Lives;
pub use panel::{Beat, Panel, Pulse, Verdict};
pub use series::{ERRORS_MATTER, GOOD_AFTER, Moment, Reading, Role, Series, SeriesState};
pub(in crate::detection) use stats::normal_tail;
pub use stats::{Line, student_t4_tail, theil_sen};
pub use trend::{Prediction, SETTLE_MS, Trend};

#[cfg(test)]
mod tests;
