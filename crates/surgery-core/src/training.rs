//! The training loop around the gradients of steps: sampling, learning rate, update, guard, events and cost; and the state
//! from which an interrupted training resumes with the same results.

use std::time::Instant;

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

use crate::data::{Benchmark, Position, Sampler, StepSample};
use crate::error::{Error, Result};
use crate::evaluate::{Against, evaluate};
use crate::event::{Event, Observer};
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::optimizer::{AdamW, OptimizerConfig};
use crate::recipe::Guard;
use crate::step::{Graded, StepRecord, refuse_not_finite, update};

/// Maximum number of steps that are sampled in advance to find the maximum number of tokens of a step: enough to meet the
/// longest documents.
pub const FORESEEN: usize = 10_000;

/// The cost of a training so far.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Steps done.
    pub steps: usize,
    /// Input tokens of all steps.
    pub tokens: usize,
    /// Time of all steps in seconds.
    pub seconds: f64,
    /// Steps without an update, because their loss or gradient was not finite.
    pub skipped: usize,
    /// Number of rollbacks to an earlier state after a collapse.
    pub rolled_back: usize,
}

impl Cost {
    /// Input tokens a second; 0 before the first step.
    pub fn tokens_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.tokens as f64 / self.seconds } else { 0.0 }
    }
}

/// Mid-run evaluations, on a sample of the benchmark so that they cost little.
pub struct MidRunEvaluation {
    sample: Benchmark,
    every: usize,
}

impl MidRunEvaluation {
    /// Number of documents of each set.
    const DOCUMENTS: usize = 40;
    /// Number of validation questions of each set of questions.
    const QUESTIONS: usize = 100;

    /// Evaluations on a sample of `benchmark` after every `every` steps; none if that is 0.
    pub fn new(benchmark: &Benchmark, every: usize) -> Self {
        Self::of(benchmark.sample(Self::DOCUMENTS, Self::QUESTIONS), every)
    }

    /// Evaluations on the whole of `sample`.
    pub fn of(sample: Benchmark, every: usize) -> Self {
        Self { sample, every }
    }

    /// The number of evaluations in `steps` steps, and their sample.
    pub fn in_steps(&self, steps: usize) -> (usize, &Benchmark) {
        (steps.checked_div(self.every).unwrap_or(0), &self.sample)
    }

    /// Evaluates if an evaluation is due after step `number`, and reports it to `observer`.
    pub(crate) fn after_step<B: AutodiffBackend, K: Kernels<B::InnerBackend>>(
        &mut self,
        model: &Llama<B>,
        number: usize,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        if self.every > 0 && number.is_multiple_of(self.every) {
            let mut uninterrupted = Uninterrupted(&mut *observer);
            let evaluation = evaluate::<B::InnerBackend, K>(
                &model.valid(),
                &self.sample,
                Against::Nothing,
                &mut uninterrupted,
            )?;
            observer.observe(Event::Evaluated { step: number, evaluation: &evaluation });
        }
        Ok(())
    }
}

/// Completes a mid-run evaluation in spite of an interruption: a resumed run would continue after it and lose its results.
struct Uninterrupted<'a>(&'a mut dyn Observer);

impl Observer for Uninterrupted<'_> {
    fn observe(&mut self, event: Event) {
        self.0.observe(event);
    }
}

/// The state of a training between two steps. Together with the recipe and the data, it determines all later steps.
pub struct State<B: AutodiffBackend> {
    /// The model.
    pub model: Llama<B>,
    /// Its optimizer.
    pub optimizer: AdamW<B::InnerBackend>,
    /// The sampler of the next steps.
    pub(crate) sampler: Sampler,
    /// The cost so far.
    pub cost: Cost,
    /// The dual variable of the next step, for an objective that has one.
    pub(crate) lambda: Option<f64>,
}

impl<B: AutodiffBackend> State<B> {
    /// The state before the first step.
    pub(crate) fn new(
        model: Llama<B>,
        config: &OptimizerConfig,
        sampler: Sampler,
        lambda: Option<f64>,
    ) -> Self {
        Self { model, optimizer: AdamW::new(config.clone()), sampler, cost: Cost::default(), lambda }
    }
}

/// A [`State`] for a checkpoint.
pub struct Snapshot<'a, B: AutodiffBackend> {
    /// The model.
    pub model: &'a Llama<B>,
    /// Its optimizer.
    pub optimizer: &'a AdamW<B::InnerBackend>,
    /// The sampler's position.
    pub(crate) position: Position,
    /// The cost so far.
    pub cost: Cost,
    /// The dual variable of the next step.
    pub(crate) lambda: Option<f64>,
}

/// Saves and restores states of a training.
pub trait Checkpointer<B: AutodiffBackend> {
    /// Whether to save the state after `step` steps.
    fn is_due(&self, step: usize) -> bool;

    /// Saves a state.
    fn keep(&mut self, state: Snapshot<B>) -> Result<()>;

