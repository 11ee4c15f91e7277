//! What every training does around the gradients of its steps: rate, update, events, cost.

use std::time::Instant;

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;

use crate::data::Benchmark;
use crate::error::{Error, Result};
use crate::evaluate::{Against, evaluate};
use crate::event::{Event, Observer};
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::optimizer::{AdamW, OptimizerConfig};
use crate::step::{Graded, refuse_not_finite, update};

/// What a training cost.
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

/// Evaluations on the way: of a part of the benchmark, on validation questions, so that they cost little.
pub struct OnTheWay {
    sample: Benchmark,
    every: usize,
}

impl OnTheWay {
    /// Documents of each set.
    const DOCUMENTS: usize = 40;
    /// Questions of each set of questions.
    const QUESTIONS: usize = 100;

    /// After every `every` steps; never where that is 0.
    pub fn new(benchmark: &Benchmark, every: usize) -> Self {
        Self::of(benchmark.sample(Self::DOCUMENTS, Self::QUESTIONS), every)
    }

    /// The same of all of `sample`.
    pub fn of(sample: Benchmark, every: usize) -> Self {
        Self { sample, every }
    }

    /// Evaluates if it is time, and tells `observer`.
    pub(crate) fn after_step<B: AutodiffBackend, K: Kernels<B::InnerBackend>>(
        &mut self,
        model: &Llama<B>,
        number: usize,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        if self.every > 0 && number.is_multiple_of(self.every) {
            let evaluation =
                evaluate::<B::InnerBackend, K>(&model.valid(), &self.sample, Against::Nothing, observer)?;
            observer.observe(Event::Evaluated { step: number, evaluation: &evaluation });
        }
        Ok(())
    }
}

/// A step of a training, for the closure that gives its gradient.
pub(crate) struct Step<'a, B: AutodiffBackend> {
    /// The model as it is before the step.
    pub(crate) model: &'a Llama<B>,
    /// The longest window of a document, in tokens.
    pub(crate) context: usize,
}

/// Trains `model` for `steps` steps in windows of at most `max_tokens`: `gradients` gives each step's, and
/// `after` is called with the model and the number of each step done.
pub(crate) fn train<B: AutodiffBackend, K: Kernels<B::InnerBackend>>(
    mut model: Llama<B>,
    config: &OptimizerConfig,
    steps: usize,
    max_tokens: usize,
    observer: &mut dyn Observer,
    mut gradients: impl FnMut(Step<B>) -> Result<Graded<B::InnerBackend>>,
    mut after: impl FnMut(&Llama<B>, usize, &mut dyn Observer) -> Result<()>,
) -> Result<(Llama<B>, Cost)> {
    let mut optimizer = AdamW::new(config.clone());
    let context = model.config().context(max_tokens);
    let mut cost = Cost::default();
    for number in 1..=steps {
        let started = Instant::now();
        let graded = gradients(Step { model: &model, context })?;
        let (updated, record) =
            update::<B, K>(model, graded, &mut optimizer, config.rate(number, steps), number)?;
        model = updated;

        let seconds = started.elapsed().as_secs_f64();
        cost = Cost { steps: number, tokens: cost.tokens + record.tokens, seconds: cost.seconds + seconds };
        observer.observe(Event::Step { step: number, steps, record: &record, seconds });
        after(&model, number, observer)?;
        if observer.interrupted() {
            return Err(Error::Interrupted { step: number });
        }
    }
    refuse_not_finite(&model.valid(), steps)?;
    Ok((model, cost))
}
