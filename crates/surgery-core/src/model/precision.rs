//! The arithmetic of a run.

use burn::tensor::FloatDType;
use serde::{Deserialize, Serialize};

/// The arithmetic of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32 throughout.
    #[default]
    F32,
    /// bf16 weights, residual stream and products. Norms, rope, softmax, SwiGLU and losses are computed in f32.
    Bf16,
    /// f32 weights, residual stream and optimizer state, bf16 products. Norms, rope, softmax, SwiGLU and losses are
    /// computed in f32.
    Mixed,
}

impl Precision {
    /// The dtype of stored weights. The optimizer's state is always f32.
    pub fn stored(self) -> FloatDType {
        match self {
            Precision::F32 | Precision::Mixed => FloatDType::F32,
            Precision::Bf16 => FloatDType::BF16,
        }
    }

    /// The dtype of the operands of products.
    pub fn computed(self) -> FloatDType {
        match self {
            Precision::F32 => FloatDType::F32,
            Precision::Mixed | Precision::Bf16 => FloatDType::BF16,
        }
    }

    /// Its name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::Mixed => "mixed",
        }
    }
}
