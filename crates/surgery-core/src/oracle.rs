//! The gradient of a step by burn's autodiff on plain tensor ops, in one batch. It is slow and keeps every logit in memory,
//! but is simple to verify. Tests compare the faster forms with it.

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, Tensor, TensorData};

use crate::batch::Rows;
use crate::error::Result;
use crate::kernels::{HeadKernels, Portable, TokenLoss};
use crate::model::Llama;
use crate::objective::weighing::{States, Use, Weighing};
use crate::optimizer::{Gradients, collect_gradients, global_norm};
use crate::placement::Placement;
use crate::step::{Graded, Losses, Place, StepDocuments, StepRecord, TokenWeights, batches};
use crate::tensors::at_positions;

/// The hidden states of a model over packed rows, `[rows, columns, hidden]` each.
struct Hidden<B: Backend> {
    /// The output of each block.
    blocks: Vec<Tensor<B, 3>>,
    last: Tensor<B, 3>,
}

impl<B: Backend> Hidden<B> {
    fn of(model: &Llama<B>, rows: &Rows) -> Result<Self> {
        let placement = Placement::packed(rows, model.config(), &model.device())?;
        let mut x = model.embed::<Portable>(&rows.tokens, [rows.rows, rows.columns]);
        let mut blocks = Vec::new();
        for index in 0..model.num_blocks() {
            x = model.block::<Portable>(index, x, &placement, None);
            blocks.push(x.clone());
        }
        Ok(Self { blocks, last: model.norm::<Portable>(x) })
    }
}

/// As [`step::gradients`](crate::step::gradients), with the model `reference` as the reference.
pub fn gradients<B: AutodiffBackend>(
    model: &Llama<B>,
    step: &StepDocuments,
    weighing: &dyn Weighing,
    reference: &Llama<B::InnerBackend>,
) -> Result<Graded<B::InnerBackend>> {
    let sequences = step.sequences(weighing);
    let one = StepDocuments { batch_tokens: usize::MAX, ..step.clone() };
    let batch = batches(&sequences, &one).remove(0);
    let rows = Rows::pack(&batch.windows, false);
    let places = batch.places(&rows);
    let hidden = Hidden::of(model, &rows)?;
    let reference_hidden = Hidden::of(reference, &rows)?;

    let mut uses: Vec<Use> = Vec::new();
    for sequence in &sequences {
        if !uses.contains(&sequence.usage) {
            uses.push(sequence.usage.clone());
        }
    }
    let mut losses = vec![Losses::default(); sequences.len()];
    let mut terms: Vec<(Tensor<B, 1>, Vec<Place>)> = Vec::new();
    for usage in uses {
        let places: Vec<Place> =
            places.iter().filter(|place| sequences[place.sequence].usage == usage).copied().collect();
        let tokens: Vec<u32> = places.iter().map(|place| place.token).collect();
        let predicting = || places.iter().map(|place| place.position);
        let logits = Portable::logits(at_positions(hidden.last.clone(), predicting()), model.head());
        let nll = Portable::nll_of_logits(logits.clone(), &tokens);
        let loss = match &usage {
            Use::Logits(kind) => {
                let states = at_positions(reference_hidden.last.clone(), predicting());
                let reference_logits = Portable::logits(states, reference.head());
                of_logits(*kind, logits, &tokens, Tensor::from_inner(reference_logits))
            }
            Use::States { block, target } => {
                let own = || places.iter().map(|place| place.position + 1);
                let states = at_positions(hidden.blocks[*block].clone(), own());
                let (size, device) = (states.dims()[1], states.device());
                let target = match target {
                    States::Reference => {
                        Tensor::from_inner(at_positions(reference_hidden.blocks[*block].clone(), own()))
                    }
                    States::Vector(vector) => {
                        Tensor::<B, 1>::from_data(&vector[..], (&device, DType::F32)).reshape([1, size])
                    }
                };
                let difference = states - target;
                (difference.clone() * difference).mean_dim(1).reshape([-1])
            }
        };
        for ((place, value), nll) in places.iter().zip(values(&loss)).zip(values(&nll)) {
            let losses = &mut losses[place.sequence];
            Losses::set(&mut losses.loss, place.number, value);
            Losses::set(&mut losses.nll, place.number, nll);
        }
        terms.push((loss, places));
    }

    let documents = step.measured(&sequences, &losses);
    let weights = TokenWeights::new(weighing, &documents, &sequences);
    let weighted = terms.into_iter().map(|(loss, places)| {
        let weights: Vec<f32> = places.iter().map(|place| weights.of(place.sequence, place.number)).collect();
        let count = weights.len();
        (loss * Tensor::from_data(TensorData::new(weights, [count]), &model.device())).sum()
    });
    let loss = weighted.reduce(|sum, term| sum + term).expect("a step has at least one document");

    let mut gradients = Gradients::new();
    collect_gradients(model, &mut loss.backward(), &mut gradients);
    let record = StepRecord {
        loss: weighing.loss(&documents),
        terms: weighing.terms(&documents),
        grad_norm: global_norm::<_, Portable>(&gradients),
        learning_rate: 0.0,
        tokens: rows.num_tokens(),
    };
    Ok(Graded { record, gradients })
}

/// The loss of each token from logits and the reference's logits, `[n, vocab]` to `[n]`.
fn of_logits<B: AutodiffBackend>(
    loss: TokenLoss,
    logits: Tensor<B, 2>,
    tokens: &[u32],
    reference: Tensor<B, 2>,
) -> Tensor<B, 1> {
    match loss {
        TokenLoss::Nll => Portable::nll_of_logits(logits, tokens),
        TokenLoss::Spread => {
            let spread = logits.clone().max_dim(1) - logits.mean_dim(1);
            (spread.clone() * spread).reshape([-1])
        }
        TokenLoss::Distribution(distribution) => {
            let target = if distribution.of_reference { reference } else { logits.clone().detach() };
            let log_p = log_softmax(distribution.shifted(target, tokens), 1);
            let log_q = log_softmax(logits, 1);
            let (p, q) = (log_p.clone().exp(), log_q.clone().exp());
            match distribution.is_entropy_counted {
                true => (p * log_q).sum_dim(1).reshape([-1]).neg(),
                false => (p.clone() * (log_p - log_q) + (q - p)).sum_dim(1).reshape([-1]),
            }
        }
    }
}

fn values<B: AutodiffBackend>(loss: &Tensor<B, 1>) -> Vec<f32> {
    loss.clone().inner().into_data().convert::<f32>().to_vec().expect("converted to f32")
}
