//! Weighted gradient ascent (arXiv 2502.19301): L_f = −mean_t sg(p_t)^β NLL_t.
//!
//! Tokens of high probability have the largest weights. The weight of a token falls as it is unlearned.

use serde::{Deserialize, Serialize};

use super::{ForgetLoss, not_negative};
use crate::objective::weighing::{Measured, Needs, Weights};

/// The section `[objective.wga]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wga {
    /// β, the power of a token's probability; 0 is gradient ascent.
    pub beta: f64,
}

impl Default for Wga {
    fn default() -> Self {
        Self { beta: 1.0 }
    }
}

impl ForgetLoss for Wga {
    fn needs(&self) -> Needs {
        Needs { nll: true, ..Needs::default() }
    }

    fn loss(&self, document: &Measured) -> f64 {
        weighted(document, &self.weights(document))
    }

    fn weights(&self, document: &Measured) -> Weights {
        let weight = |&nll: &f32| -(-self.beta * f64::from(nll)).exp() / document.own.count as f64;
        Weights::each(document.own.nll.iter().map(weight).collect())
    }

    fn check(&self) -> Result<(), String> {
        not_negative("objective.wga.beta", self.beta)
    }
}

/// Σ_t weight_t NLL_t
pub(super) fn weighted(document: &Measured, weights: &Weights) -> f64 {
    let nll = document.own.nll.iter().enumerate();
    nll.map(|(token, &nll)| weights.of(token) * f64::from(nll)).sum()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{document, weights_are_derivatives};
    use super::*;

    #[test]
    fn weights_are_the_derivative() {
        let loss = Wga { beta: 2.0 };
        let document = document(&[1.0, 0.2, 3.0], 0.0);
        let fixed = loss.weights(&document);
        weights_are_derivatives(&loss, &document, |d| weighted(d, &fixed));
        let p = [1.0f64, f64::from(0.2f32), 3.0].map(|nll| (-nll).exp());
        assert!((fixed.of(1) + p[1].powi(2) / 3.0).abs() < 1e-9);
    }
}
