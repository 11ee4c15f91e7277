//! Negative preference optimisation (arXiv 2404.05868): L_f = −(2/β) log σ(β(ℓ − ℓ_ref)).
//!
//! ∂L_f/∂ℓ = −2σ(−β(ℓ − ℓ_ref)): −1 at the first step, where ℓ = ℓ_ref. It approaches 0 as the document is unlearned.

use serde::{Deserialize, Serialize};

use super::{ForgetLoss, above_zero, log_sigmoid, sigmoid};
use crate::objective::weighing::{Measured, Needs, Weights};

/// The section `[objective.npo]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Npo {
    /// β: the smaller, the closer to gradient ascent.
    pub beta: f64,
}

impl Default for Npo {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

impl Npo {
    /// β(ℓ − ℓ_ref)
    fn margin(&self, document: &Measured) -> f64 {
        self.beta * (document.own.sum_nll() - document.own.reference_nll.expect("needed"))
    }
}

impl ForgetLoss for Npo {
    fn needs(&self) -> Needs {
        Needs { nll: true, reference_nll: true, ..Needs::default() }
    }

    fn loss(&self, document: &Measured) -> f64 {
        -2.0 / self.beta * log_sigmoid(self.margin(document))
    }

    fn weights(&self, document: &Measured) -> Weights {
        Weights::equal(-2.0 * sigmoid(-self.margin(document)))
    }

    fn check(&self) -> Result<(), String> {
        above_zero("objective.npo.beta", self.beta)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{document, weights_are_derivatives};
    use super::*;

    #[test]
    fn weights_are_the_derivative() {
        let loss = Npo { beta: 0.3 };
        let document = document(&[1.0, 2.0, 0.5], 3.0);
        weights_are_derivatives(&loss, &document, |d| loss.loss(d));
    }

    #[test]
    fn the_first_step_equals_gradient_ascent() {
        let document = document(&[1.0, 2.0, 0.5], 3.5);
        assert!((Npo::default().weights(&document).of(0) + 1.0).abs() < 1e-9);
    }
}
