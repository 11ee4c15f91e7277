//! What can go wrong, as data: every variant names the culprit, what was found and what to do.

use std::path::{Path, PathBuf};

use crate::memory::{Room, shown};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The classes of failure a caller may want to treat apart (the command line gives each an exit code).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A model, data folder or recipe that cannot be used as it stands.
    Input,
    /// The backend or device cannot do what was asked.
    Backend,
    /// The numbers stopped making sense during the operation.
    Diverged,
    /// It would not fit in memory.
    Memory,
    /// The network or the hub did not give what was asked of it.
    Network,
    /// The result could not be written.
    Storage,
    /// The caller asked for the work to stop, and it has.
    Interrupted,
}

/// An expected failure. A bug panics instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that should be read cannot be.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file or folder.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that should be written cannot be.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no room for what should be written.
    #[error("{}: cannot be written: {source}; it takes {bytes} bytes: make room, and resume", path.display())]
    Full {
        /// The file or folder.
        path: PathBuf,
        /// What it takes.
        bytes: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder that a run would write into may not be used.
    #[error("{}: {problem}; {remedy}", path.display())]
    Output {
        /// The folder.
        path: PathBuf,
        /// Why it may not be used.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// A line of a JSONL file is not what it should be.
    #[error("{path}, line {line}: {problem}")]
    Line {
        /// The file.
        path: String,
        /// The line, counted from 1.
        line: usize,
        /// What was found and what was expected.
        problem: String,
    },
    /// A data file or folder as a whole is not what it should be.
    #[error("{path}: {problem}; {remedy}")]
    Data {
        /// The file or folder.
        path: String,
        /// What was found.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// A key of a JSON configuration file has a value that cannot be used.
    #[error("{path}: `{key}` is {found}; expected {expected}")]
    Config {
        /// The file.
        path: String,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What it should have been.
        expected: String,
    },
    /// A tensor of a checkpoint does not fit the model.
    #[error("{path}: tensor `{tensor}` {problem}")]
    Tensor {
        /// The file.
        path: String,
        /// The tensor's name.
        tensor: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// A checkpoint file or folder as a whole cannot be used.
    #[error("{path}: {problem}; {remedy}")]
    Checkpoint {
        /// The file or folder.
        path: String,
        /// What was found.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// The tokenizer cannot be loaded or used with this model.
    #[error("{path}: {problem}")]
    Tokenizer {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A recipe cannot be used.
    #[error("{origin}: {problem}")]
    Recipe {
        /// The file, shipped name or command-line override it came from.
        origin: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The backend lacks something the recipe asks for.
    #[error("{problem}; {remedy}")]
    Backend {
        /// What is missing.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// What is to be done would not fit in memory; nothing was loaded.
    #[error(
        "{what} would fill {} more of memory (what is predicted and a tenth, for it is that exact), and {} has room for \
         {}; {remedy}", shown(*needed), room.limit, shown(room.bytes)
    )]
    Memory {
        /// What was to be done.
        what: String,
        /// What it would fill, in bytes.
        needed: u64,
        /// What may be filled.
        room: Room,
        /// With what it would fit.
        remedy: String,
    },
    /// The network or the hub did not give what was asked of it.
    #[error("{what}: {problem}; {remedy}")]
    Network {
        /// The model, file or address.
        what: String,
        /// What was found.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// The loss or its gradient stopped being a finite number; no update was applied.
    #[error(
        "step {step}: {what} is {value}, not a finite number; the operation diverged. Lower \
         `optimizer.learning_rate`, or bound the ascent of an operation with `objective.ascent_cap`"
    )]
    NotFinite {
        /// The step, counted from 1.
        step: usize,
        /// Which quantity.
        what: String,
        /// Its value.
        value: f64,
    },
    /// The model has drifted too far from the reference on what it should keep.
    #[error(
        "step {step}: the KL to the reference on retain documents is {kl:.3}, more than `guard.retain_kl`, which is \
         {limit}; the model collapsed. Lower `optimizer.learning_rate`, bound the ascent with `objective.ascent_cap`, \
         or give `objective.retain` more weight"
    )]
    Collapsed {
        /// The step that found it, counted from 1.
        step: usize,
        /// The step's mean KL, in nats.
        kl: f64,
        /// What the recipe allows.
        limit: f64,
    },
    /// The caller's observer asked for the work to stop.
    #[error("interrupted after step {step}{remedy}")]
    Interrupted {
        /// The last finished step, counted from 1; 0 before the first.
        step: usize,
        /// How to go on, if the caller knows.
        remedy: String,
    },
}

impl Error {
    /// The class of this failure.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Read { .. }
            | Error::Output { .. }
            | Error::Line { .. }
            | Error::Data { .. }
            | Error::Config { .. }
            | Error::Tensor { .. }
            | Error::Checkpoint { .. }
            | Error::Tokenizer { .. }
            | Error::Recipe { .. } => Kind::Input,
            Error::Write { .. } | Error::Full { .. } => Kind::Storage,
            Error::Network { .. } => Kind::Network,
            Error::Backend { .. } => Kind::Backend,
            Error::Memory { .. } => Kind::Memory,
            Error::NotFinite { .. } | Error::Collapsed { .. } => Kind::Diverged,
            Error::Interrupted { .. } => Kind::Interrupted,
        }
    }

    /// A model whose weights are finite numbers, and what it computes is not.
    pub fn not_computable(what: &str, value: f64) -> Error {
        Error::Checkpoint {
            path: "the model".into(),
            problem: format!("gives {value} for {what}: its weights are too large to compute with"),
            remedy: "check where it came from".into(),
        }
    }

    /// For a failure to write that comes from a full disk, or a full quota: says how many bytes were wanted.
    pub(crate) fn wanting(self, bytes: u64) -> Error {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Error::Write { path, source } if matches!(source.kind(), StorageFull | QuotaExceeded) => {
                Error::Full { path, bytes, source }
            }
            // What was wanted is part of something larger.
            Error::Full { path, bytes: part, source } => Error::Full { path, bytes: bytes.max(part), source },
            other => other,
        }
    }

    /// A [`Error::Write`] for `path`, for use with `map_err`.
    pub fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Write { path: path.to_path_buf(), source }
    }
}
