//! Direct preference optimisation (arXiv 2305.18290). The document is rejected and its `alternative` preferred (IdkDPO;
//! AltPO, arXiv 2409.13474): L_f = −(2/β) log σ(x), x = β(Δ_alt − Δ_forget), Δ = ℓ_ref − ℓ.
//!
//! ∂L_f/∂ℓ_forget = −2σ(−x) and ∂L_f/∂ℓ_alt = 2σ(−x).

use serde::{Deserialize, Serialize};

use super::{ForgetLoss, above_zero, log_sigmoid, sigmoid};
use crate::objective::weighing::{Measured, Needs, Tokens, Weights};

/// The section `[objective.dpo]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dpo {
    /// β: the larger, the closer the model stays to the reference.
    pub beta: f64,
}

impl Default for Dpo {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

impl Dpo {
    /// β(Δ_alt − Δ_forget)
    fn margin(&self, document: &Measured) -> f64 {
        let delta = |tokens: &Tokens| tokens.reference_nll.expect("needed") - tokens.sum_nll();
        let alternative = document.alternative.as_ref().expect("needed");
        self.beta * (delta(alternative) - delta(&document.own))
    }
}

impl ForgetLoss for Dpo {
    fn needs(&self) -> Needs {
        Needs { nll: true, reference_nll: true, alternative: true }
    }

    fn loss(&self, document: &Measured) -> f64 {
        -2.0 / self.beta * log_sigmoid(self.margin(document))
    }

    fn weights(&self, document: &Measured) -> Weights {
        let weight = 2.0 * sigmoid(-self.margin(document));
        Weights { alternative: weight, ..Weights::equal(-weight) }
    }

    fn check(&self) -> Result<(), String> {
        above_zero("objective.dpo.beta", self.beta)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{document, weights_are_derivatives};
    use super::*;

    #[test]
    fn weights_are_the_derivative() {
        let loss = Dpo { beta: 0.3 };
        let mut pair = document(&[1.0, 2.0, 0.5], 3.0);
        pair.alternative = Some(document(&[2.5, 0.25], 4.0).own);
        weights_are_derivatives(&loss, &pair, |d| loss.loss(d));
    }
}
