//! Expected failures as data. Every variant names the culprit, the problem and the remedy.

use std::path::{Path, PathBuf};

use crate::memory::{Room, shown};

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Classes of failure. The command line has an exit code for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A model, data folder or recipe cannot be used.
    Input,
    /// The backend or device lacks a capability.
    Backend,
    /// The numbers diverged or the model collapsed.
    Diverged,
    /// The operation would not fit in memory.
    Memory,
    /// The network or the hub failed.
    Network,
    /// The result could not be written.
    Storage,
    /// The caller stopped the work.
    Interrupted,
}

/// An expected failure. A bug panics instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An input file cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file or folder.
        path: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// An output file cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The disk or quota has no space for an output file.
    #[error("{}: cannot be written: {source}; it takes {bytes} bytes: make room, and resume", path.display())]
    Full {
        /// The file or folder.
        path: PathBuf,
        /// Bytes needed.
        bytes: u64,
        /// The system's error.
        source: std::io::Error,
    },
    /// An output folder may not be used.
    #[error("{}: {problem}; {remedy}", path.display())]
    Output {
        /// The folder.
        path: PathBuf,
        /// The reason.
        problem: String,
        /// The remedy.
        remedy: String,
    },
    /// A line of a JSONL file is invalid.
    #[error("{path}, line {line}: {problem}")]
    Line {
        /// The file.
        path: String,
        /// The line, counted from 1.
        line: usize,
        /// The problem and the expected value.
        problem: String,
    },
    /// A data file or folder is invalid as a whole.
    #[error("{path}: {problem}; {remedy}")]
    Data {
        /// The file or folder.
        path: String,
        /// The problem.
        problem: String,
        /// The remedy.
        remedy: String,
    },
    /// A key of a JSON configuration file has an unusable value.
    #[error("{path}: `{key}` is {found}; expected {expected}")]
    Config {
        /// The file.
        path: String,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// The expected value.
        expected: String,
    },
    /// A tensor of a checkpoint does not fit the model.
    #[error("{path}: tensor `{tensor}` {problem}")]
    Tensor {
        /// The file.
        path: String,
        /// The tensor's name.
        tensor: String,
        /// The problem and the expected value.
        problem: String,
    },
    /// A checkpoint file or folder is unusable as a whole.
    #[error("{path}: {problem}; {remedy}")]
    Checkpoint {
        /// The file or folder.
        path: String,
        /// The problem.
        problem: String,
        /// The remedy.
        remedy: String,
    },
    /// The tokenizer cannot be loaded or used with this model.
    #[error("{path}: {problem}")]
    Tokenizer {
        /// The file.
        path: String,
        /// The problem.
        problem: String,
    },
    /// A recipe is invalid.
    #[error("{origin}: {problem}")]
    Recipe {
        /// The file, shipped name or command-line override it came from.
        origin: String,
        /// The problem and the expected value.
        problem: String,
    },
    /// The backend lacks a capability that the recipe needs.
    #[error("{problem}; {remedy}")]
    Backend {
        /// The missing capability.
        problem: String,
        /// The remedy.
        remedy: String,
    },
    /// The operation would not fit in memory. Nothing was loaded.
    #[error(
        "{what} would take {} more of memory (the prediction plus a tenth as headroom), but {} has room for {}; {remedy}",
        shown(*needed), room.limit, shown(room.bytes)
    )]
    Memory {
        /// The operation.
        what: String,
        /// Memory needed, in bytes.
        needed: u64,
        /// Memory available.
        room: Room,
        /// Settings with which it would fit.
        remedy: String,
    },
    /// The network or the hub failed.
    #[error("{what}: {problem}; {remedy}")]
    Network {
        /// The model, file or address.
        what: String,
        /// The problem.
        problem: String,
        /// The remedy.
        remedy: String,
    },
    /// The loss or its gradient is not finite. No update was applied.
    #[error(
        "step {step}: {what} is {value}, not a finite number; the operation diverged. Lower \
         `optimizer.learning_rate`, or bound the ascent of an operation with `objective.ascent_cap`"
    )]
    NotFinite {
        /// The step, counted from 1.
        step: usize,
        /// The quantity.
        what: String,
        /// Its value.
        value: f64,
    },
    /// The model drifted too far from the reference on retain documents.
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
        /// The limit in the recipe.
        limit: f64,
    },
    /// The caller's observer interrupted the work.
    #[error("interrupted after step {step}{remedy}")]
    Interrupted {
        /// The last completed step, counted from 1; 0 before the first.
        step: usize,
        /// How to resume, if known.
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

    /// The error for a model with finite weights that computes a value which is not finite.
    pub fn not_computable(what: &str, value: f64) -> Error {
        Error::Checkpoint {
            path: "the model".into(),
            problem: format!("gives {value} for {what}: its weights are too large to compute with"),
            remedy: "check where it came from".into(),
        }
    }

    /// Adds the number of bytes needed to a write error from a full disk or quota.
    pub(crate) fn wanting(self, bytes: u64) -> Error {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Error::Write { path, source } if matches!(source.kind(), StorageFull | QuotaExceeded) => {
                Error::Full { path, bytes, source }
            }
            // `part` is one file of something larger.
            Error::Full { path, bytes: part, source } => Error::Full { path, bytes: bytes.max(part), source },
            other => other,
        }
    }

    /// A [`Error::Write`] for `path`, for use with `map_err`.
    pub fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Write { path: path.to_path_buf(), source }
    }
}
