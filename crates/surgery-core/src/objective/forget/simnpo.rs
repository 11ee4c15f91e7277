//! SimNPO (arXiv 2410.07163), NPO without a reference: L_f = −(2/β) log σ(β(ℓ/n − δ)).
//!
//! ∂L_f/∂ℓ = −(2/n) σ(−β(ℓ/n − δ)).

use serde::{Deserialize, Serialize};

use super::{ForgetLoss, above_zero, log_sigmoid, sigmoid};
use crate::objective::weighing::{Measured, Needs, Weights};

/// The section `[objective.simnpo]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimNpo {
    /// β: the larger, the more sharply the ascent ends.
    pub beta: f64,
    /// δ, the margin: the mean NLL, in nats, around which the ascent ends.
    pub delta: f64,
}

impl Default for SimNpo {
    fn default() -> Self {
        Self { beta: 4.5, delta: 0.0 }
    }
}

impl SimNpo {
    /// β(ℓ/n − δ)
    fn margin(&self, document: &Measured) -> f64 {
        self.beta * (document.own.mean_nll() - self.delta)
    }
}

impl ForgetLoss for SimNpo {
    fn needs(&self) -> Needs {
        Needs { nll: true, ..Needs::default() }
    }

    fn loss(&self, document: &Measured) -> f64 {
        -2.0 / self.beta * log_sigmoid(self.margin(document))
    }

    fn weights(&self, document: &Measured) -> Weights {
        Weights::equal(-2.0 / document.own.count as f64 * sigmoid(-self.margin(document)))
    }

    fn check(&self) -> Result<(), String> {
        above_zero("objective.simnpo.beta", self.beta)?;
        match self.delta.is_finite() {
            true => Ok(()),
            false => Err(format!("`objective.simnpo.delta` is {}; expected a number", self.delta)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{document, weights_are_derivatives};
    use super::*;

    #[test]
    fn weights_are_the_derivative() {
        let loss = SimNpo { beta: 1.5, delta: 0.4 };
        weights_are_derivatives(&loss, &document(&[1.0, 0.2, 0.5], 0.0), |d| loss.loss(d));
    }
}
