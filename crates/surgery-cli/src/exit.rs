//! Exit codes and the failures that lead to them.

use std::process::ExitCode;

use surgery_core::{Error, Kind};

/// The exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// An internal error: a bug.
    Internal = 1,
    /// The command line was not understood.
    Usage = 2,
    /// Bad input: data, model or recipe.
    Input = 3,
    /// The backend or device is unavailable.
    Backend = 4,
    /// The numbers diverged or the model collapsed.
    Diverged = 5,
    /// The operation would not fit in memory.
    Memory = 6,
    /// The network or the hub failed.
    Network = 7,
    /// The result could not be stored.
    Storage = 8,
    /// Interrupted.
    Interrupted = 130,
}

/// The codes as `--help` shows them.
pub const EXPLAINED: &str = "\
Exit codes: 0 done · 1 internal error (a bug) · 2 usage · 3 bad input (data, model, recipe) · 4 backend or \
device unavailable · 5 diverged or collapsed · 6 would not fit in memory · 7 network or hub · 8 storage · 130 interrupted";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// A failure with its message.
#[derive(Debug)]
pub enum Failure {
    /// From the library.
    Core(Error),
    /// The command line asks for something that makes no sense.
    Usage(String),
    /// The reader of standard output has closed it. This is no failure.
    OutputClosed,
}

impl Failure {
    /// The exit code of the process.
    pub fn exit(&self) -> Exit {
        match self {
            Failure::OutputClosed => Exit::Done,
            Failure::Usage(_) => Exit::Usage,
            Failure::Core(error) => match error.kind() {
                Kind::Input => Exit::Input,
                Kind::Backend => Exit::Backend,
                Kind::Diverged => Exit::Diverged,
                Kind::Memory => Exit::Memory,
                Kind::Network => Exit::Network,
                Kind::Storage => Exit::Storage,
                Kind::Interrupted => Exit::Interrupted,
            },
        }
    }

    /// The message for the user.
    pub fn message(&self) -> Option<String> {
        match self {
            Failure::Core(error) => Some(error.to_string()),
            Failure::Usage(message) => Some(message.clone()),
            Failure::OutputClosed => None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Core(error)
    }
}

/// The result of a command.
pub type Outcome<T = ()> = Result<T, Failure>;
