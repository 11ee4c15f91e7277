//! The loss of a step as a weighted sum over tokens: the measurements of each document, and the weights of its tokens.

use std::sync::Arc;

use crate::data::Set;
use crate::kernels::TokenLoss;
use crate::model::At;

/// The kind of loss of a document's predicted tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum Use {
    /// A function of the logits that predict the token.
    Logits(TokenLoss),
    /// `‖h − target‖² / hidden`, with the token's own hidden state h at the output of a block.
    States {
        /// The block's index, from 0.
        block: usize,
        /// The target that the states are compared with.
        target: States,
    },
}

impl Use {
    /// The NLL.
    pub const NLL: Self = Self::Logits(TokenLoss::Nll);

    /// The place of the reference's hidden states that it needs, if it needs any.
    pub fn of_reference(&self) -> Option<At> {
        match self {
            Self::Logits(TokenLoss::Distribution(target)) if target.of_reference => Some(At::Final),
            Self::States { block, target: States::Reference } => Some(At::Block(*block)),
            _ => None,
        }
    }
}

/// The target that hidden states are compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum States {
    /// One vector for all tokens, `[hidden]`.
    Vector(Arc<[f32]>),
    /// The reference's states of the same tokens.
    Reference,
}

/// The measurements of a document that its weights depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// The NLL of each of its predicted tokens under the current model.
    pub nll: bool,
    /// Its summed NLL, and that of its alternative, under the reference.
    pub reference_nll: bool,
    /// An alternative that is preferred to it, and the NLL of the alternative's tokens.
    pub alternative: bool,
}

/// The measurements of a document of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured<'a> {
    /// Its set.
    pub set: Set,
    /// Its predicted tokens.
    pub own: Tokens,
    /// The predicted tokens of the alternative that is preferred to it.
    pub alternative: Option<Tokens>,
    /// The NLL at which the ascent on each predicted token ends, in nats.
    pub bounds: Option<&'a [f32]>,
}

/// The measurements of the predicted tokens of a document.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tokens {
    /// Number of tokens.
    pub count: usize,
    /// The NLL of each in nats; empty if it is not measured, or not yet.
    pub nll: Vec<f32>,
    /// The loss of each, by its [`Use`]; empty if it is not measured yet.
    pub loss: Vec<f32>,
    /// Their summed NLL under the reference, in nats.
    pub reference_nll: Option<f64>,
}

impl Tokens {
    /// The summed NLL, in nats.
    pub fn sum_nll(&self) -> f64 {
        self.nll.iter().map(|&nll| f64::from(nll)).sum()
    }

    /// The mean NLL, in nats.
    pub fn mean_nll(&self) -> f64 {
        self.sum_nll() / self.count as f64
    }

    /// The mean of the losses.
    pub fn mean_loss(&self) -> f64 {
        self.loss.iter().map(|&loss| f64::from(loss)).sum::<f64>() / self.count as f64
    }
}

/// The derivatives of a loss with respect to the losses of a document's predicted tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    /// The weights of its own tokens.
    pub own: TokenWeights,
    /// The weight of the NLL of each token of its alternative.
    pub alternative: f64,
}

/// The weights of a document's tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenWeights {
    /// The same weight for all.
    Equal(f64),
    /// One weight for each.
    Each(Vec<f64>),
}

impl Weights {
    /// The same weight for each own token.
    pub fn equal(weight: f64) -> Self {
        Self { own: TokenWeights::Equal(weight), alternative: 0.0 }
    }

    /// A weight for each own token.
    pub fn each(weights: Vec<f64>) -> Self {
        Self { own: TokenWeights::Each(weights), alternative: 0.0 }
    }

    /// The weight of an own token.
    pub fn of(&self, token: usize) -> f64 {
        match &self.own {
            TokenWeights::Equal(weight) => *weight,
            TokenWeights::Each(weights) => weights[token],
        }
    }

    /// All of them times a factor.
    pub(super) fn times(self, factor: f64) -> Self {
        let own = match self.own {
            TokenWeights::Equal(weight) => TokenWeights::Equal(factor * weight),
            TokenWeights::Each(weights) => {
                TokenWeights::Each(weights.into_iter().map(|weight| factor * weight).collect())
            }
        };
        Self { own, alternative: factor * self.alternative }
    }
}

/// The terms of a step, in nats if they are NLLs or KLs; `None` for a set without documents in the step.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Terms {
    /// Mean NLL of the unlearn documents.
    pub unlearn: Option<f64>,
    /// Mean NLL of the edit_unlearn documents.
    pub edit_unlearn: Option<f64>,
    /// Mean NLL of the edit_update documents.
    pub edit_update: Option<f64>,
    /// Mean KL(reference ‖ model) of the retain documents, if that is the keep loss.
    pub retain_kl: Option<f64>,
    /// The sum of the weighted forget losses of both sets.
    pub forget: Option<f64>,
    /// The keep loss, unweighted.
    pub keep: Option<f64>,
    /// The dual variable of `pdu`, the weight of the keep loss in this step.
    pub lambda: Option<f64>,
}

/// Weighs the documents of a step.
pub trait Weighing {
    /// The kind of loss of a set's documents.
    fn usage(&self, set: Set) -> Use;

    /// The measurements that the weights of a set's documents depend on.
    fn needs(&self, set: Set) -> Needs;

    /// For each document, the derivatives of the step's loss with respect to the losses of its predicted tokens. They depend
    /// on the measurements of no other document, only on their number of tokens, and a document without measurements may
    /// have any.
    fn weights(&self, documents: &[Measured]) -> Vec<Weights>;

    /// The loss of the step.
    fn loss(&self, documents: &[Measured]) -> f64;

    /// The terms of the step.
    fn terms(&self, documents: &[Measured]) -> Terms;
}

/// The mean NLL over all predicted tokens of the step, the loss of pretraining.
#[derive(Debug, Clone, Copy)]
pub struct TokenMean;

impl Weighing for TokenMean {
    fn usage(&self, _set: Set) -> Use {
        Use::Logits(TokenLoss::Nll)
    }

    fn needs(&self, _set: Set) -> Needs {
        Needs::default()
    }

    fn weights(&self, documents: &[Measured]) -> Vec<Weights> {
        let tokens: usize = documents.iter().map(|document| document.own.count).sum();
        vec![Weights::equal(1.0 / tokens as f64); documents.len()]
    }

    fn loss(&self, documents: &[Measured]) -> f64 {
        let weights = self.weights(documents);
        documents.iter().zip(weights).map(|(document, weights)| weights.of(0) * document.own.sum_nll()).sum()
    }

    fn terms(&self, documents: &[Measured]) -> Terms {
        Terms { edit_update: mean(documents, Set::EditUpdate, |d| d.own.mean_nll()), ..Terms::default() }
    }
}

/// The mean of `value` over a set's documents; `None` if there are none.
pub(super) fn mean(documents: &[Measured], set: Set, value: impl Fn(&Measured) -> f64) -> Option<f64> {
    let count = count(documents, set);
    let total: f64 = documents.iter().filter(|document| document.set == set).map(value).sum();
    (count > 0.0).then(|| total / count)
}

/// Number of a set's documents.
pub(super) fn count(documents: &[Measured], set: Set) -> f64 {
    documents.iter().filter(|document| document.set == set).count() as f64
}
