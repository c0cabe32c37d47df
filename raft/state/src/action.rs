//! The catalogue of actions: what each does, what is safe about it, how it is undone.
//!
//! Data, not behaviour: the door checks manifests against it, judgement reads risks and default
//! undo from it, hands carry the actions out.

use crate::{ids::Ppm, manifest::SafetyClass};

/// One action.
#[derive(Clone, Copy, Debug)]
pub struct ActionInfo {
    /// Its name in manifests.
    pub name: &'static str,
    /// For people.
    pub what: &'static str,
    /// Who carries it out.
    pub backend: Backend,
    /// Its class unless a step declares another.
    pub safety: SafetyClass,
    /// The action that undoes it, if any.
    pub undo: Option<&'static str>,
    /// Parameters it must have.
    pub required: &'static [&'static str],
    /// Parameters it may have.
    pub optional: &'static [&'static str],
    /// How dangerous it is in itself: the base of the technical risk.
    pub danger: Ppm,
    /// Whether the target serves nothing while it runs.
    pub interrupts: bool,
}

/// Who carries an action out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The agent on the target's host: persists fences, journals keys.
    Agent,
    /// The leading node itself, over HTTP.
    Node,
}

const fn agent(
    name: &'static str,
    what: &'static str,
    undo: Option<&'static str>,
    danger: u32,
    interrupts: bool,
) -> ActionInfo {
    ActionInfo {
        name,
        what,
        backend: Backend::Agent,
        safety: SafetyClass::Fenced,
        undo,
        required: &[],
        optional: &[],
        danger: Ppm(danger),
        interrupts,
    }
}

/// All actions.
pub const ACTIONS: &[ActionInfo] = &[
    agent(
        "process.start",
        "start an instance that does not run",
        Some("process.stop"),
        20_000,
        false,
    ),
    agent("process.stop", "stop an instance", Some("process.start"), 200_000, true),
    ActionInfo {
        // How long the new process is watched: one that ends meanwhile was not restarted.
        optional: &["watch"],
        ..agent(
            "process.restart",
            "stop an instance if it runs, then start it",
            Some("process.restore"),
            50_000,
            true,
        )
    },
    agent(
        "process.restore",
        "bring an instance to its declared state (running, or stopped for a standby)",
        None,
        50_000,
        false,
    ),
    ActionInfo {
        required: &["content"],
        ..agent(
            "config.replace",
            "write new content to the configuration file, then reload or restart",
            Some("config.restore"),
            150_000,
            true,
        )
    },
    ActionInfo {
        // The SHA-256 of the wanted version; absent: the version in force before the present one.
        optional: &["hash"],
        ..agent(
            "config.restore",
            "put an earlier version of the configuration file back, then reload or restart",
            Some("config.restore"),
            80_000,
            true,
        )
    },
    agent("scale.out", "start a standby instance", Some("scale.in"), 20_000, false),
    agent("scale.in", "stop a standby instance", Some("scale.out"), 100_000, true),
    ActionInfo {
        name: "webhook.call",
        what: "POST to external automation, which may not be idempotent",
        backend: Backend::Node,
        safety: SafetyClass::Opaque,
        undo: None,
        required: &["url"],
        optional: &["body"],
        danger: Ppm(300_000),
        interrupts: false,
    },
];

/// The action of that name.
#[must_use]
pub fn action_info(name: &str) -> Option<&'static ActionInfo> {
    ACTIONS.iter().find(|info| info.name == name)
}
