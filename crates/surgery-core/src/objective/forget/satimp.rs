//! SatImp (arXiv 2505.11953): L_f = −mean_t sg(p_t^β₁ (1 − p_t)^β₂) NLL_t.
//!
//! Tokens of medium probability have the largest weight: saturation (1 − p) times importance (p). The reference
//! implementation's YAML and README give different powers; β₁ = 5 and β₂ = 1 are those of its YAML.

use serde::{Deserialize, Serialize};

use super::wga::weighted;
use super::{ForgetLoss, not_negative};
use crate::objective::weighing::{Measured, Needs, Weights};

/// The section `[objective.satimp]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SatImp {
    /// β₁, the power of a token's probability.
    pub beta_1: f64,
    /// β₂, the power of 1 − a token's probability.
    pub beta_2: f64,
}

impl Default for SatImp {
    fn default() -> Self {
        Self { beta_1: 5.0, beta_2: 1.0 }
    }
}

impl ForgetLoss for SatImp {
    fn needs(&self) -> Needs {
        Needs { nll: true, ..Needs::default() }
    }

    fn loss(&self, document: &Measured) -> f64 {
        weighted(document, &self.weights(document))
    }

    fn weights(&self, document: &Measured) -> Weights {
        let weight = |&nll: &f32| {
            // `exp_m1` keeps the digits of 1 − p if p is near 1. Rounding may make an NLL negative.
            let nll = f64::from(nll).max(0.0);
            let (p, rest) = ((-self.beta_1 * nll).exp(), -(-nll).exp_m1());
            -p * rest.powf(self.beta_2) / document.own.count as f64
        };
        Weights::each(document.own.nll.iter().map(weight).collect())
    }

    fn check(&self) -> Result<(), String> {
        not_negative("objective.satimp.beta_1", self.beta_1)?;
        not_negative("objective.satimp.beta_2", self.beta_2)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{document, weights_are_derivatives};
    use super::*;

    #[test]
    fn weights_are_the_derivative() {
        let loss = SatImp { beta_1: 2.0, beta_2: 0.5 };
        let document = document(&[1.0, 0.2, 3.0], 0.0);
        let fixed = loss.weights(&document);
        weights_are_derivatives(&loss, &document, |d| weighted(d, &fixed));
        let p = (-1.0f64).exp();
        assert!((fixed.of(0) + p.powi(2) * (1.0 - p).sqrt() / 3.0).abs() < 1e-9);
    }
}
