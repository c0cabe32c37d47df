//! The real `medic` binary, typed as people type it.

use std::process::Stdio;

use serde_json::Value;

use super::support::{PATIENCE, World};

/// What a command said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    /// It was refused, for a reason that contains this.
    #[track_caller]
    pub(crate) fn refused(self, because: &str) {
        self.failed(3, because);
    }

    /// It ended with this code, and its message contains this.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, because: &str) {
        assert_eq!(self.code, code, "{self:#?}");
        assert!(self.err.contains(because), "not because of `{because}`: {self:#?}");
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let said = self.ok();
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:#?}"))
    }
}

/// A command as a user would type it.
pub(crate) fn command(world: &World, user: &str, args: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_medic-under-test"));
    command
        .args(args)
        .env("MEDIC_CONFIG", world.cluster.dir().join("medic.toml"))
        .env("MEDIC_CONTEXT", user)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Types a command as a user.
pub(crate) async fn medic(world: &World, user: &str, args: &[&str]) -> Said {
    let ended = tokio::time::timeout(PATIENCE, command(world, user, args).output()).await;
    let output = ended.unwrap_or_else(|_| panic!("{args:?} has not ended")).unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
