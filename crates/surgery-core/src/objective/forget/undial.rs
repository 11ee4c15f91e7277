//! UNDIAL (arXiv 2402.10052), self-distillation: L_f = mean_t CE(softmax(z_ref − β·onehot(y)), z).
//!
//! The target is the reference's distribution, with the logit of the token itself lowered by β. ∂/∂z = q − target. The
//! reference implementation also counts positions without a predicted token; here only predicted tokens count.

use serde::{Deserialize, Serialize};

use super::{ForgetLoss, not_negative};
use crate::kernels::{Distribution, TokenLoss};
use crate::objective::weighing::Use;

/// The section `[objective.undial]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Undial {
    /// β: the reduction of the token's own logit.
    pub beta: f64,
}

impl Default for Undial {
    fn default() -> Self {
        Self { beta: 10.0 }
    }
}

impl ForgetLoss for Undial {
    fn usage(&self) -> Use {
        let lowered = Distribution { of_reference: true, shift: -self.beta as f32, is_entropy_counted: true };
        Use::Logits(TokenLoss::Distribution(lowered))
    }

    fn check(&self) -> Result<(), String> {
        not_negative("objective.undial.beta", self.beta)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::document;
    use super::*;

    #[test]
    fn the_loss_is_the_mean_over_tokens() {
        let document = document(&[1.0, 2.0], 0.0);
        assert_eq!(Undial::default().loss(&document), 1.5);
        assert_eq!(Undial::default().weights(&document).of(1), 0.5);
    }
}
