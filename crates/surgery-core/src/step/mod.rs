//! One step of the operation (the paper, algorithm 1):
//!
//! 1. split the drawn documents of all sets into windows, and these into batches; run the model over each batch;
//! 2. take the loss of each predicted token: its NLL where the document is to be forgotten or learnt, the KL to the
//!    reference where it is to be kept, or whatever else its set is [used for](crate::objective::weighing::Use);
//! 3. weigh every token by the objective;
//! 4. differentiate, and add up the gradients of the batches in their order;
//! 5. clip the gradient by its global norm;
//! 6. update by AdamW.
//!
//! Every token counts in the loss by a weight of its own, so the losses and the gradient of the final hidden
//! states come from one operation on the head ([`head_gradient`](crate::kernels::HeadKernels::head_gradient)), a chunk of
//! tokens at a time; the rest of the gradient follows from there. Some losses (a cap, NPO) weigh a token by the NLL of its
//! whole document. That NLL is measured first: in the same forward pass where the step is one batch, in forward passes
//! without a gradient otherwise. `oracle.rs` has the same gradient from burn's autodiff on plain tensor ops.

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

pub(crate) use batch::{Place, batches};
use documents::last_block;
pub(crate) use documents::{Losses, Sequence, TokenWeights};
pub use documents::{StepDocument, StepDocuments};
use losses::{Weighed, differentiate, measure_first};

/// What a step measured before its update.
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
/// Panics where documents are compared with a reference and there is none.
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
    let mut weights = None;
    if batches.len() > 1 {
        let first: Vec<usize> = (0..sequences.len()).filter(|&i| sequences[i].is_measured_first).collect();
        let examples: Vec<&Example> = first.iter().map(|&sequence| sequences[sequence].example).collect();
        let inner = model.valid();
        let nll = token_nll::<_, K>(&inner, &examples, step.context, step.batch_tokens)?;
        let mut known = losses.clone();
        first.into_iter().zip(nll).for_each(|(sequence, nll)| known[sequence].nll = nll);
        weights = Some(weigh(&known));
    }

    let mut gradients = Gradients::new();
    let mut tokens = 0;
    for batch in &batches {
        let rows = Rows::pack(&batch.windows, <K as ModelKernels<B>>::ONE_ROW);
        tokens += rows.num_tokens();
        let pass = Pass::forward::<K>(model, &rows, last_block(&sequences), step.recompute)?;
        let places = batch.places(&rows);
        // A step of one batch measures here what must be known first.
        let weights = weights.get_or_insert_with(|| {
            weigh(&measure_first::<_, K>(&pass.output(), &model.head().inner(), &places, &sequences))
        });
        let weighed = Weighed { batch, places: &places, sequences: &sequences, weights };
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
