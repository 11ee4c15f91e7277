//! The objective (the paper, section 3.2):
//!
//! ```text
//! loss = - w_u · mean_d NLL_d    over the unlearn documents of the step        (reverse gradient)
//!        - w_e · mean_d NLL_d    over its edit_unlearn documents               (reverse gradient)
//!        + w_p · mean_d NLL_d    over its edit_update documents                (gradient descent)
//!        + w_r · mean_d KL_d     over its retain documents, KL(reference ‖ model)
//! ```
//!
//! NLL_d and KL_d are means over a document's predicted tokens, in nats. So the whole is a sum over tokens,
//! `Σ_t a_t NLL_t + Σ_t b_t KL_t`, with `a_t = ∓w / (D n_d)` and `b_t = w_r / (D n_d)` for D documents of
//! the set and n_d predicted tokens of document d: one packed forward over all sets serves every term.
//!
//! Where this differs from the authors' code, on purpose:
//! - The retain term is the KL divergence itself, by log-softmax: 0 at the first step. Theirs is the
//!   cross-entropy with an epsilon inside the logarithm, which has the same gradient but for the epsilon.
//! - Means run over real predicted tokens; theirs also count the last position and padding, and leave out
//!   tokens whose loss happens to be exactly 0.
//! - The ascent may be bounded, token by token ([`Objective::ascent_model`]) and for a document as a whole
//!   ([`Objective::ascent_cap`]). Without a bound it is the paper's, held back only by the clipping of the
//!   gradient.

use serde::{Deserialize, Serialize};

use crate::data::Set;

/// The weights of the terms; the section `[objective]` of a recipe. Its defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Objective {
    /// Weight of the ascent on unlearn documents.
    pub unlearn: f64,
    /// Weight of the ascent on edit_unlearn documents.
    pub edit_unlearn: f64,
    /// Weight of the descent on edit_update documents.
    pub edit_update: f64,
    /// Weight of the KL to the reference on retain documents.
    pub retain: f64,
    /// A document whose mean NLL has reached this many nats is pushed no further: its part of the loss is
    /// `-w min(NLL_d, cap)`. Unbounded where it is missing, as in the paper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ascent_cap: Option<f64>,
    /// A model that has never seen what is to be forgotten. A token whose NLL has reached what this model gives it
    /// is pushed no further: the ascent on a document is `-w mean_t min(NLL_t, bound_t)`. Unbounded where it is
    /// missing or [`NO_MODEL`], as in the paper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ascent_model: Option<String>,
}

/// What `ascent_model` says for no model.
pub const NO_MODEL: &str = "none";

impl Default for Objective {
    fn default() -> Self {
        Self {
            unlearn: 0.1,
            edit_unlearn: 0.1,
            edit_update: 2.0,
            retain: 0.5,
            ascent_cap: None,
            ascent_model: None,
        }
    }
}

/// What a document contributes: its set, its number of predicted tokens, and its mean loss in nats (the NLL,
/// or for retain the KL).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DocumentLoss {
    /// The set it was drawn from.
    pub set: Set,
    /// Predicted tokens.
    pub tokens: usize,
    /// Mean over them.
    pub mean: f64,
    /// The same mean with no token counted for more than its bound, where it has one.
    pub bounded: f64,
}

/// The terms of a step, unweighted, in nats; none for a set that the step did not draw from.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Terms {
    /// Mean NLL of the unlearn documents.
    pub unlearn: Option<f64>,
    /// Mean NLL of the edit_unlearn documents.
    pub edit_unlearn: Option<f64>,
    /// Mean NLL of the edit_update documents.
    pub edit_update: Option<f64>,
    /// Mean KL(reference ‖ model) of the retain documents.
    pub retain_kl: Option<f64>,
}

/// How the documents of a step are weighed into one loss. A loss that looks at a whole document's NLL before
/// it weighs its tokens (a cap, NPO) is another implementation of this trait.
pub trait Weighing {
    /// The loss of a step.
    fn loss(&self, documents: &[DocumentLoss]) -> f64;

    /// For each document, by how much the loss grows with each of its tokens' NLL (or KL): a_t and b_t.
    fn coefficients(&self, documents: &[DocumentLoss]) -> Vec<f64>;

    /// Whether the coefficients depend on the means of this set's documents. Those are then measured before
    /// they are weighed; of the others, `coefficients` sees only how many tokens they have.
    fn needs_losses(&self, set: Set) -> bool;
}

/// The mean over all tokens of the step, as language models are pretrained.
#[derive(Debug, Clone, Copy)]
pub struct TokenMean;

impl Weighing for TokenMean {
    fn loss(&self, documents: &[DocumentLoss]) -> f64 {
        documents.iter().zip(self.coefficients(documents)).map(|(d, c)| c * d.tokens as f64 * d.mean).sum()
    }

