//! This program's part: a model in training and its reference, timed part by part.

use std::time::Instant;

use surgery_core::Error;
use surgery_core::batch::{Rows, Target, Window};
use surgery_core::burn::module::AutodiffModule;
use surgery_core::burn::tensor::backend::Backend;
use surgery_core::config::LlamaConfig;
use surgery_core::data::{EncodedQuestion, Set};
use surgery_core::evaluate::{choose, score, score_options};
use surgery_core::event::Silent;
use surgery_core::kernels::{Distribution, HeadKernels, ModelKernels, Predictions, TokenLoss};
use surgery_core::model::Llama;
use surgery_core::objective::{Objective, StepObjective};
use surgery_core::optimizer::{AdamW, Gradients, OptimizerConfig, global_norm};
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::Precision;
use surgery_core::reference::{Live, Reference};
use surgery_core::step::{gradients, update};

use crate::Result;
use crate::precomputed::Precomputed;
use crate::work::{Job, StepSample};

/// The reference with precomputed states.
type Known<P> = Precomputed<<P as Platform>::Infer, <P as Platform>::Kernels>;
/// The reference that runs in every step.
type Run<P> = Live<<P as Platform>::Infer, <P as Platform>::Kernels>;

/// The weight of each prediction in the loss. It does not influence the time.
const COEFFICIENT: f32 = 1e-3;

/// The source of the reference states for retain documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReferenceIs {
    /// Precomputed.
    Known,
    /// Computed in the step.
    Run,
}

/// Seconds of one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepTime {
    /// Up to and including the gradient's norm.
    pub(crate) gradients: f64,
    /// AdamW, including the clipping of the gradient.
    pub(crate) update: f64,
}

impl StepTime {
    pub(crate) fn step(self) -> f64 {
        self.gradients + self.update
    }
}

/// A model in training.
pub(crate) struct Ours<P: Platform> {
    /// `None` during a step.
    model: Option<Llama<P::Train>>,
    optimizer: AdamW<P::Infer>,
    objective: StepObjective,
    known: Known<P>,
    run: Run<P>,
    device: DeviceOf<P>,
    steps: usize,
}

impl<P: Platform> Ours<P> {
    pub(crate) fn new(config: &LlamaConfig, precision: Precision, device: &DeviceOf<P>) -> Self {
        let model = Llama::<P::Train>::random(config, 0, precision, device);
        Self {
            optimizer: AdamW::new(OptimizerConfig::default()),
            objective: Objective::default().for_model(config, 0),
            known: Known::<P>::new(Live::new(model.valid())),
            run: Live::new(model.valid()),
            device: device.clone(),
            steps: 0,
            model: Some(model),
        }
    }

    fn model(&self) -> &Llama<P::Train> {
        self.model.as_ref().expect("a step that fails ends the measurement")
    }

    /// One step of the operation, continuing from the current weights.
    pub(crate) fn step(&mut self, draw: &StepSample, reference: ReferenceIs) -> Result<StepTime> {
        Ok(self.step_with(draw, reference, |_| Ok(()))?.0)
    }

    /// A step with precomputed reference states, and the seconds of the gradient's norm by itself.
    pub(crate) fn step_and_norm(&mut self, draw: &StepSample) -> Result<(StepTime, f64)> {
        let device = self.device.clone();
        self.step_with(draw, ReferenceIs::Known, |gradients| {
            let norm = || Ok(global_norm::<P::Infer, P::Kernels>(gradients));
            Ok(timed::<P, _>(&device, norm)?.1)
        })
    }

    /// A step that passes its gradient to `inspect` before the update. The time excludes `inspect`.
    fn step_with<T>(
        &mut self,
        draw: &StepSample,
        reference: ReferenceIs,
        inspect: impl FnOnce(&Gradients<P::Infer>) -> Result<T>,
    ) -> Result<(StepTime, T)> {
        let documents = draw.step();
        let model = self.model.take().expect("a step that fails ends the measurement");
        let reference: &mut dyn Reference<P::Infer> = match reference {
            ReferenceIs::Known => &mut self.known,
            ReferenceIs::Run => &mut self.run,
        };
        let (graded, gradients) = timed::<P, _>(&self.device, || {
            Ok(gradients::<P::Train, P::Kernels>(&model, &documents, &self.objective, Some(reference))?)
        })?;
        let value = inspect(&graded.gradients)?;
        self.steps += 1;
        let rate = self.optimizer.config().learning_rate;
        let (model, update) = timed::<P, _>(&self.device, || {
            Ok(update::<P::Train, P::Kernels>(model, graded, &mut self.optimizer, rate, self.steps)?.0)
        })?;
        self.model = Some(model);
        Ok((StepTime { gradients, update }, value))
    }

