//! PDU, primal-dual unlearning (arXiv 2506.05314): L_f = mean_t (max_v z_t − mean_v z_t)², which flattens the logits, under
//! the constraint L_keep ≤ ε.
//!
//! The dual variable λ replaces the weight `retain`: the loss contains λ(L_keep − ε), and after each step
//! λ ← max(0, λ + η(L_keep − ε)). λ starts at `retain`. The reference implementation masks with unshifted labels; here the
//! logits at the positions that predict tokens count.

use serde::{Deserialize, Serialize};

use super::{ForgetLoss, above_zero, not_negative};
use crate::kernels::TokenLoss;
use crate::objective::weighing::Use;

/// The section `[objective.pdu]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pdu {
    /// ε: the maximum keep loss. It is required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// η: the rate of λ.
    pub rate: f64,
}

impl Default for Pdu {
    fn default() -> Self {
        Self { epsilon: None, rate: 1.0 }
    }
}

impl Pdu {
    /// λ(L_keep − ε)
    pub(crate) fn constraint(&self, lambda: f64, keep: f64) -> f64 {
        lambda * (keep - self.epsilon.unwrap_or(0.0))
    }

    /// λ after a step that used `lambda` and measured `keep`.
    pub(crate) fn next_lambda(&self, lambda: f64, keep: f64) -> f64 {
        (lambda + self.rate * (keep - self.epsilon.unwrap_or(0.0))).max(0.0)
    }
}

impl ForgetLoss for Pdu {
    fn usage(&self) -> Use {
        Use::Logits(TokenLoss::Spread)
    }

    fn check(&self) -> Result<(), String> {
        let Some(epsilon) = self.epsilon else {
            return Err("`objective.pdu.epsilon` is missing, but `objective.forget` is \"pdu\"; expected the maximum keep \
                        loss, such as 0.1"
                .into());
        };
        not_negative("objective.pdu.epsilon", epsilon)?;
        above_zero("objective.pdu.rate", self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lambda_grows_if_the_keep_loss_exceeds_epsilon_and_falls_to_0_otherwise() {
        let pdu = Pdu { epsilon: Some(0.5), rate: 2.0 };
        assert_eq!(pdu.next_lambda(1.0, 0.75), 1.5);
        assert_eq!(pdu.next_lambda(0.25, 0.25), 0.0);
        assert_eq!(pdu.constraint(2.0, 0.75), 0.5);
        assert!(Pdu::default().check().unwrap_err().contains("objective.pdu.epsilon"));
    }
}
