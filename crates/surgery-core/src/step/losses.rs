//! The losses of a batch's tokens, and their gradients with respect to hidden states.

use std::collections::BTreeMap;

use burn::module::AutodiffModule;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, FloatDType, Tensor};

use super::batch::{Batch, Place};
use super::{Losses, Sequence, TokenWeights};
use crate::backward::{Pass, StateGradients};
use crate::error::Result;
use crate::kernels::{HeadKernels, Kernels, Predictions, TokenLoss};
use crate::model::{At, Llama};
use crate::objective::weighing::{States, Use};
use crate::optimizer::{Gradients, add_gradient};
use crate::reference::Reference;
use crate::tensors::{at_positions, dtype, select};
use crate::token_nll::nll_of_states;

impl Losses {
    /// Sets the value of the predicted token with this index.
    pub(crate) fn set(values: &mut Vec<f32>, number: usize, value: f32) {
        if values.len() <= number {
            values.resize(number + 1, 0.0);
        }
        values[number] = value;
    }
}

/// Sets the NLL of each token of the sequences that `is_wanted` accepts, from the final hidden states of their batch.
/// Returns whether there is one.
pub(super) fn measure_first<B: Backend, K: Kernels<B>>(
    hidden: &Tensor<B, 3>,
    head: &Tensor<B, 2>,
    places: &[Place],
    is_wanted: impl Fn(usize) -> bool,
    losses: &mut [Losses],
) -> bool {
    let places: Vec<&Place> = places.iter().filter(|place| is_wanted(place.sequence)).collect();
    if places.is_empty() {
        return false;
    }
    let states = at_positions(hidden.clone(), places.iter().map(|place| place.position));
    let tokens: Vec<u32> = places.iter().map(|place| place.token).collect();
    for (place, nll) in places.into_iter().zip(nll_of_states::<B, K>(&states, head, &tokens)) {
        Losses::set(&mut losses[place.sequence].nll, place.number, nll);
    }
    true
}

/// A batch, with the weights of its tokens.
pub(super) struct Weighed<'a> {
    pub(super) batch: &'a Batch<'a>,
    pub(super) places: &'a [Place],
    pub(super) sequences: &'a [Sequence<'a>],
    pub(super) weights: &'a TokenWeights,
}

