//! The forget losses. Each has a file with its formula, its source and its test.
//!
//! A forget loss L_f is minimised; the recipe's weights `unlearn` and `edit_unlearn` multiply it. ℓ is the summed NLL of a
//! document's predicted tokens, n their number, p_t the probability of token t, z its logits; sg( ) stops the gradient.
//!
//! To add a loss, write its file and add its line to the registry in `objective/mod.rs`.

pub mod ascent;
pub mod ce_u;
pub mod dpo;
pub mod npo;
pub mod pdu;
pub mod rmu;
pub mod satimp;
pub mod simnpo;
pub mod undial;
pub mod wga;

use std::fmt::Debug;

use super::weighing::{Measured, Needs, Use, Weights};
use crate::kernels::TokenLoss;

/// A loss of a document to unlearn. By default it is the mean of the losses of its predicted tokens.
pub trait ForgetLoss: Debug {
    /// The kind of loss of each predicted token.
    fn usage(&self) -> Use {
        Use::Logits(TokenLoss::Nll)
    }

    /// The measurements of a document that its weights depend on.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// L_f of a document.
    fn loss(&self, document: &Measured) -> f64 {
        document.own.mean_loss()
    }

    /// The derivatives of L_f with respect to the losses of the predicted tokens.
    fn weights(&self, document: &Measured) -> Weights {
        Weights::equal(1.0 / document.own.count as f64)
    }

    /// Returns the first problem in its parameters: the key, its value and the expected value.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// σ(x)
pub(super) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// log σ(x), without overflow.
pub(super) fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// Refuses a parameter that is not above 0.
pub(super) fn above_zero(key: &str, value: f64) -> Result<(), String> {
    match value > 0.0 && value.is_finite() {
        true => Ok(()),
        false => Err(format!("`{key}` is {value}; expected a number above 0")),
    }
}

/// Refuses a parameter that is below 0.
pub(super) fn not_negative(key: &str, value: f64) -> Result<(), String> {
    match value >= 0.0 && value.is_finite() {
        true => Ok(()),
        false => Err(format!("`{key}` is {value}; expected 0 or more")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::data::Set;
    use crate::objective::weighing::Tokens;

    /// A document whose predicted tokens have these NLLs.
    pub fn document(nll: &[f32], reference_nll: f64) -> Measured<'static> {
        let own = Tokens {
            count: nll.len(),
            nll: nll.to_vec(),
            loss: nll.to_vec(),
            reference_nll: Some(reference_nll),
        };
        Measured { set: Set::Unlearn, own, alternative: None, bounds: None }
    }

    /// Compares the weights of a loss with differences of its values. `fixed` is the loss with constant arguments of sg( ).
    pub fn weights_are_derivatives(
        loss: &dyn ForgetLoss,
        document: &Measured,
        fixed: impl Fn(&Measured) -> f64,
    ) {
        const STEP: f32 = 1e-2;
        let weights = loss.weights(document);
        assert!((fixed(document) - loss.loss(document)).abs() < 1e-9);
        for token in 0..document.own.count {
            let at = |step: f32| {
                let mut moved = document.clone();
                moved.own.nll[token] += step;
                fixed(&moved)
            };
            let difference = (at(STEP) - at(-STEP)) / f64::from(2.0 * STEP);
            let weight = weights.of(token);
            assert!((difference - weight).abs() < 1e-3 * weight.abs().max(1e-3), "{difference} {weight}");
        }
        let Some(tokens) = document.alternative.as_ref().map(|alternative| alternative.count) else { return };
        for token in 0..tokens {
            let at = |step: f32| {
                let mut moved = document.clone();
                moved.alternative.as_mut().unwrap().nll[token] += step;
                fixed(&moved)
            };
            let difference = (at(STEP) - at(-STEP)) / f64::from(2.0 * STEP);
            assert!((difference - weights.alternative).abs() < 1e-3 * weights.alternative.abs());
        }
    }

    #[test]
    fn log_sigmoid_is_the_logarithm_of_sigmoid() {
        for x in [-30.0, -1.0, 0.0, 0.5, 20.0] {
            assert!((log_sigmoid(x) - sigmoid(x).ln()).abs() < 1e-9, "{x}");
        }
        assert_eq!(log_sigmoid(-1e4), -1e4);
    }
}
