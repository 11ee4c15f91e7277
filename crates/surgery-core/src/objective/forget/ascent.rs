//! Gradient ascent: L_f = −ℓ/n (the paper, section 3.2; GradAscent and GradDiff elsewhere).
//!
//! The paper's ascent is unbounded; only the clipping of the gradient limits it. There are two bounds: `ascent_model` ends
//! the ascent on a token at that model's NLL, and `ascent_cap` ends the ascent on a document at a mean NLL. The loss then
//! stays at the bound: L_f = −min(cap, mean_t min(NLL_t, bound_t)).

use super::ForgetLoss;
use crate::objective::weighing::{Measured, Needs, Weights};

/// Gradient ascent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ascent {
    /// The mean NLL at which the ascent on a document ends, in nats.
    pub cap: Option<f64>,
    /// Whether the ascent on each token is bounded by a model's NLL.
    pub is_bounded: bool,
}

impl Ascent {
    fn is_capped(&self, document: &Measured) -> bool {
        self.cap.is_some_and(|cap| document.own.mean_nll() >= cap)
    }
}

impl ForgetLoss for Ascent {
    fn needs(&self) -> Needs {
        Needs { nll: self.cap.is_some() || self.is_bounded, ..Needs::default() }
    }

    fn loss(&self, document: &Measured) -> f64 {
        let bounded = match document.bounds {
            None => document.own.mean_nll(),
            Some(bounds) => {
                let nll = document.own.nll.iter().zip(bounds);
                nll.map(|(nll, bound)| f64::from(nll.min(*bound))).sum::<f64>() / document.own.count as f64
            }
        };
        match self.cap {
            Some(cap) if self.is_capped(document) => -cap.min(bounded),
            _ => -bounded,
        }
    }

    fn weights(&self, document: &Measured) -> Weights {
        let weight = -1.0 / document.own.count as f64;
        match document.bounds {
            _ if self.needs().nll && self.is_capped(document) => Weights::equal(0.0),
            None => Weights::equal(weight),
            Some(bounds) => {
                let nll = document.own.nll.iter().zip(bounds);
                Weights::each(nll.map(|(nll, bound)| if nll < bound { weight } else { 0.0 }).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{document, weights_are_derivatives};
    use super::*;

    #[test]
    fn weights_are_the_derivative() {
        let plain = Ascent { cap: None, is_bounded: false };
        weights_are_derivatives(&plain, &document(&[1.0, 2.0, 0.5], 0.0), |d| plain.loss(d));
        let bounded = Ascent { cap: Some(9.0), is_bounded: true };
        let mut document = document(&[1.0, 2.0, 0.5], 0.0);
        document.bounds = Some(&[1.5, 1.5, 0.25]);
        weights_are_derivatives(&bounded, &document, |d| bounded.loss(d));
        assert!((bounded.loss(&document) + (1.0 + 1.5 + 0.25) / 3.0).abs() < 1e-6);
    }

    #[test]
    fn a_capped_document_keeps_its_loss_and_loses_its_gradient() {
        let capped = Ascent { cap: Some(3.0), is_bounded: false };
        let (below, above) = (document(&[2.0; 4], 0.0), document(&[4.0; 4], 0.0));
        assert_eq!((capped.loss(&below), capped.loss(&above)), (-2.0, -3.0));
        assert_eq!(capped.weights(&below), Weights::equal(-0.25));
        assert_eq!(capped.weights(&above), Weights::equal(0.0));
    }
}
