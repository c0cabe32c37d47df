//! What was it the last times it looked like this? Classes learned from past incidents.
//!
//! ```text
//!  Case: entities, calls between them, signs (an entity shows something)
//!    ├► entity by entity: its own signs, those of its replicas, neighbours and of all others
//!    │      forest ─► P(it is the cause, with class k) ──┐ summed over the entities, the surest most
//!    └► the case as a whole: signs by service            ├─► shares of the classes ─► confidence
//!           forest ─► P(class k) ────────────────────────┘      (calibrated on cases not seen)
//! ```
//!
//! The rules ([`super::classify`]) know what any fleet has in common; this knows what one fleet has seen,
//! and names the entity it began at. Pure. Invariant: below the confidence at which it was right often
//! enough on cases it had not seen, it abstains. Deliberately absent: what it knows before it is shown
//! labelled cases.

mod features;
mod model;

pub use model::{Classifier, Label, Verdict, cross_validated};

/// One incident, as it was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Case {
    /// Instances that could have to do with it.
    pub entities: Vec<Entity>,
    /// Who calls whom, as places in `entities`.
    pub calls: Vec<(usize, usize)>,
    /// What was seen.
    pub signs: Vec<Sign>,
}

/// An instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entity {
    /// Its name.
    pub name: String,
    /// Its service: replicas share it.
    pub service: String,
}

/// An entity shows something: an alert, an odd metric, an error in a log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sign {
    /// Place in `entities`; none for a host or a client.
    pub entity: Option<usize>,
    /// What, in few words that mean the same in every case.
    pub what: String,
    /// How strongly; 1 for something that is there or not.
    pub strength: f32,
}

#[cfg(test)]
mod tests;
