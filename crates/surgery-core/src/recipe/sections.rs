//! The sections of recipes.

use serde::{Deserialize, Serialize};

use super::EMBEDDED;
use crate::checkpoint::SaveDtype;
use crate::data::DocumentsPerStep;
use crate::globs::Glob;
use crate::model::Precision;

/// The section `[model]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// A Hugging Face folder, or `embedded`.
    pub source: String,
    /// The arithmetic.
    pub precision: Precision,
    /// The dtype of the weights written.
    pub save_dtype: SaveDtype,
}

impl Default for ModelSection {
    fn default() -> Self {
        Self { source: EMBEDDED.into(), precision: Precision::F32, save_dtype: SaveDtype::Input }
    }
}

/// The section `[model]` of pretraining.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainModelSection {
    /// A Hugging Face folder. With `from_scratch`, it needs no weights.
    pub source: String,
    /// Whether to begin from random weights, generated from the seed.
    pub from_scratch: bool,
    /// The arithmetic.
    pub precision: Precision,
    /// The dtype of the weights written.
    pub save_dtype: SaveDtype,
}

/// The section `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataSection {
    /// A data folder, or `embedded`.
    pub path: String,
}

impl Default for DataSection {
    fn default() -> Self {
        Self { path: EMBEDDED.into() }
    }
}

/// The section `[data]` of pretraining.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilesSection {
    /// JSONL files of documents.
    pub files: Vec<String>,
}

/// The section `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSection {
    /// Number of updates.
    pub steps: usize,
    /// Number of documents of each set in a step.
    pub documents_per_step: DocumentsPerStep,
    /// Maximum length of a window of a document in tokens; the model's context limits it too.
    pub max_tokens: usize,
    /// The seed of the order of the documents.
    pub seed: u64,
    /// Steps between checkpoints; 0 for none. The last two are kept until the run is finished.
    pub checkpoint_every: usize,
    /// Steps between mid-run evaluations; 0 for none.
    pub evaluate_every: usize,
    /// Maximum number of tokens of a forward pass, unless a single window has more; 0 for no limit. A step of more tokens
    /// is divided into several passes, whose gradients are added up. Results depend on it only by rounding.
    pub batch_tokens: usize,
    /// Whether to keep only the inputs of blocks for the backward pass, and to compute each block twice. It takes less
    /// memory and more time.
    pub recompute: bool,
    /// The form of the reference.
    pub reference: ReferenceForm,
    /// Globs over the names of the parameters to train. The other parameters do not change.
    #[serde(skip_serializing_if = "is_all")]
    pub trainable: Vec<Glob>,
}

/// The globs that match every parameter.
fn all() -> Vec<Glob> {
    vec![Glob::parse("*").expect("a glob")]
}

fn is_all(globs: &Vec<Glob>) -> bool {
    *globs == all()
}

/// The form of the reference: the model before the operation, with which the retain term compares the model. Both forms
/// give the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceForm {
    /// Its final hidden states of the documents that need them, computed before the first step and kept on disk until the
    /// run is finished, and a copy of its head.
    #[default]
    Cached,
    /// A second model in memory, which runs at every step.
    Live,
}

impl Default for TrainSection {
    fn default() -> Self {
        Self {
            steps: 120,
            documents_per_step: DocumentsPerStep::all(8),
            max_tokens: 4096,
            seed: 42,
            checkpoint_every: 0,
            evaluate_every: 0,
            batch_tokens: 0,
            recompute: false,
            reference: ReferenceForm::Cached,
            trainable: all(),
        }
    }
}

/// The section `[replay]`: documents that the model generates before the first step. Steps sample them together with the
/// retain documents. The recipe `paper` has none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replay {
    /// Number of replay documents.
    pub documents: usize,
    /// Maximum number of tokens of one.
    pub max_tokens: usize,
    /// Their tokens are sampled from softmax(logits / temperature).
    pub temperature: f64,
}

impl Default for Replay {
    fn default() -> Self {
        Self { documents: 0, max_tokens: 128, temperature: 1.0 }
    }
}

impl Replay {
    /// Upper bound of `documents`: generating more would take too long.
    pub(super) const MOST_DOCUMENTS: f64 = 1e6;
    /// Upper bound of `max_tokens`: longer than any model's context.
    pub(super) const MOST_TOKENS: f64 = 1e7;

    pub(super) fn is_off(&self) -> bool {
        *self == Self::default()
    }
}

/// The section `[guard]`: limits for the measurements of a step. The recipe `paper` has none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// Maximum KL to the reference on a step's retain documents, in nats; unlimited if it is missing. Above it, the model
    /// returns to the last checkpoint, or to the beginning, and continues with the documents that come next. The second
    /// time ends the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain_kl: Option<f64>,
    /// Maximum number of steps that are skipped because their loss or gradient is not a finite number. One more ends the
    /// run.
    pub skip_not_finite: usize,
}

impl Guard {
    pub(super) fn is_off(&self) -> bool {
        *self == Self::default()
    }
}

/// The section `[train]` of pretraining.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainSection {
    /// Number of updates.
    pub steps: usize,
    /// Number of documents in a step.
    pub documents_per_step: usize,
    /// Maximum length of a window of a document in tokens; the model's context limits it too.
    pub max_tokens: usize,
    /// The seed of random weights and of the order of the documents.
    pub seed: u64,
    /// As in [`TrainSection`].
    pub checkpoint_every: usize,
    /// As in [`TrainSection`].
    pub batch_tokens: usize,
    /// As in [`TrainSection`].
    pub recompute: bool,
}

/// Maximum number of tokens of a forward pass by `batch_tokens`.
fn most_tokens(batch_tokens: usize) -> usize {
    if batch_tokens == 0 { usize::MAX } else { batch_tokens }
}

impl PretrainSection {
    /// Maximum number of tokens of a forward pass.
    pub fn most_tokens(&self) -> usize {
        most_tokens(self.batch_tokens)
    }
}

impl TrainSection {
    /// Maximum number of tokens of a forward pass.
    pub fn most_tokens(&self) -> usize {
        most_tokens(self.batch_tokens)
    }
}

impl Default for PretrainSection {
    fn default() -> Self {
        Self {
            steps: 120,
            documents_per_step: 8,
            max_tokens: 4096,
            seed: 42,
            checkpoint_every: 0,
            batch_tokens: 0,
            recompute: false,
        }
    }
}
