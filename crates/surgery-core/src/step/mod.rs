//! One step of the operation (the paper, algorithm 1):
//!
//! 1. split the step's documents of all sets into windows, and these into batches; run the model over each batch;
//! 2. compute the loss of each predicted token: in the paper the NLL for unlearn and update documents, and the KL to the
//!    reference for retain documents; in general the [kind of loss](crate::objective::weighing::Use) of the document's set;
//! 3. weigh every token by the objective;
//! 4. differentiate, and add up the gradients of the batches in order;
//! 5. clip the gradient by its global norm;
//! 6. update by AdamW.
//!
//! Every token has its own weight in the loss. So one operation on the head computes the losses and the gradient of the
//! final hidden states, a chunk of tokens at a time ([`head_gradient`](crate::kernels::HeadKernels::head_gradient)), and the
//! backward pass continues from there. Some losses (a cap, NPO) weigh a token by the NLL of its whole document. That NLL is
//! measured first: in the same forward pass if one batch has the whole document, otherwise in passes without a gradient.
//! `oracle.rs` computes the same gradient by burn's autodiff on plain tensor ops.

mod batch;
mod documents;
mod losses;

use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};

use crate::backward::Pass;
use crate::batch::Rows;
use crate::data::Example;
use crate::error::{Error, Result};
use crate::kernels::{Kernels, ModelKernels};
use crate::model::Llama;
use crate::objective::weighing::{Terms, Weighing};
use crate::optimizer::{AdamW, Gradients, global_norm};
use crate::reference::Reference;
use crate::token_nll::token_nll;

use batch::are_divided;
pub(crate) use batch::{Place, batches};
use documents::last_block;
pub(crate) use documents::{Losses, Sequence, TokenWeights};
pub use documents::{StepDocument, StepDocuments};
use losses::{Weighed, differentiate, measure_first};

/// The measurements of a step before its update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepRecord {
    /// The value of the objective.
    pub loss: f64,
    /// Its terms.
    pub terms: Terms,
    /// The gradient's global norm before clipping.
    pub grad_norm: f64,
    /// The learning rate of the update.
    pub learning_rate: f64,
    /// Number of input tokens in all windows of all documents.
    pub tokens: usize,
}

impl StepRecord {
    /// Refuses a loss or a gradient that is not finite. The message names step `number`.
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
    /// The measurements; the caller fills in the learning rate.
    pub record: StepRecord,
    /// The gradients of the parameters.
    pub gradients: Gradients<B>,
}

/// Steps 1 to 4, and the norm of the gradient. The model does not change.
///
/// Panics if documents are compared with a reference and there is none.
pub fn gradients<B: AutodiffBackend, K: Kernels<B> + Kernels<B::InnerBackend>>(
    model: &Llama<B>,
    step: &StepDocuments,
    weighing: &dyn Weighing,
    mut reference: Option<&mut dyn Reference<B::InnerBackend>>,
) -> Result<Graded<B::InnerBackend>> {
    let sequences = step.sequences(weighing);
    let mut losses = vec![Losses::default(); sequences.len()];
    let batches = batches(&sequences, step);
    let weigh =
        |losses: &[Losses]| TokenWeights::new(weighing, &step.measured(&sequences, losses), &sequences);
    let is_divided = are_divided(&batches, &sequences, step.documents.len());
    let is_divided = |sequence: usize| is_divided[sequences[sequence].document];
    let is_first = |sequence: usize| sequences[sequence].is_measured_first;
    // The NLLs that weights depend on; those of documents in one batch are added with that batch.
    let mut known = losses.clone();
    let apart: Vec<usize> = (0..sequences.len()).filter(|&i| is_first(i) && is_divided(i)).collect();
    if !apart.is_empty() {
        let examples: Vec<&Example> = apart.iter().map(|&sequence| sequences[sequence].example).collect();
        let inner = model.valid();
        let nll = token_nll::<_, K>(&inner, &examples, step.context, step.batch_tokens)?;
        apart.into_iter().zip(nll).for_each(|(sequence, nll)| known[sequence].nll = nll);
    }
    let mut weights = weigh(&known);

    let mut gradients = Gradients::new();
    let mut tokens = 0;
    for batch in &batches {
        let rows = Rows::pack(&batch.windows, <K as ModelKernels<B>>::ONE_ROW);
        tokens += rows.num_tokens();
        let pass = Pass::forward::<K>(model, &rows, last_block(&sequences), step.recompute)?;
        let places = batch.places(&rows);
        let is_wanted = |sequence: usize| is_first(sequence) && !is_divided(sequence);
        let head = model.head().inner();
        if measure_first::<_, K>(&pass.output(), &head, &places, is_wanted, &mut known) {
            weights = weigh(&known);
        }
        let weighed = Weighed { batch, places: &places, sequences: &sequences, weights: &weights };
        let reference = reference.as_deref_mut();
        let states = differentiate::<B, K>(model, &pass, &weighed, reference, &mut losses, &mut gradients)?;
        pass.backward::<K>(states, &mut gradients);
    }

    let documents = step.measured(&sequences, &losses);
    let record = StepRecord {
        loss: weighing.loss(&documents),
        terms: weighing.terms(&documents),
        grad_norm: global_norm::<_, K>(&gradients),
        learning_rate: 0.0,
        tokens,
    };
    Ok(Graded { record, gradients })
}

/// Steps 5 and 6. Refuses a loss or gradient that is not finite before any weight changes. The message names step `number`.
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

/// Refuses weights that are not finite. A step checks its loss and gradient before its update, so the weights after the
/// last update need a check of their own.
pub(crate) fn refuse_not_finite<B: Backend>(model: &Llama<B>, step: usize) -> Result<()> {
    match model.not_finite() {
        None => Ok(()),
        Some(name) => {
            Err(Error::NotFinite { step, what: format!("the sum of tensor `{name}`"), value: f64::NAN })
        }
    }
}
