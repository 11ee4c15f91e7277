//! The results of an operation: the numbers of `report.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checkpoint::model_files;
use crate::data::lint::Finding;
use crate::error::Result;
use crate::evaluate::Evaluation;
use crate::files::Folder;

/// The report of an operation, as in `report.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// The input model.
    pub before: Evaluation,
    /// The written checkpoint, read back.
    pub after: Evaluation,
    /// After minus before.
    pub difference: Evaluation,
    /// Steps completed.
    pub steps: usize,
    /// Steps without an update, because their loss or gradient was not finite.
    pub steps_skipped: usize,
    /// Number of rollbacks to an earlier state after a collapse.
    pub rolled_back: usize,
    /// Input tokens of all steps.
    pub tokens: usize,
    /// Time in seconds of all steps and of the preparations for them.
    pub train_seconds: f64,
    /// Time in seconds of the evaluations before, during and after training.
    pub evaluate_seconds: f64,
    /// Input tokens a second over all steps.
    pub tokens_per_second: f64,
    /// Peak memory in bytes: of the process, or reserved on a GPU. `None` if unknown.
    pub peak_memory_bytes: Option<u64>,
    /// Replay documents that the model generated.
    pub texts_written: usize,
    /// Documents longer than the context, which were split into windows.
    pub documents_split: usize,
    /// Problems in the data.
    pub findings: Vec<Finding>,
    /// NLL of greedy continuations of retain prompts under the model before.
    pub fluency: Option<Fluency>,
    /// The input model's location.
    pub model: String,
    /// The data folder.
    pub data: String,
    /// The output folder.
    pub output: String,
    /// Input and output files.
    pub files: Vec<Hashed>,
}

/// Mean NLL of continuations of retain prompts under the model before, in nats a token.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Fluency {
    /// Its own continuations.
    pub before: f64,
    /// Continuations by the model after.
    pub after: f64,
    /// After over before.
    pub ratio: f64,
}

/// A file and its SHA-256.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hashed {
    /// Its name.
    pub file: String,
    /// Its SHA-256 in hexadecimal digits.
    pub sha256: String,
}

impl Fluency {
    /// From the NLLs of both models' continuations.
    pub fn of(before: Option<f64>, after: Option<f64>) -> Option<Self> {
        let (before, after) = (before?, after?);
        // If every token is certain, the NLL is 0.
        Some(Self { before, after, ratio: after / before.max(1e-6) })
    }
}

impl Hashed {
    /// Hashes the files of a model.
    pub fn of_model(folder: &Folder) -> Result<Vec<Self>> {
        Self::of(folder, model_files(folder)?.into_iter())
    }

    /// Hashes the files of a data folder.
    pub fn of_data(folder: &Folder) -> Result<Vec<Self>> {
        const QUESTIONS: &str = "questions";
        let is_of_data = |name: &String| name.ends_with(".jsonl");
        let mut names: Vec<String> = folder.list("")?.into_iter().filter(is_of_data).collect();
        if folder.has_folder(QUESTIONS) {
            let inner = folder.list(QUESTIONS)?.into_iter().filter(is_of_data);
            names.extend(inner.map(|name| format!("{QUESTIONS}/{name}")));
        }
        Self::of(folder, names.into_iter())
    }

    /// The checksums of some files, by their names.
    pub fn by_name(hashed: &[Self]) -> BTreeMap<String, String> {
        hashed.iter().map(|hashed| (hashed.file.clone(), hashed.sha256.clone())).collect()
    }

    /// Hashes these files of `folder`.
    pub fn of(folder: &Folder, names: impl Iterator<Item = String>) -> Result<Vec<Self>> {
        names.map(|name| Ok(Self { sha256: folder.sha256(&name)?, file: folder.label(&name) })).collect()
    }
}
