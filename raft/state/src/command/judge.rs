//! What is said of the detection of an incident.

use minicbor::{Decode, Encode};

use crate::{ids::IncidentId, weight::Opinion};

/// See [`super::Command::JudgeIncident`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JudgeIncident {
    /// The incident.
    #[n(0)]
    pub incident: IncidentId,
    /// What turned out.
    #[n(1)]
    pub opinion: Opinion,
    /// For [`Opinion::Missed`]: the indicators of its service that should have shown it. None: all that
    /// no detector spoke of.
    #[n(2)]
    pub families: Vec<String>,
    /// What they say; may be empty.
    #[n(3)]
    pub note: String,
}
