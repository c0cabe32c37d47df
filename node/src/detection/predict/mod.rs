//! Prediction: what will happen, how sure that is, when, and why.
//!
//! ```text
//!  live, one instance:   trend, slope, restarts, budget, expiry ─► forecast ─► record (held against what happened)
//!
//!  history of many units ─► changes | smooth (features) ─► hazard (fails within the horizon?)
//!                                                       └► life   (how long will it last?)
//! ```
//!
//! [`hazard`] and [`life`] are fitted from the history at hand; [`figures`] says how good they are, on
//! units they have not seen. Pure. Deliberately absent: coefficients.

pub mod budget;
pub mod changes;
pub mod expiry;
pub mod figures;
pub mod forecast;
pub mod hazard;
pub mod history;
pub mod life;
pub mod record;
pub mod recurrence;
pub mod restarts;
pub mod slope;
pub mod smooth;