    fn coefficients(&self, documents: &[DocumentLoss]) -> Vec<f64> {
        let tokens: usize = documents.iter().map(|document| document.tokens).sum();
        vec![1.0 / tokens as f64; documents.len()]
    }

    fn needs_losses(&self, _set: Set) -> bool {
        false
    }
}

impl Objective {
    /// The weight of a set, with the sign of its term: negative where the gradient is reversed.
    pub fn signed_weight(&self, set: Set) -> f64 {
        match set {
            Set::Unlearn => -self.unlearn,
            Set::EditUnlearn => -self.edit_unlearn,
            Set::EditUpdate => self.edit_update,
            Set::Retain => self.retain,
            Set::RetainHeldout => 0.0,
        }
    }

    /// The sets that take part: those whose weight is not 0.
    pub fn sets(&self) -> Vec<Set> {
        Set::TRAINED.into_iter().filter(|&set| self.signed_weight(set) != 0.0).collect()
    }

    /// The model that bounds the ascent token by token.
    pub fn bounding_model(&self) -> Option<&str> {
        self.ascent_model.as_deref().filter(|&source| source != NO_MODEL)
    }

    /// Whether the ascent on a document has reached its bound.
    fn is_capped(&self, document: &DocumentLoss) -> bool {
        let ascends = self.signed_weight(document.set) < 0.0;
        ascends && self.ascent_cap.is_some_and(|cap| document.mean >= cap)
    }
}

impl Weighing for Objective {
    fn loss(&self, documents: &[DocumentLoss]) -> f64 {
        let part = |document: &DocumentLoss| {
            let weight = self.signed_weight(document.set);
            let counted = match self.ascent_cap {
                Some(cap) if self.is_capped(document) => cap.min(document.bounded),
                _ if weight < 0.0 => document.bounded,
                _ => document.mean,
            };
            weight * counted / count(documents, document.set)
        };
        documents.iter().map(part).sum()
    }

    fn coefficients(&self, documents: &[DocumentLoss]) -> Vec<f64> {
        let coefficient = |document: &DocumentLoss| match self.is_capped(document) {
            true => 0.0,
            false => {
                let tokens = document.tokens as f64;
                self.signed_weight(document.set) / (count(documents, document.set) * tokens)
            }
        };
        documents.iter().map(coefficient).collect()
    }

    fn needs_losses(&self, set: Set) -> bool {
        let is_bounded = self.ascent_cap.is_some() || self.bounding_model().is_some();
        is_bounded && self.signed_weight(set) < 0.0
    }
}

impl Terms {
    /// The mean over each set's documents.
    pub fn of(documents: &[DocumentLoss]) -> Self {
        let mean = |set| {
            let total: f64 = documents.iter().filter(|d| d.set == set).map(|d| d.mean).sum();
            let count = count(documents, set);
            (count > 0.0).then(|| total / count)
        };
        Self {
            unlearn: mean(Set::Unlearn),
            edit_unlearn: mean(Set::EditUnlearn),
            edit_update: mean(Set::EditUpdate),
            retain_kl: mean(Set::Retain),
        }
    }
}

fn count(documents: &[DocumentLoss], set: Set) -> f64 {
    documents.iter().filter(|document| document.set == set).count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(set: Set, tokens: usize, mean: f64) -> DocumentLoss {
        DocumentLoss { set, tokens, mean, bounded: mean }
    }

    #[test]
    fn the_paper_s_numbers() {
        let documents = [
            document(Set::Unlearn, 10, 2.0),
            document(Set::Unlearn, 5, 4.0),
            document(Set::EditUnlearn, 4, 1.0),
            document(Set::EditUpdate, 8, 3.0),
            document(Set::Retain, 2, 0.5),
        ];
        let objective = Objective::default();
        let expected = -0.1 * 3.0 - 0.1 * 1.0 + 2.0 * 3.0 + 0.5 * 0.5;
        assert!((objective.loss(&documents) - expected).abs() < 1e-12);
        let coefficients = objective.coefficients(&documents);
        assert_eq!(coefficients, [-0.1 / 20.0, -0.1 / 10.0, -0.1 / 4.0, 2.0 / 8.0, 0.5 / 2.0]);
        assert_eq!(Terms::of(&documents).unlearn, Some(3.0));
    }

    #[test]
    fn a_capped_document_keeps_its_loss_and_loses_its_gradient() {
        let objective = Objective { ascent_cap: Some(3.0), ..Objective::default() };
        let documents = [document(Set::Unlearn, 10, 2.0), document(Set::Unlearn, 5, 4.0)];
        assert!((objective.loss(&documents) + 0.1 * 2.5).abs() < 1e-12);
        assert_eq!(objective.coefficients(&documents), [-0.1 / 20.0, 0.0]);
        // The cap bounds the ascent only.
        let update = [document(Set::EditUpdate, 5, 4.0)];
        assert_eq!(objective.coefficients(&update), [2.0 / 5.0]);
    }
}
