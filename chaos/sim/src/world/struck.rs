//! Faults of the fleet, begun and ended: the storm of every layer does this part alike.

use medic_state::NodeId;

use super::{Fleet, Life};
use crate::faults::{Fault, Scheduled, Trouble};

/// What ends a fault of the fleet.
#[derive(Clone, Debug)]
pub(crate) enum Relief {
    Host(String),
    Link(NodeId, String),
    Blind(NodeId),
    Dark(String),
    Calm(Trouble),
}

/// What became of a fault.
pub(crate) enum Struck {
    /// It is none of the fleet's.
    Elsewhere,
    /// It was done, and ends by itself or not at all.
    Once,
    /// It was done, and lasts until this.
    Until(Relief),
}

impl Fleet {
    /// Begins a fault, if it is one of the fleet's.
    pub(crate) fn strike(&self, one: &Scheduled) -> Struck {
        match &one.fault {
            Fault::Kill(instance) => {
                self.end(instance, Life::Dead);
            }
            Fault::Hang(instance) => {
                self.end(instance, Life::Paused);
            }
            Fault::Sicken(instance, ill, cure) => self.infect(instance, *ill, *cure, one.for_ms),
            Fault::Misconfigure(service) => self.misconfigure(service, one.for_ms),
            Fault::Agent(agent) => self.agent_down(agent, one.for_ms),
            Fault::Host(agent) => {
                self.host(agent, false, one.for_ms);
                return Struck::Until(Relief::Host(agent.clone()));
            }
            Fault::Cut(node, agent) => {
                self.cut(*node, agent, true);
                return Struck::Until(Relief::Link(*node, agent.clone()));
            }
            Fault::Blind(node) => {
                self.blind(*node, true);
                return Struck::Until(Relief::Blind(*node));
            }
            Fault::Dark(service) => {
                self.dark(service, true);
                return Struck::Until(Relief::Dark(service.clone()));
            }
            Fault::Trouble(trouble, part) => {
                self.trouble(*trouble, *part);
                return Struck::Until(Relief::Calm(*trouble));
            }
            _ => return Struck::Elsewhere,
        }
        Struck::Once
    }

    /// Ends a fault.
    pub(crate) fn relieve(&self, relief: Relief) {
        match relief {
            Relief::Host(agent) => self.host(&agent, true, 0),
            Relief::Link(node, agent) => self.cut(node, &agent, false),
            Relief::Blind(node) => self.blind(node, false),
            Relief::Dark(service) => self.dark(&service, false),
            Relief::Calm(trouble) => self.trouble(trouble, 0),
        }
    }

    fn trouble(&self, trouble: Trouble, part: u32) {
        self.mood(|mood| match trouble {
            Trouble::AnswersLost => mood.answers_lost = part,
            Trouble::Halved => mood.halved = part,
            Trouble::Failed => mood.failed = part,
            Trouble::Delayed => mood.delayed = part,
            Trouble::Stubborn => mood.stubborn = part > 0,
        });
    }
}
