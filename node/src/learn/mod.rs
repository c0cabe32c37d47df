//! Learning from a history at hand: pure, seeded, the same on every machine.
//!
//! ```text
//!  Table (numbers, NaN = not known) ─► Bins ─► Binned (a byte a cell) ─► Boost | Forest
//!                                                folds: whole units apart ─► figures nobody has seen
//! ```
//!
//! * [`boost`]: gradient-boosted trees, for probabilities and numbers. * [`forest`]: extremely
//!   randomised trees, for classes and for few cases. * [`calibrate`]: scores to probabilities.
//! * [`folds`]: cross-validation by unit.
//!
//! Prediction and classification share these. Invariant: equal rows, settings and seed give an equal
//! model. Deliberately absent: coefficients. Nothing here knows anything before it is shown a history.

pub mod boost;
pub mod calibrate;
pub mod chance;
pub mod folds;
pub mod forest;
pub mod table;
pub mod tree;

pub use boost::{Boost, Loss, Settings};
pub use calibrate::Isotonic;
pub use chance::Chance;
pub use folds::folds;
pub use forest::{Aims, Forest, Shape};
pub use table::{Binned, Bins, Table};
pub use tree::Growth;

#[cfg(test)]
mod tests;
