//! Continual pretraining, or training from scratch: gradient descent on the mean NLL over all predicted tokens of a step.
//! It makes θ_pre, θ_baseline and the base models.

use burn::tensor::backend::AutodiffBackend;

use crate::data::{Example, Sampler, Set, StepSample};
use crate::error::Result;
use crate::event::Observer;
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::objective::TokenMean;
use crate::recipe::{Guard, PretrainRecipe};
use crate::step::{StepDocument, StepDocuments, gradients};
use crate::training::{Checkpointer, Cost, FORESEEN, MidRunEvaluation, Next, State, TrainingPlan, train};

/// The state before the first step, on `documents` documents.
pub fn beginning<B: AutodiffBackend>(model: Llama<B>, documents: usize, recipe: &PretrainRecipe) -> State<B> {
    State::new(model, &recipe.optimizer, sampler(documents, recipe), None)
}

/// Trains from `state` on `documents` until `recipe.train.steps` steps are done, with mid-run evaluations if `mid_run` is
/// given.
pub fn pretrain<B: AutodiffBackend, K: Kernels<B> + Kernels<B::InnerBackend>>(
    state: State<B>,
    documents: &[Example],
    recipe: &PretrainRecipe,
    mut mid_run: Option<MidRunEvaluation>,
    checkpointer: &mut dyn Checkpointer<B>,
    observer: &mut dyn Observer,
) -> Result<(Llama<B>, Cost)> {
    let section = &recipe.train;
    let step = |model: &Llama<B>, sample: &StepSample, next: Next| {
        let document = |&index: &usize| StepDocument {
            set: Set::EditUpdate,
            example: &documents[index],
            alternative: 0,
        };
        let step = StepDocuments {
            documents: sample.values().flatten().map(document).collect(),
            context: next.context,
            batch_tokens: section.most_tokens(),
            recompute: section.recompute,
            bounds: None,
            reference_nll: None,
        };
        Ok((gradients::<B, K>(model, &step, &TokenMean, None)?, None))
    };
    let after = |model: &Llama<B>, number: usize, observer: &mut dyn Observer| match &mut mid_run {
        Some(mid_run) => mid_run.after_step::<B, K>(model, number, observer),
        None => Ok(()),
    };
    let (optimizer, guard) = (&recipe.optimizer, &Guard::default());
    let plan = TrainingPlan { optimizer, guard, steps: section.steps, max_tokens: section.max_tokens };
    train::<B, K>(state, &plan, checkpointer, observer, step, after)
}

/// Maximum number of tokens in one of the first [`FORESEEN`] steps of a pretraining. The seed determines it.
pub fn most_tokens(documents: &[Example], recipe: &PretrainRecipe) -> usize {
    let mut sampler = sampler(documents.len(), recipe);
    let of_step = |draw: StepSample| draw.into_values().flatten().map(|index| documents[index].len()).sum();
    (0..recipe.train.steps.min(FORESEEN)).map(|_| of_step(sampler.draw())).max().unwrap_or(0)
}

/// The sampler of the steps' documents.
fn sampler(documents: usize, recipe: &PretrainRecipe) -> Sampler {
    Sampler::of_texts(documents, recipe.train.documents_per_step, recipe.train.seed)
}
