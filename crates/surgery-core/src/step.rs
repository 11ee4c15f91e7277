//! One step of the operation (the paper, algorithm 1):
//!
//! 1. pack the drawn documents of all sets into rows and run the model over them once;
//! 2. take the NLL of each token to be forgotten or learnt, and the KL to the reference of each to be kept;
//! 3. weigh every token by the objective;
//! 4. differentiate;
//! 5. clip the gradient by its global norm;
//! 6. update by AdamW.
//!
//! This is the plain form, on burn's autodiff: every faster one is measured against it.

use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData, Transaction};

use crate::batch::{Rows, Target};
use crate::data::Set;
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::objective::{DocumentLoss, Terms, Weighing};
use crate::optimizer::{AdamW, global_norm};
use crate::reference::{Reference, at_positions};

/// The documents of one step, encoded.
#[derive(Debug, Clone)]
pub struct StepDocuments<'a> {
    /// Each document's set and token ids; at least two, or there is nothing to predict.
    pub documents: Vec<(Set, &'a [u32])>,
    /// The longest window, in tokens.
    pub context: usize,
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

/// A loss and its gradient.
pub struct Graded<B: AutodiffBackend> {
    /// What was measured; the learning rate is the caller's to fill in.
    pub record: StepRecord,
    /// By parameter.
    pub gradients: B::Gradients,
}

/// Steps 1 to 4, and the norm of the gradient. The model is not touched.
///
/// Panics where a retain document comes without a reference to hold it to.
pub fn gradients<B: AutodiffBackend, K: Kernels<B>>(
    model: &Llama<B>,
    step: &StepDocuments,
    weighing: &dyn Weighing,
    reference: Option<&mut dyn Reference<B::InnerBackend>>,
) -> Result<Graded<B>> {
    let tokens: Vec<&[u32]> = step.documents.iter().map(|(_, tokens)| *tokens).collect();
    let rows = Rows::pack(&tokens, step.context, 0);
    let hidden = model.hidden::<K>(&rows)?;

    let is_retain = |target: &&Target| step.documents[target.document].0 == Set::Retain;
    let (kept, pushed): (Vec<&Target>, Vec<&Target>) = rows.targets.iter().partition(is_retain);
    let states =
        |targets: &[&Target]| at_positions(hidden.clone(), targets.iter().map(|target| target.position));

    let mut losses: Vec<(Tensor<B, 1>, Vec<&Target>)> = Vec::new();
    if !pushed.is_empty() {
        let ids: Vec<u32> = pushed.iter().map(|target| target.token).collect();
        losses.push((K::nll(states(&pushed), model.head(), &ids), pushed));
    }
    if !kept.is_empty() {
        let retained: Vec<&[u32]> =
            step.documents.iter().filter(|(set, _)| *set == Set::Retain).map(|(_, tokens)| *tokens).collect();
        let reference = reference.expect("a retain document needs a reference");
        let was = Tensor::from_inner(reference.hidden(&retained, step.context)?);
        let head_was = Tensor::from_inner(reference.head());
        losses.push((K::kl(states(&kept), model.head(), was, head_was), kept));
    }

    let documents = document_losses(&losses, step);
    let coefficients = weighing.coefficients(&documents);
    let weighted = losses.into_iter().map(|(loss, targets)| {
        let weights: Vec<f32> = targets.iter().map(|target| coefficients[target.document] as f32).collect();
        let count = weights.len();
        let weights = Tensor::from_data(TensorData::new(weights, [count]), &loss.device());
        (loss * weights).sum()
    });
    let loss = weighted.reduce(|sum, term| sum + term).expect("a step draws at least one document");

    let gradients = loss.backward();
    let record = StepRecord {
        loss: weighing.loss(&documents),
        terms: Terms::of(&documents),
        grad_norm: global_norm(model, &gradients),
        learning_rate: 0.0,
        tokens: rows.num_tokens(),
    };
    Ok(Graded { record, gradients })
}

/// Steps 5 and 6. A loss or gradient that is not finite is refused before it touches a weight; `number` is
/// the step's, for the message.
pub fn update<B: AutodiffBackend>(
    model: Llama<B>,
    mut graded: Graded<B>,
    optimizer: &mut AdamW<B::InnerBackend>,
    rate: f64,
    number: usize,
) -> Result<(Llama<B>, StepRecord)> {
    let mut record = graded.record;
    for (what, value) in [("the loss", record.loss), ("the gradient's norm", record.grad_norm)] {
        if !value.is_finite() {
            return Err(Error::NotFinite { step: number, what: what.into(), value });
        }
    }
    record.learning_rate = rate;
    let clip = optimizer.config().clip_factor(record.grad_norm);
    Ok((optimizer.update(model, &mut graded.gradients, clip, rate), record))
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

/// Each document's mean over its predicted tokens; one read from the device for all.
fn document_losses<B: AutodiffBackend>(
    losses: &[(Tensor<B, 1>, Vec<&Target>)],
    step: &StepDocuments,
) -> Vec<DocumentLoss> {
    let transaction = losses
        .iter()
        .fold(Transaction::default(), |transaction, (loss, _)| transaction.register(loss.clone().inner()));
    let mut documents: Vec<DocumentLoss> =
        step.documents.iter().map(|&(set, _)| DocumentLoss { set, tokens: 0, mean: 0.0 }).collect();
    for (values, (_, targets)) in transaction.execute().into_iter().zip(losses) {
        let values: Vec<f32> = values.convert::<f32>().to_vec().expect("converted to f32");
        for (value, target) in values.into_iter().zip(targets) {
            let document = &mut documents[target.document];
            document.tokens += 1;
            document.mean += f64::from(value);
        }
    }
    for document in &mut documents {
        document.mean /= document.tokens as f64;
    }
    documents
}
