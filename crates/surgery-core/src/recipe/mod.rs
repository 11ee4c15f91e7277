//! Recipes: the settings of an operation, as TOML. An omitted key has the paper's value; an unknown one is refused.

mod parse;
mod sections;

use serde::{Deserialize, Serialize};

use crate::objective::Objective;
use crate::optimizer::OptimizerConfig;

pub use crate::model::Precision;
pub use parse::{Check, parse};
pub use sections::{
    DataSection, FilesSection, Guard, ModelSection, PretrainModelSection, PretrainSection, ReferenceForm,
    Replay, TrainSection,
};

/// The source of the model or data embedded in the binary.
pub const EMBEDDED: &str = "embedded";

/// The recipe of the operation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// The model.
    pub model: ModelSection,
    /// The unlearn, update and retain documents.
    pub data: DataSection,
    /// The loss and weight of each set.
    pub objective: Objective,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// Length of the training, and size of its steps.
    pub train: TrainSection,
    /// Replay documents.
    #[serde(skip_serializing_if = "Replay::is_off")]
    pub replay: Replay,
    /// Limits that end the run.
    #[serde(skip_serializing_if = "Guard::is_off")]
    pub guard: Guard,
}

/// The recipe of continual pretraining, or of training from scratch.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainRecipe {
    /// The model.
    pub model: PretrainModelSection,
    /// The documents.
    pub data: FilesSection,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// Length of the training, and size of its steps.
    pub train: PretrainSection,
}