    /// Seconds of the forward pass over a step's documents, and of the head's losses and gradients.
    pub(crate) fn forward_and_head(&self, draw: &StepSample) -> Result<[f64; 2]> {
        let model = self.model().valid();
        let documents = draw.step();
        let windows: Vec<Window> = documents
            .documents
            .iter()
            .flat_map(|document| Window::of(document.example, documents.context))
            .collect();
        let sets: Vec<Set> = documents.documents.iter().map(|document| document.set).collect();
        let one_row = <P::Kernels as ModelKernels<P::Infer>>::ONE_ROW;
        let (hidden, forward) = timed::<P, _>(&self.device, || {
            let rows = Rows::pack(&windows, one_row);
            Ok(model.hidden::<P::Kernels>(&rows)?)
        })?;

        // No document is longer than the context: it is one window.
        let rows = Rows::pack(&windows, one_row);
        let (kept, pushed): (Vec<&Target>, Vec<&Target>) =
            rows.targets.iter().partition(|target| sets[target.text] == Set::Retain);
        let [rows, columns, size] = hidden.dims();
        let hidden = hidden.reshape([rows * columns, size]);
        let predictions = [(pushed, TokenLoss::Nll), (kept, kl())].map(|(targets, loss)| Predictions {
            loss,
            positions: targets.iter().map(|target| target.position).collect(),
            tokens: targets.iter().map(|target| target.token).collect(),
            coefficients: vec![COEFFICIENT; targets.len()],
            is_nll_wanted: false,
            // The reference's states only have to be some.
            reference: Some((hidden.clone().narrow(0, 0, targets.len()), model.head())),
        });
        let (_, head) = timed::<P, _>(&self.device, || {
            Ok(<P::Kernels as HeadKernels<P::Infer>>::head_gradient(hidden, model.head(), &predictions))
        })?;
        Ok([forward, head])
    }

    /// Seconds until all questions are answered.
    pub(crate) fn answer(&self, questions: &[EncodedQuestion]) -> Result<f64> {
        let model = self.model().valid();
        let (_, seconds) = timed::<P, _>(&self.device, || answers::<P>(&model, questions))?;
        Ok(seconds)
    }

    /// Seconds of the whole job on a new model: evaluate, train, evaluate again.
    pub(crate) fn job(
        config: &LlamaConfig,
        precision: Precision,
        work: &Job,
        device: &DeviceOf<P>,
    ) -> Result<f64> {
        let mut ours = Self::new(config, precision, device);
        let evaluate = |ours: &Self| -> Result<()> {
            let model = ours.model().valid();
            score::<P::Infer, P::Kernels>(&model, &work.texts, &mut Silent)?;
            answers::<P>(&model, &work.questions)?;
            Ok(())
        };
        let (_, seconds) = timed::<P, _>(device, || {
            evaluate(&ours)?;
            for draw in &work.draws {
                // Every document occurs once, so no reference states are precomputed.
                ours.step(draw, ReferenceIs::Run)?;
            }
            evaluate(&ours)
        })?;
        Ok(seconds)
    }
}

/// KL(reference ‖ model).
fn kl() -> TokenLoss {
    TokenLoss::Distribution(Distribution { of_reference: true, shift: 0.0, is_entropy_counted: false })
}

/// The option chosen at each question.
fn answers<P: Platform>(model: &Llama<P::Infer>, questions: &[EncodedQuestion]) -> Result<Vec<usize>> {
    let losses = score_options::<P::Infer, P::Kernels>(model, questions, &mut Silent)?;
    Ok(losses.iter().map(|options| choose(options.iter().map(|loss| &loss.paper))).collect())
}

/// The result of `work`, and the seconds until the device has finished it.
pub(crate) fn timed<P: Platform, T>(
    device: &DeviceOf<P>,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, f64)> {
    let started = Instant::now();
    let value = work()?;
    P::Infer::sync(device).map_err(|error| Error::Backend {
        problem: format!("backend {} failed: {error:?}", P::NAME),
        remedy: "try a smaller shape".into(),
    })?;
    Ok((value, started.elapsed().as_secs_f64()))
}
