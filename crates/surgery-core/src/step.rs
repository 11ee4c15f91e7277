//! One step of the operation (the paper, algorithm 1):
//!
//! 1. pack the drawn documents of all sets into rows and run the model over them once;
//! 2. take the NLL of each token to be forgotten or learnt, and the KL to the reference of each to be kept;
//! 3. weigh every token by the objective;
//! 4. differentiate;
//! 5. clip the gradient by its global norm;
//! 6. update by AdamW.
//!
//! Every token counts in the loss by a coefficient of its own, so the losses and the gradient of the final hidden
//! states come from one operation on the head ([`HeadKernels::head_gradient`]), a chunk of tokens at a time; the rest of
//! the gradient follows from there. `oracle.rs` has the same gradient from burn's autodiff on plain tensor ops.

use std::collections::HashSet;

use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

use crate::backward::Pass;
use crate::batch::{Rows, Target};
use crate::bounds::Bounds;
use crate::data::Set;
use crate::error::{Error, Result};
use crate::kernels::{HEAD_CHUNK, HeadKernels, Kernels, ModelKernels, Predictions};
use crate::model::Llama;
use crate::objective::{DocumentLoss, Terms, Weighing};
use crate::optimizer::{AdamW, Gradients, global_norm};
use crate::reference::Reference;

/// The documents of one step, encoded.
#[derive(Debug, Clone)]
pub struct StepDocuments<'a> {
    /// Each document's set and token ids; at least two, or there is nothing to predict.
    pub documents: Vec<(Set, &'a [u32])>,
    /// The longest window, in tokens.
    pub context: usize,
    /// Keep only the blocks' inputs, and run each block once more on the way back.
    pub recompute: bool,
    /// How far the ascent on these documents may go, where that is bounded token by token.
    pub bounds: Option<&'a Bounds>,
}

impl StepDocuments<'_> {
    /// For each document the bounds of its tokens, from the second on; none of those that descend.
    fn bounds(&self, weighing: &dyn Weighing) -> Vec<Option<&[f32]>> {
        let of = |&(set, tokens): &(Set, &[u32])| {
            self.bounds.filter(|_| weighing.needs_losses(set))?.of_document(tokens)
        };
        self.documents.iter().map(of).collect()
    }
}

/// What is known of the losses of a step's tokens, document by document, and which tokens have reached their bound.
pub(crate) struct Losses {
    /// Each document's number of predicted tokens, and the mean over them of the losses that are known.
    pub(crate) documents: Vec<DocumentLoss>,
    /// The positions of the tokens whose loss is known and has reached its bound.
    reached: HashSet<usize>,
}

impl Losses {
    pub(crate) fn new<'a>(
        step: &StepDocuments,
        weighing: &dyn Weighing,
        targets: &[Target],
        losses: impl Iterator<Item = (&'a Target, f32)>,
    ) -> Self {
        let bounds = step.bounds(weighing);
        let empty = |&(set, _): &(Set, &[u32])| DocumentLoss { set, tokens: 0, mean: 0.0, bounded: 0.0 };
        let mut documents: Vec<DocumentLoss> = step.documents.iter().map(empty).collect();
        for target in targets {
            documents[target.document].tokens += 1;
        }
        let mut reached = HashSet::new();
        for (target, loss) in losses {
            let document = &mut documents[target.document];
            let bound = bounds[target.document].map_or(f32::INFINITY, |bounds| bounds[target.index - 1]);
            document.mean += f64::from(loss) / document.tokens as f64;
            document.bounded += f64::from(loss.min(bound)) / document.tokens as f64;
            if loss >= bound {
                reached.insert(target.position);
            }
        }
        Self { documents, reached }
    }

    /// By how much the loss of the step grows with each target's loss: a_t or b_t.
    pub(crate) fn weights(&self, coefficients: &[f64], targets: &[&Target]) -> Vec<f32> {
        let weight = |target: &&Target| match self.reached.contains(&target.position) {
            true => 0.0,
            false => coefficients[target.document] as f32,
        };
        targets.iter().map(weight).collect()
    }
}

/// What a step measured before its update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepRecord {
    /// The value of the objective.
    pub loss: f64,
    /// Its terms, unweighted.
    pub terms: Terms,
    /// The gradient's global norm before clipping.
    pub grad_norm: f64,
    /// The learning rate of the update.
    pub learning_rate: f64,
    /// Input tokens, over all windows of all documents.
    pub tokens: usize,
}

impl StepRecord {
    /// Refuses a loss or a gradient that is not finite; `number` is the step's, for the message.
    pub fn refuse_not_finite(&self, number: usize) -> Result<()> {
        for (what, value) in [("the loss", self.loss), ("the gradient's norm", self.grad_norm)] {
            if !value.is_finite() {
                return Err(Error::NotFinite { step: number, what: what.into(), value });
            }
        }
        Ok(())
    }
}

/// A loss and its gradient.
pub struct Graded<B: Backend> {
    /// What was measured; the learning rate is the caller's to fill in.
    pub record: StepRecord,
    /// By parameter.
    pub gradients: Gradients<B>,
}

