//! What every training does around the gradients of its steps: documents, rate, update, guard, events, cost; and
//! what must be kept for it to go on later as if nothing had happened.

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

/// Steps whose documents are drawn beforehand to see how many tokens a step may have: enough to meet the longest
/// documents, whatever the number of steps.
pub const FORESEEN: usize = 10_000;

/// What a training cost so far.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Steps done.
    pub steps: usize,
    /// Input tokens of all steps.
    pub tokens: usize,
    /// Time spent in steps.
    pub seconds: f64,
    /// Steps without an update, because their loss or gradient was no finite number.
    pub skipped: usize,
    /// How often the model went back to an earlier state, because it had collapsed.
    pub rolled_back: usize,
}

impl Cost {
    /// Input tokens a second; 0 where there was no step.
    pub fn tokens_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.tokens as f64 / self.seconds } else { 0.0 }
    }
}

/// Evaluations on the way: of a part of the benchmark, on validation questions, so that they cost little.
pub struct MidRunEvaluation {
    sample: Benchmark,
    every: usize,
}

impl MidRunEvaluation {
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

    /// What `steps` steps will bring: how many evaluations, and of what.
    pub fn in_steps(&self, steps: usize) -> (usize, &Benchmark) {
        (steps.checked_div(self.every).unwrap_or(0), &self.sample)
    }

    /// Evaluates if it is time, and tells `observer`.
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

/// Lets an evaluation on the way come to its end: its outcome belongs to its step, and a run that is interrupted here
/// goes on after it.
struct Uninterrupted<'a>(&'a mut dyn Observer);

impl Observer for Uninterrupted<'_> {
    fn observe(&mut self, event: Event) {
        self.0.observe(event);
    }
}

/// Where a training stands between two steps: all that the rest of it follows from, beside its recipe and data.
pub struct State<B: AutodiffBackend> {
    /// The model.
    pub model: Llama<B>,
    /// Its optimizer.
    pub optimizer: AdamW<B::InnerBackend>,
    /// What the next steps draw.
    pub(crate) sampler: Sampler,
    /// What it cost so far.
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

/// A [`State`] that is to be kept.
pub struct Snapshot<'a, B: AutodiffBackend> {
    /// The model.
    pub model: &'a Llama<B>,
    /// Its optimizer.
    pub optimizer: &'a AdamW<B::InnerBackend>,
    /// Where the sampler has come to.
    pub(crate) position: Position,
    /// What it cost so far.
    pub cost: Cost,
    /// The dual variable of the next step.
    pub(crate) lambda: Option<f64>,
}

/// Keeps states of a training.
pub trait Checkpointer<B: AutodiffBackend> {
    /// Whether the state after `step` steps is to be kept.
    fn is_due(&self, step: usize) -> bool;

    /// Keeps a state.
    fn keep(&mut self, state: Snapshot<B>) -> Result<()>;

    /// Drops what was kept after `step` steps or later, and gives the model and the optimizer of the newest
    /// state that is left, or those of the beginning, with the number of steps done there; none where nothing
    /// is ever kept.
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
    /// The dual variable of the next step; none for that of the beginning.
    pub(crate) lambda: Option<f64>,
}

/// Keeps nothing.
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

/// What a training follows.
pub(crate) struct TrainingPlan<'a> {
    pub(crate) optimizer: &'a OptimizerConfig,
    pub(crate) guard: &'a Guard,
    pub(crate) steps: usize,
    /// The longest window of a document, in tokens.
    pub(crate) max_tokens: usize,
}

/// The next step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Next {
    /// Its number, from 1.
    pub(crate) number: usize,
    /// The longest window, in tokens.
    pub(crate) context: usize,
    /// The dual variable, for an objective that has one.
    pub(crate) lambda: Option<f64>,
}

/// Goes on from `state` to the plan's last step. `gradients` gives a step's gradients, and the dual variable of the
/// one after it, from the model as it is and the documents drawn; `after` is called with the model and the number of each step done.
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
                // What the step before it left is spoilt; what is left now was found good by a step.
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
