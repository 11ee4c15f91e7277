//! The documents of a step, and their measurements.

use crate::data::{Example, Set};
use crate::objective::weighing::{Measured, Tokens, Use, Weighing, Weights};
use crate::token_nll::NllTable;

/// The documents of one step, and the settings of its forward passes.
#[derive(Debug, Clone)]
pub struct StepDocuments<'a> {
    /// The documents; each predicts at least one token.
    pub documents: Vec<StepDocument<'a>>,
    /// Maximum length of a window in tokens.
    pub context: usize,
    /// Maximum number of tokens of a forward pass, unless a single window has more. Results depend on it only by rounding.
    pub batch_tokens: usize,
    /// Whether to keep only the blocks' inputs, and to run each block again in the backward pass.
    pub recompute: bool,
    /// The NLL at which the ascent on each token ends, if it is bounded.
    pub bounds: Option<&'a NllTable>,
    /// The NLL under the reference, if the objective needs it.
    pub reference_nll: Option<&'a NllTable>,
}

/// A document of a step.
#[derive(Debug, Clone, Copy)]
pub struct StepDocument<'a> {
    /// Its set.
    pub set: Set,
    /// The document.
    pub example: &'a Example,
    /// The index, modulo the number of alternatives, of the alternative that a preference loss prefers to it.
    pub alternative: usize,
}

/// The tokens of a document of the step, or of the alternative that the objective prefers to it.
pub(crate) struct Sequence<'a> {
    pub(crate) example: &'a Example,
    pub(crate) usage: Use,
    /// Whether to measure the NLL of its tokens, too, besides their loss.
    pub(crate) is_nll_wanted: bool,
    /// Whether its weights depend on the NLL of its tokens.
    pub(crate) is_measured_first: bool,
    /// The document's index in the step.
    pub(super) document: usize,
    is_alternative: bool,
}

/// The losses of a sequence's predicted tokens, in order; empty if they are not measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Losses {
    pub(crate) loss: Vec<f32>,
    pub(crate) nll: Vec<f32>,
}

impl<'a> StepDocuments<'a> {
    /// These documents in one forward pass.
    pub fn new(documents: impl IntoIterator<Item = (Set, &'a Example)>, context: usize) -> Self {
        let document = |(set, example)| StepDocument { set, example, alternative: 0 };
        Self {
            documents: documents.into_iter().map(document).collect(),
            context,
            batch_tokens: usize::MAX,
            recompute: false,
            bounds: None,
            reference_nll: None,
        }
    }

    /// The documents, each followed by its alternative if the objective needs one.
    pub(crate) fn sequences(&self, weighing: &dyn Weighing) -> Vec<Sequence<'a>> {
        let mut sequences = Vec::new();
        for (document, &StepDocument { set, example, alternative }) in self.documents.iter().enumerate() {
            let (usage, needs) = (weighing.usage(set), weighing.needs(set));
            sequences.push(Sequence {
                example,
                is_nll_wanted: set != Set::Retain && usage != Use::NLL,
                usage,
                is_measured_first: needs.nll,
                document,
                is_alternative: false,
            });
            if needs.alternative {
                let count = example.alternatives.len();
                assert!(count > 0, "a document without an alternative is refused before the first step");
                sequences.push(Sequence {
                    example: &example.alternatives[alternative % count],
                    usage: Use::NLL,
                    is_nll_wanted: false,
                    is_measured_first: needs.nll,
                    document,
                    is_alternative: true,
                });
            }
        }
        sequences
    }

    /// The measurements of each document, from the losses of its sequences.
    pub(crate) fn measured(&self, sequences: &[Sequence<'a>], losses: &[Losses]) -> Vec<Measured<'a>> {
        let mut documents: Vec<Measured> = Vec::with_capacity(self.documents.len());
        for (sequence, losses) in sequences.iter().zip(losses) {
            let sum = |nll: &[f32]| nll.iter().map(|&nll| f64::from(nll)).sum();
            let tokens = Tokens {
                count: sequence.example.num_predicted(),
                nll: losses.nll.clone(),
                loss: losses.loss.clone(),
                reference_nll: self.reference_nll.and_then(|table| table.get(sequence.example)).map(sum),
            };
            if sequence.is_alternative {
                documents.last_mut().expect("its document comes first").alternative = Some(tokens);
                continue;
            }
            let bounds = self.bounds.filter(|_| sequence.is_measured_first);
            documents.push(Measured {
                set: self.documents[sequence.document].set,
                own: tokens,
                alternative: None,
                bounds: bounds.and_then(|bounds| bounds.get(sequence.example)),
            });
        }
        documents
    }
}

/// The last block that the losses need; `None` if one of them needs the final hidden states.
pub(crate) fn last_block(sequences: &[Sequence]) -> Option<usize> {
    let blocks = sequences.iter().map(|sequence| match &sequence.usage {
        Use::Logits(_) => None,
        Use::States { block, .. } => Some(*block),
    });
    blocks.collect::<Option<Vec<usize>>>()?.into_iter().max()
}

/// The weight of each predicted token of each sequence.
pub(crate) struct TokenWeights(Vec<(Weights, bool)>);

impl TokenWeights {
    pub(crate) fn new(weighing: &dyn Weighing, documents: &[Measured], sequences: &[Sequence]) -> Self {
        let weights = weighing.weights(documents);
        let of = |sequence: &Sequence| (weights[sequence.document].clone(), sequence.is_alternative);
        Self(sequences.iter().map(of).collect())
    }

    pub(crate) fn of(&self, sequence: usize, token: usize) -> f32 {
        let (weights, is_alternative) = &self.0[sequence];
        (if *is_alternative { weights.alternative } else { weights.of(token) }) as f32
    }
}
