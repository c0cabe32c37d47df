//! What can go wrong on the command line, and the exit code of each.

use std::process::ExitCode;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// It was tried and did not work; what was wrong is said.
    #[error("{0}")]
    Failed(String),
    /// What was typed makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The cluster, or this machine, refused: rights, state, a safety control.
    #[error("refused: {0}")]
    Refused(String),
    /// Nobody answered. Trying again may help.
    #[error("{0}")]
    Unavailable(String),
    /// Whoever read our output stopped reading.
    #[error("output is closed")]
    Closed,
}

impl CliError {
    /// As in the help: 1 failed, 2 usage, 3 refused, 4 unavailable.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
            Self::Unavailable(_) => 4,
            Self::Closed => 0,
        })
    }

    /// Something that failed, said by its error.
    pub(crate) fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<tonic::Status> for CliError {
    fn from(status: tonic::Status) -> Self {
        use tonic::Code;
        let text = match status.message() {
            "" => format!("{}", status.code()),
            // Said again by the kind of error, or by nobody.
            message => message
                .trim_start_matches("refused: ")
                .trim_start_matches("bad command: ")
                .to_owned(),
        };
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Self::Usage(text),
            Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::AlreadyExists
            | Code::ResourceExhausted => Self::Refused(text),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Self::Unavailable(text),
            Code::Ok
            | Code::Unknown
            | Code::NotFound
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => Self::Failed(text),
        }
    }
}
