//! The gradient of a step by burn's autodiff on plain tensor ops: slow, with every logit in memory, and
//! obviously right. Every faster form is held to this one.

use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Tensor, TensorData};

use crate::batch::{Rows, Target};
use crate::data::Set;
use crate::error::Result;
use crate::kernels::{HeadKernels, Portable};
use crate::model::Llama;
use crate::objective::{Terms, Weighing};
use crate::optimizer::{Gradients, collect_gradients, global_norm};
use crate::step::{Graded, Losses, StepDocuments, StepRecord};
use crate::tensors::at_positions;

/// As [`step::gradients`](crate::step::gradients), held to `reference` as it is.
pub fn gradients<B: AutodiffBackend>(
    model: &Llama<B>,
    step: &StepDocuments,
    weighing: &dyn Weighing,
    reference: &Llama<B::InnerBackend>,
) -> Result<Graded<B::InnerBackend>> {
    let tokens: Vec<&[u32]> = step.documents.iter().map(|(_, tokens)| *tokens).collect();
    let rows = Rows::pack(&tokens, step.context, false);
    let hidden = model.hidden::<Portable>(&rows)?;
    let hidden_was = Tensor::<B, 3>::from_inner(reference.hidden::<Portable>(&rows)?);

    let is_retain = |target: &&Target| step.documents[target.document].0 == Set::Retain;
    let (kept, pushed): (Vec<&Target>, Vec<&Target>) = rows.targets.iter().partition(is_retain);
    let at = |states: &Tensor<B, 3>, targets: &[&Target]| {
        at_positions(states.clone(), targets.iter().map(|target| target.position))
    };
    let mut losses: Vec<(Tensor<B, 1>, Vec<&Target>)> = Vec::new();
    if !pushed.is_empty() {
        let ids: Vec<u32> = pushed.iter().map(|target| target.token).collect();
        losses.push((Portable::nll(at(&hidden, &pushed), model.head(), &ids), pushed));
    }
    if !kept.is_empty() {
        let head_was = Tensor::from_inner(reference.head());
        let kl = Portable::kl(at(&hidden, &kept), model.head(), at(&hidden_was, &kept), head_was);
        losses.push((kl, kept));
    }

    let values = |loss: &Tensor<B, 1>| -> Vec<f32> {
        loss.clone().inner().into_data().convert::<f32>().to_vec().expect("converted to f32")
    };
    let known = losses.iter().flat_map(|(loss, targets)| targets.iter().copied().zip(values(loss)));
    let known = Losses::new(step, weighing, &rows.targets, known);
    let coefficients = weighing.coefficients(&known.documents);
    let weighted = losses.into_iter().map(|(loss, targets)| {
        let weights = known.weights(&coefficients, &targets);
        let count = weights.len();
        (loss * Tensor::from_data(TensorData::new(weights, [count]), &model.device())).sum()
    });
    let loss = weighted.reduce(|sum, term| sum + term).expect("a step draws at least one document");

    let mut gradients = Gradients::new();
    collect_gradients(model, &[], &loss.backward(), &mut gradients);
    let record = StepRecord {
        loss: weighing.loss(&known.documents),
        terms: Terms::of(&known.documents),
        grad_norm: global_norm::<_, Portable>(&gradients),
        learning_rate: 0.0,
        tokens: rows.num_tokens(),
    };
    Ok(Graded { record, gradients })
}
