//! The operation from its first step to its last.

use std::time::Instant;

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;

use crate::data::{Benchmark, Corpus, Draw, Sampler};
use crate::error::{Error, Result};
use crate::evaluate::evaluate;
use crate::event::{Event, Observer};
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::optimizer::AdamW;
use crate::recipe::Recipe;
use crate::reference::Reference;
use crate::step::{StepDocuments, gradients, refuse_not_finite, update};

/// What an operation cost.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Updates applied.
    pub steps: usize,
    /// Input tokens of all steps.
    pub tokens: usize,
    /// Time spent in steps.
    pub seconds: f64,
}

impl Cost {
    /// Input tokens a second; 0 where there was no step.
    pub fn tokens_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.tokens as f64 / self.seconds } else { 0.0 }
    }
}

/// The sampler of an operation, over the sets that its objective weighs.
pub fn sampler(corpus: &Corpus, recipe: &Recipe) -> Sampler {
    let sets = recipe.objective.sets();
    let drawn = sets.iter().map(|&set| (set, corpus.documents(set)));
    Sampler::new(drawn, recipe.train.documents_per_step, recipe.train.seed)
}

/// The token ids of the documents that were drawn.
pub fn drawn_documents<'a>(draw: &Draw, benchmark: &'a Benchmark, context: usize) -> StepDocuments<'a> {
    let documents = draw.iter().flat_map(|(&set, indices)| {
        let texts = benchmark.documents(set);
        indices.iter().map(move |&index| (set, texts[index].as_slice()))
    });
    StepDocuments { documents: documents.collect(), context }
}

/// Operates on `model`: `recipe.train.steps` steps on documents of `corpus`, whose token ids `benchmark`
/// holds in the same order, held to `reference` on the retain set.
pub fn operate<B: AutodiffBackend, K: Kernels<B> + Kernels<B::InnerBackend>>(
    mut model: Llama<B>,
    corpus: &Corpus,
    benchmark: &Benchmark,
    recipe: &Recipe,
    reference: &mut dyn Reference<B::InnerBackend>,
    observer: &mut dyn Observer,
) -> Result<(Llama<B>, Cost)> {
    let train = &recipe.train;
    let mut sampler = sampler(corpus, recipe);
    let mut optimizer = AdamW::new(recipe.optimizer.clone());
    let context = model.config().context(train.max_tokens);
    let mut cost = Cost::default();

    for number in 1..=train.steps {
        let started = Instant::now();
        let documents = drawn_documents(&sampler.draw(), benchmark, context);
        let graded = gradients::<B, K>(&model, &documents, &recipe.objective, Some(&mut *reference))?;
        let rate = recipe.optimizer.rate(number, train.steps);
        let (updated, record) = update(model, graded, &mut optimizer, rate, number)?;
        model = updated;

        let seconds = started.elapsed().as_secs_f64();
        cost = Cost { steps: number, tokens: cost.tokens + record.tokens, seconds: cost.seconds + seconds };
        observer.observe(Event::Step { step: number, steps: train.steps, record: &record, seconds });
        if train.evaluate_every > 0 && number.is_multiple_of(train.evaluate_every) {
            let evaluation = evaluate::<B::InnerBackend, K>(&model.valid(), benchmark, None, observer)?;
            observer.observe(Event::Evaluated { step: number, evaluation: &evaluation });
        }
        if observer.interrupted() {
            return Err(Error::Interrupted { step: number });
        }
    }
    refuse_not_finite(&model.valid(), train.steps)?;
    Ok((model, cost))
}