    /// Removes the states after `step` steps or later. Returns the newest state left, or that of the beginning; `None` if
    /// this never saves a state.
    fn back_before(&mut self, step: usize) -> Result<Option<Earlier<B>>>;
}

/// An earlier state.
pub struct Earlier<B: AutodiffBackend> {
    /// The steps done.
    pub steps: usize,
    /// The model.
    pub model: Llama<B>,
    /// Its optimizer.
    pub optimizer: AdamW<B::InnerBackend>,
    /// The dual variable of the next step; `None` for that of the beginning.
    pub(crate) lambda: Option<f64>,
}

/// Saves no checkpoints.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCheckpoints;

impl<B: AutodiffBackend> Checkpointer<B> for NoCheckpoints {
    fn is_due(&self, _step: usize) -> bool {
        false
    }

    fn keep(&mut self, _state: Snapshot<B>) -> Result<()> {
        Ok(())
    }

    fn back_before(&mut self, _step: usize) -> Result<Option<Earlier<B>>> {
        Ok(None)
    }
}

/// The settings of a training.
pub(crate) struct TrainingPlan<'a> {
    pub(crate) optimizer: &'a OptimizerConfig,
    pub(crate) guard: &'a Guard,
    pub(crate) steps: usize,
    /// Maximum length of a window of a document in tokens.
    pub(crate) max_tokens: usize,
}

/// The next step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Next {
    /// Its number, from 1.
    pub(crate) number: usize,
    /// Maximum length of a window in tokens.
    pub(crate) context: usize,
    /// The dual variable, for an objective that has one.
    pub(crate) lambda: Option<f64>,
}

/// Trains from `state` to the plan's last step. `gradients` returns a step's gradients, and the dual variable of the next
/// step, from the current model and the sampled documents. `after` is called after each step with the model and the step's
/// number.
pub(crate) fn train<B: AutodiffBackend, K: Kernels<B::InnerBackend>>(
    state: State<B>,
    plan: &TrainingPlan,
    checkpointer: &mut dyn Checkpointer<B>,
    observer: &mut dyn Observer,
    mut gradients: impl FnMut(&Llama<B>, &StepSample, Next) -> Result<(Graded<B::InnerBackend>, Option<f64>)>,
    mut after: impl FnMut(&Llama<B>, usize, &mut dyn Observer) -> Result<()>,
) -> Result<(Llama<B>, Cost)> {
    let State { mut model, mut optimizer, mut sampler, mut cost, mut lambda } = state;
    let first_lambda = lambda;
    let context = model.config().context(plan.max_tokens);
    while cost.steps < plan.steps {
        let number = cost.steps + 1;
        let started = Instant::now();
        let (graded, next_lambda) = gradients(&model, &sampler.draw(), Next { number, context, lambda })?;
        let mut record = graded.record;
        if let Err(error) = record.refuse_not_finite(number) {
            if cost.skipped == plan.guard.skip_not_finite {
                // The previous step's update spoilt the weights, so remove its checkpoint.
                checkpointer.back_before(number - 1)?;
                return Err(error);
            }
            cost.skipped += 1;
            observer.observe(Event::Skipped { step: number, error: &error });
        } else if let Some((kl, limit)) = collapse(plan.guard, &record) {
            // Measured before this step's update: what the step before it left is bad already.
            let collapsed = Error::Collapsed { step: number, kl, limit };
            let earlier = checkpointer.back_before(number - 1)?.filter(|_| cost.rolled_back == 0);
            let Some(earlier) = earlier else { return Err(collapsed) };
            (model, optimizer) = (earlier.model, earlier.optimizer);
            lambda = earlier.lambda.or(first_lambda);
            cost.rolled_back += 1;
            observer.observe(Event::RolledBack { step: number, to: earlier.steps, error: &collapsed });
        } else {
            let rate = plan.optimizer.rate(number, plan.steps);
            (model, record) = update::<B, K>(model, graded, &mut optimizer, rate, number)?;
            lambda = next_lambda;
        }

        let seconds = started.elapsed().as_secs_f64();
        cost.steps = number;
        cost.tokens += record.tokens;
        cost.seconds += seconds;
        observer.observe(Event::Step { step: number, steps: plan.steps, record: &record, seconds });
        after(&model, number, observer)?;
        let interrupted = observer.interrupted();
        if interrupted || checkpointer.is_due(number) {
            refuse_not_finite(&model.valid(), number)?;
            checkpointer.keep(Snapshot {
                model: &model,
                optimizer: &optimizer,
                position: sampler.position(),
                cost,
                lambda,
            })?;
        }
        if interrupted {
            return Err(Error::Interrupted { step: number, remedy: String::new() });
        }
    }
    refuse_not_finite(&model.valid(), plan.steps)?;
    Ok((model, cost))
}

/// The KL of a step that is past the guard's limit, and the limit.
fn collapse(guard: &Guard, record: &StepRecord) -> Option<(f64, f64)> {
    guard.retain_kl.and_then(|limit| record.terms.retain_kl.filter(|&kl| kl > limit).map(|kl| (kl, limit)))
}
