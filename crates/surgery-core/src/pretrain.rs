//! Continual pretraining, or training from scratch: the mean NLL over all predicted tokens of a step,
//! descended. θ_pre, θ_baseline and the base models come from here.

use std::time::Instant;

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;

use crate::data::{Set, Stream, seeded};
use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::objective::TokenMean;
use crate::optimizer::AdamW;
use crate::recipe::PretrainRecipe;
use crate::step::{StepDocuments, gradients, refuse_not_finite, update};
use crate::surgery::Cost;

/// Trains `model` on `documents` (token ids).
pub fn pretrain<B: AutodiffBackend, K: Kernels<B>>(
    mut model: Llama<B>,
    documents: &[Vec<u32>],
    recipe: &PretrainRecipe,
    observer: &mut dyn Observer,
) -> Result<(Llama<B>, Cost)> {
    const STREAM: u64 = 3 << 32;
    let train = &recipe.train;
    let mut stream = Stream::new(vec![None; documents.len()], seeded(train.seed, STREAM));
    let mut optimizer = AdamW::new(recipe.optimizer.clone());
    let context = model.config().context(train.max_tokens);
    let mut cost = Cost::default();

    for number in 1..=train.steps {
        let started = Instant::now();
        let drawn = stream.draw(train.documents_per_step, &[]);
        let drawn = drawn.into_iter().map(|index| (Set::EditUpdate, documents[index].as_slice()));
        let drawn = StepDocuments { documents: drawn.collect(), context };
        let graded = gradients::<B, K>(&model, &drawn, &TokenMean, None)?;
        let rate = recipe.optimizer.rate(number, train.steps);
        let (updated, record) = update(model, graded, &mut optimizer, rate, number)?;
        model = updated;

        let seconds = started.elapsed().as_secs_f64();
        cost = Cost { steps: number, tokens: cost.tokens + record.tokens, seconds: cost.seconds + seconds };
        observer.observe(Event::Step { step: number, steps: train.steps, record: &record, seconds });
        if observer.interrupted() {
            return Err(Error::Interrupted { step: number });
        }
    }
    refuse_not_finite(&model.valid(), train.steps)?;
    Ok((model, cost))
}