/// Measures the losses of a batch's tokens. Returns the gradients of their weighted sum with respect to hidden states, and
/// adds the gradient of the head's matrix to `gradients`.
pub(super) fn differentiate<B: AutodiffBackend, K: Kernels<B> + Kernels<B::InnerBackend>>(
    model: &Llama<B>,
    pass: &Pass<B>,
    weighed: &Weighed,
    mut reference: Option<&mut (dyn Reference<B::InnerBackend> + '_)>,
    losses: &mut [Losses],
    gradients: &mut Gradients<B::InnerBackend>,
) -> Result<StateGradients<B>> {
    let mut states = StateGradients { last: None, blocks: BTreeMap::new() };
    let mut head_losses: Vec<TokenLoss> = Vec::new();
    let mut block_losses: Vec<(usize, States)> = Vec::new();
    for place in weighed.places {
        match &weighed.sequences[place.sequence].usage {
            Use::Logits(loss) if !head_losses.contains(loss) => head_losses.push(*loss),
            Use::States { block, target } => {
                let loss = (*block, target.clone());
                if !block_losses.contains(&loss) {
                    block_losses.push(loss);
                }
            }
            Use::Logits(_) => {}
        }
    }
    if !head_losses.is_empty() {
        let (of_hidden, of_head) = weighed.at_head::<_, K>(
            pass.output(),
            model.head().inner(),
            &head_losses,
            reference.as_deref_mut(),
            losses,
        )?;
        let spec = model.parameters().head();
        if spec.trainable {
            add_gradient(gradients, &spec.name, of_head.reshape([-1]));
        }
        states.last = Some(of_hidden);
    }
    for (block, target) in block_losses {
        let output = pass.block_output(block);
        let gradient = weighed.at_block(output, block, &target, reference.as_deref_mut(), losses)?;
        let sum = match states.blocks.remove(&block) {
            Some(other) => other + gradient,
            None => gradient,
        };
        states.blocks.insert(block, sum);
    }
    weighed.nll_beside_states::<_, K>(pass, model, losses)?;
    Ok(states)
}

impl Weighed<'_> {
    /// The places of the sequences with this kind of loss.
    fn of_use(&self, usage: &Use) -> Vec<Place> {
        let is_used = |place: &&Place| self.sequences[place.sequence].usage == *usage;
        self.places.iter().filter(is_used).copied().collect()
    }

    fn coefficients(&self, places: &[Place]) -> Vec<f32> {
        places.iter().map(|place| self.weights.of(place.sequence, place.number)).collect()
    }

    /// The reference's states of the tokens of some sequences, and its head.
    fn reference_states<B: Backend>(
        &self,
        is_wanted: impl Fn(&Sequence) -> bool,
        at: At,
        reference: Option<&mut (dyn Reference<B> + '_)>,
    ) -> Result<(Tensor<B, 2>, Tensor<B, 2>)> {
        let reference = reference.expect("documents that are compared with a reference have one");
        let windows = self.batch.windows_of(|sequence| is_wanted(&self.sequences[sequence]));
        Ok((reference.states(&windows, at)?, reference.head()))
    }

    /// Measures the losses that are functions of logits. Returns their gradients with respect to the final hidden states and
    /// the head.
    fn at_head<B: Backend, K: Kernels<B>>(
        &self,
        hidden: Tensor<B, 3>,
        head: Tensor<B, 2>,
        kinds: &[TokenLoss],
        mut reference: Option<&mut (dyn Reference<B> + '_)>,
        losses: &mut [Losses],
    ) -> Result<(Tensor<B, 3>, Tensor<B, 2>)> {
        let mut predictions = Vec::new();
        let mut of_kinds = Vec::new();
        for &loss in kinds {
            let usage = Use::Logits(loss);
            let of_use = self.of_use(&usage);
            // Documents to unlearn need their NLL, too; retain documents with the same kind of loss do not.
            for is_nll_wanted in [false, true] {
                let places: Vec<Place> = of_use
                    .iter()
                    .filter(|place| self.sequences[place.sequence].is_nll_wanted == is_nll_wanted)
                    .copied()
                    .collect();
                if places.is_empty() {
                    continue;
                }
                let is_of_reference = matches!(loss, TokenLoss::Distribution(of) if of.of_reference);
                let reference = match is_of_reference {
                    true => {
                        let is_here = |sequence: &Sequence| {
                            sequence.usage == usage && sequence.is_nll_wanted == is_nll_wanted
                        };
                        Some(self.reference_states(is_here, At::Final, reference.as_deref_mut())?)
                    }
                    false => None,
                };
                predictions.push(Predictions {
                    loss,
                    positions: places.iter().map(|place| place.position).collect(),
                    tokens: places.iter().map(|place| place.token).collect(),
                    coefficients: self.coefficients(&places),
                    is_nll_wanted,
                    reference,
                });
                of_kinds.push(places);
            }
        }
        let shape = hidden.dims();
        let hidden = hidden.reshape([shape[0] * shape[1], shape[2]]);
        let graded = <K as HeadKernels<B>>::head_gradient(hidden, head, &predictions);
        for ((places, predictions), found) in of_kinds.iter().zip(&predictions).zip(graded.losses) {
            let nll = if predictions.loss == TokenLoss::Nll { &found.loss } else { &found.nll };
            for (place, &loss) in places.iter().zip(&found.loss) {
                Losses::set(&mut losses[place.sequence].loss, place.number, loss);
            }
            for (place, &nll) in places.iter().zip(nll) {
                Losses::set(&mut losses[place.sequence].nll, place.number, nll);
            }
        }
        Ok((graded.hidden.reshape(shape), graded.head))
    }

    /// Measures the losses of hidden states at the output of a block, `‖h − target‖² / hidden`. Returns their gradient with
    /// respect to the output.
    fn at_block<B: Backend>(
        &self,
        output: Tensor<B, 3>,
        block: usize,
        target: &States,
        reference: Option<&mut (dyn Reference<B> + '_)>,
        losses: &mut [Losses],
    ) -> Result<Tensor<B, 3>> {
        let usage = Use::States { block, target: target.clone() };
        let places = self.of_use(&usage);
        let shape = output.dims();
        let (count, size, device) = (shape[0] * shape[1], shape[2], output.device());
        // A token's own position follows the position that predicts it.
        let into = dtype(&output);
        let states =
            at_positions(output, places.iter().map(|place| place.position + 1)).cast(FloatDType::F32);
        let target = match target {
            States::Vector(vector) => {
                Tensor::<B, 1>::from_data(&vector[..], (&device, DType::F32)).reshape([1, size])
            }
            States::Reference => {
                let is_here = |sequence: &Sequence| sequence.usage == usage;
                self.reference_states(is_here, At::Block(block), reference)?.0.cast(FloatDType::F32)
            }
        };
        let difference = states - target;
        let loss = (difference.clone() * difference.clone()).mean_dim(1).into_data().convert::<f32>();
        let loss: Vec<f32> = loss.to_vec().expect("converted to f32");
        for (place, loss) in places.iter().zip(loss) {
            Losses::set(&mut losses[place.sequence].loss, place.number, loss);
        }
        let coefficients = self.coefficients(&places);
        let coefficients = Tensor::<B, 1>::from_data(coefficients.as_slice(), (&device, DType::F32));
        let gradient = difference * coefficients.reshape([-1, 1]).mul_scalar(2.0 / size as f64);
        // Positions without a loss take the last row, which is zeros.
        let rows = Tensor::cat(vec![gradient, Tensor::zeros([1, size], (&device, DType::F32))], 0);
        let mut from = vec![places.len(); count];
        places.iter().enumerate().for_each(|(row, place)| from[place.position + 1] = row);
        Ok(select(rows, from.into_iter()).reshape(shape).cast(into))
    }

    /// Measures the NLL of tokens whose loss is one of hidden states, for the step's record. It has no gradient.
    fn nll_beside_states<B: AutodiffBackend, K: Kernels<B::InnerBackend>>(
        &self,
        pass: &Pass<B>,
        model: &Llama<B>,
        losses: &mut [Losses],
    ) -> Result<()> {
        let is_wanted = |place: &&Place| {
            let sequence = &self.sequences[place.sequence];
            sequence.is_nll_wanted && matches!(sequence.usage, Use::States { .. })
        };
        let places: Vec<&Place> = self.places.iter().filter(is_wanted).collect();
        if places.is_empty() {
            return Ok(());
        }
        let hidden = pass.finish::<K>()?;
        let states = at_positions(hidden, places.iter().map(|place| place.position));
        let tokens: Vec<u32> = places.iter().map(|place| place.token).collect();
        let nll = nll_of_states::<_, K>(&states, &model.valid().head(), &tokens);
        for (place, nll) in places.into_iter().zip(nll) {
            Losses::set(&mut losses[place.sequence].nll, place.number, nll);
        }
        Ok(())
    }
}