/// Steps 1 to 4, and the norm of the gradient. The model is not touched.
///
/// Panics where a retain document comes without a reference to hold it to.
pub fn gradients<B: AutodiffBackend, K: Kernels<B> + Kernels<B::InnerBackend>>(
    model: &Llama<B>,
    step: &StepDocuments,
    weighing: &dyn Weighing,
    reference: Option<&mut dyn Reference<B::InnerBackend>>,
) -> Result<Graded<B::InnerBackend>> {
    let tokens: Vec<&[u32]> = step.documents.iter().map(|(_, tokens)| *tokens).collect();
    let rows = Rows::pack(&tokens, step.context, <K as ModelKernels<B>>::ONE_ROW);
    let (hidden, pass) = Pass::<B>::forward::<K>(model, &rows, step.recompute)?;
    let shape = hidden.dims();
    let hidden = hidden.reshape([rows.rows * rows.columns, shape[2]]);
    let head = model.head().inner();

    let is_retain = |target: &&Target| step.documents[target.document].0 == Set::Retain;
    let (kept, pushed): (Vec<&Target>, Vec<&Target>) = rows.targets.iter().partition(is_retain);
    let seen = |target: &&&Target| weighing.needs_losses(step.documents[target.document].0);
    let seen: Vec<&Target> = pushed.iter().filter(seen).copied().collect();
    let known = nll::<_, K>(&hidden, &head, &seen);
    let seen = Losses::new(step, weighing, &rows.targets, seen.into_iter().zip(known));
    let coefficients = weighing.coefficients(&seen.documents);
    let weights = |targets: &[&Target]| seen.weights(&coefficients, targets);
    let positions = |targets: &[&Target]| targets.iter().map(|target| target.position).collect();
    let reference = if kept.is_empty() {
        None
    } else {
        let retained: Vec<&[u32]> =
            step.documents.iter().filter(|(set, _)| *set == Set::Retain).map(|(_, tokens)| *tokens).collect();
        let reference = reference.expect("a retain document needs a reference");
        Some((reference.hidden(&retained, step.context)?, reference.head()))
    };
    let predictions = Predictions {
        nll_positions: positions(&pushed),
        nll_tokens: pushed.iter().map(|target| target.token).collect(),
        nll_coefficients: weights(&pushed),
        kl_positions: positions(&kept),
        kl_coefficients: weights(&kept),
        reference,
    };
    let graded = <K as HeadKernels<B::InnerBackend>>::head_gradient(hidden, head, &predictions);
    drop(predictions.reference);

    let losses = pushed.into_iter().zip(graded.nll).chain(kept.into_iter().zip(graded.kl));
    let documents = Losses::new(step, weighing, &rows.targets, losses).documents;
    let gradients = pass.backward_with_head::<K>(graded.hidden.reshape(shape), graded.head);
    let record = StepRecord {
        loss: weighing.loss(&documents),
        terms: Terms::of(&documents),
        grad_norm: global_norm::<_, K>(&gradients),
        learning_rate: 0.0,
        tokens: rows.num_tokens(),
    };
    Ok(Graded { record, gradients })
}

/// The NLL of each target in nats, without a gradient; `hidden` is `[positions, hidden]`.
fn nll<B: Backend, K: Kernels<B>>(
    hidden: &Tensor<B, 2>,
    head: &Tensor<B, 2>,
    targets: &[&Target],
) -> Vec<f32> {
    let chunks = targets.chunks(HEAD_CHUNK).flat_map(|targets| {
        let states = crate::tensors::select(hidden.clone(), targets.iter().map(|target| target.position));
        let ids: Vec<u32> = targets.iter().map(|target| target.token).collect();
        let values = K::nll(states, head.clone(), &ids).into_data().convert::<f32>();
        values.to_vec::<f32>().expect("converted to f32")
    });
    chunks.collect()
}

/// Steps 5 and 6. A loss or gradient that is not finite is refused before it touches a weight; `number` is
/// the step's, for the message.
pub fn update<B: AutodiffBackend, K: Kernels<B::InnerBackend>>(
    model: Llama<B>,
    graded: Graded<B::InnerBackend>,
    optimizer: &mut AdamW<B::InnerBackend>,
    rate: f64,
    number: usize,
) -> Result<(Llama<B>, StepRecord)> {
    let mut record = graded.record;
    record.refuse_not_finite(number)?;
    record.learning_rate = rate;
    let clip = optimizer.config().clip_factor(record.grad_norm);
    Ok((optimizer.update::<B, K, _>(model, graded.gradients, clip, rate), record))
}

/// Refuses weights that an update has left without a finite value: a step's own checks come before its update,
/// so the last one's is looked at when all are done.
pub(crate) fn refuse_not_finite<B: Backend>(model: &Llama<B>, step: usize) -> Result<()> {
    match model.not_finite() {
        None => Ok(()),
        Some(name) => {
            Err(Error::NotFinite { step, what: format!("the sum of tensor `{name}`"), value: f64::NAN })
        }
    }
}
