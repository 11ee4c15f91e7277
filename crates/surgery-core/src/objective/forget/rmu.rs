//! RMU, representation misdirection (arXiv 2403.03218): L_f = mean_t ‖h_t − c·u‖² / hidden at the output of one block.
//!
//! h_t is the state at the predicted token's own position; the position of a BOS token does not count. u has uniform
//! [0, 1) entries and is divided by its norm. It depends only on the seed and the width.

use std::sync::Arc;

use rand::distr::{Distribution as _, StandardUniform};
use serde::{Deserialize, Serialize};

use super::{ForgetLoss, not_negative};
use crate::data::seeded;
use crate::objective::weighing::{States, Use};

/// The section `[objective.rmu]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rmu {
    /// c: the norm that the states are driven to.
    pub coefficient: f64,
    /// The block's index, from 0. The default is 7, or ⌊7/16 · blocks⌋ for a model with fewer than 16 blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<usize>,
}

impl Default for Rmu {
    fn default() -> Self {
        Self { coefficient: 2.0, block: None }
    }
}

impl Rmu {
    /// The block's index in a model with `blocks` blocks.
    pub fn block(&self, blocks: usize) -> usize {
        self.block.unwrap_or(if blocks < 16 { 7 * blocks / 16 } else { 7 })
    }

    /// Returns the first problem in its parameters.
    pub fn check(&self) -> Result<(), String> {
        not_negative("objective.rmu.coefficient", self.coefficient)
    }

    /// The loss for a model with `blocks` blocks and hidden states of `width` values.
    pub fn loss(&self, blocks: usize, width: usize, seed: u64) -> RmuLoss {
        let scaled =
            direction(width, seed).iter().map(|&u| (self.coefficient * f64::from(u)) as f32).collect();
        RmuLoss { block: self.block(blocks), target: scaled }
    }
}

/// u: `width` uniform [0, 1) values divided by their norm.
pub fn direction(width: usize, seed: u64) -> Vec<f32> {
    const STREAM: u64 = 4 << 32;
    let mut generator = seeded(seed, STREAM);
    let values: Vec<f64> = (0..width).map(|_| StandardUniform.sample(&mut generator)).collect();
    let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    values.into_iter().map(|value| (value / norm) as f32).collect()
}

/// RMU for a model of one shape.
#[derive(Debug, Clone, PartialEq)]
pub struct RmuLoss {
    /// The block whose output is compared with the target.
    pub block: usize,
    /// c·u, `[hidden]`.
    pub target: Arc<[f32]>,
}

impl ForgetLoss for RmuLoss {
    fn usage(&self) -> Use {
        Use::States { block: self.block, target: States::Vector(self.target.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_direction_is_a_unit_vector_of_the_seed() {
        let u = direction(64, 3);
        let norm: f32 = u.iter().map(|u| u * u).sum();
        assert!((norm - 1.0).abs() < 1e-5 && u.iter().all(|&u| u >= 0.0));
        assert_eq!(u, direction(64, 3));
        assert_ne!(u, direction(64, 4));
    }

    #[test]
    fn the_default_block_of_small_models_is_proportional() {
        let block = |blocks| Rmu::default().block(blocks);
        assert_eq!([block(16), block(30), block(8), block(2)], [7, 7, 3, 0]);
    }
}
