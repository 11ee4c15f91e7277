//! Continual pretraining, or training from scratch: the mean NLL over all predicted tokens of a step,
//! descended. θ_pre, θ_baseline and the base models come from here.

use burn::tensor::backend::AutodiffBackend;

use crate::data::{Set, Stream, seeded};
use crate::error::Result;
use crate::event::Observer;
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::objective::TokenMean;
use crate::recipe::PretrainRecipe;
use crate::step::{StepDocuments, gradients};
use crate::training::{Cost, OnTheWay, Step, train};

/// Trains `model` on `documents` (token ids), and evaluates it on the way where that is asked for.
pub fn pretrain<B: AutodiffBackend, K: Kernels<B> + Kernels<B::InnerBackend>>(
    model: Llama<B>,
    documents: &[Vec<u32>],
    recipe: &PretrainRecipe,
    mut on_the_way: Option<OnTheWay>,
    observer: &mut dyn Observer,
) -> Result<(Llama<B>, Cost)> {
    const STREAM: u64 = 3 << 32;
    let section = &recipe.train;
    let mut stream = Stream::new(vec![None; documents.len()], seeded(section.seed, STREAM));
    let step = |step: Step<B>| {
        let drawn = stream.draw(section.documents_per_step, &[]);
        // Which set they count to does not matter to the mean over tokens.
        let drawn = drawn.into_iter().map(|index| (Set::EditUpdate, documents[index].as_slice()));
        let drawn =
            StepDocuments { documents: drawn.collect(), context: step.context, recompute: section.recompute };
        gradients::<B, K>(step.model, &drawn, &TokenMean, None)
    };
    let after = |model: &Llama<B>, number: usize, observer: &mut dyn Observer| match &mut on_the_way {
        Some(on_the_way) => on_the_way.after_step::<B, K>(model, number, observer),
        None => Ok(()),
    };
    train::<B, K>(model, &recipe.optimizer, section.steps, section.max_tokens, observer, step, after)
}
