//! What an operation came to: the numbers of `report.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checkpoint::model_files;
use crate::data::lint::Finding;
use crate::error::Result;
use crate::evaluate::Evaluation;
use crate::files::Folder;

/// The report of an operation; `report.json` holds it as it stands here.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// The model as it came.
    pub before: Evaluation,
    /// The checkpoint that was written, read back.
    pub after: Evaluation,
    /// After minus before.
    pub difference: Evaluation,
    /// Steps done.
    pub steps: usize,
    /// Of these, how many made no update, because their loss or gradient was no finite number.
    pub steps_skipped: usize,
    /// How often the model went back to an earlier state, because it had collapsed.
    pub rolled_back: usize,
    /// Input tokens of all steps.
    pub tokens: usize,
    /// Time spent in steps, and before them in what only they need.
    pub train_seconds: f64,
    /// Time spent in evaluations: before, on the way and after.
    pub evaluate_seconds: f64,
    /// Input tokens a second, over all steps.
    pub tokens_per_second: f64,
    /// The most memory held, in bytes: by the process, or set aside on a GPU. None where that cannot be told.
    pub peak_memory_bytes: Option<u64>,
    /// Texts that the model wrote itself and was held to.
    pub texts_written: usize,
    /// Documents that were longer than the context, and were split into windows.
    pub documents_split: usize,
    /// What may be wrong with the data.
    pub findings: Vec<Finding>,
    /// How the model before judges greedy continuations of retain prompts.
    pub fluency: Option<Fluency>,
    /// What was operated on.
    pub model: String,
    /// What with.
    pub data: String,
    /// Where the result is.
    pub output: String,
    /// What went in and what came out.
    pub files: Vec<Hashed>,
}

/// Mean NLL, in nats a token, that the model before gives to continuations of retain prompts.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Fluency {
    /// To its own.
    pub before: f64,
    /// To those of the model after.
    pub after: f64,
    /// After over before.
    pub ratio: f64,
}

/// A file and its SHA-256.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hashed {
    /// Its name.
    pub file: String,
    /// In hexadecimal.
    pub sha256: String,
}

impl Fluency {
    /// Of both models' continuations.
    pub fn of(before: Option<f64>, after: Option<f64>) -> Option<Self> {
        let (before, after) = (before?, after?);
        // Certainty about every token has an NLL of 0.
        Some(Self { before, after, ratio: after / before.max(1e-6) })
    }
}

impl Hashed {
    /// The files that make a model.
    pub fn of_model(folder: &Folder) -> Result<Vec<Self>> {
        Self::of(folder, model_files(folder)?.into_iter())
    }

    /// The files that make a data folder.
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

    /// These files of `folder`.
    pub fn of(folder: &Folder, names: impl Iterator<Item = String>) -> Result<Vec<Self>> {
        names.map(|name| Ok(Self { sha256: folder.sha256(&name)?, file: folder.label(&name) })).collect()
    }
}
