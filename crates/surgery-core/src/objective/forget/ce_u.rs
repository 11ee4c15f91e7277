//! CE-U, cross-entropy unlearning (arXiv 2503.01224): L_f = mean_t CE(softmax(sg(z) with z_y = −∞), z).
//!
//! The target is the model's own distribution without the token itself. ∂/∂z = q − target. The reference implementation
//! skips the first token of an answer; here every predicted token counts.

use serde::{Deserialize, Serialize};

use super::ForgetLoss;
use crate::kernels::{Distribution, REMOVED, TokenLoss};
use crate::objective::weighing::Use;

/// The section `[objective.ce_u]`: it has no parameter.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CeU {}

impl ForgetLoss for CeU {
    fn usage(&self) -> Use {
        let without = Distribution { of_reference: false, shift: REMOVED, is_entropy_counted: true };
        Use::Logits(TokenLoss::Distribution(without))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::document;
    use super::*;

    #[test]
    fn the_loss_is_the_mean_over_tokens() {
        assert_eq!(CeU {}.loss(&document(&[1.0, 2.0], 0.0)), 1.5);
    }
}
