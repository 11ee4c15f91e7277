//! The operation from its first step to its last.

use std::collections::BTreeSet;

use burn::tensor::backend::AutodiffBackend;

use crate::bounds::Bounds;
use crate::data::{Benchmark, Corpus, Draw, Sampler, Set};
use crate::error::Result;
use crate::event::Observer;
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::recipe::Recipe;
use crate::reference::Reference;
use crate::step::{StepDocuments, gradients};
use crate::training::{Cost, Course, Keeper, OnTheWay, State, train};

/// The sampler of an operation, over the sets that its objective weighs.
pub fn sampler(corpus: &Corpus, recipe: &Recipe) -> Sampler {
    let sets = recipe.objective.sets();
    let drawn = sets.iter().map(|&set| (set, corpus.documents(set)));
    Sampler::new(drawn, recipe.train.documents_per_step, recipe.train.seed)
}

/// The retain documents that the steps of an operation will draw, by their indices: the seed decides.
pub fn retain_to_be_drawn(corpus: &Corpus, recipe: &Recipe) -> BTreeSet<usize> {
    let mut sampler = sampler(corpus, recipe);
    let most = corpus.documents(Set::Retain).len();
    let mut drawn = BTreeSet::new();
    for _ in 0..recipe.train.steps {
        match sampler.draw().remove(&Set::Retain) {
            Some(indices) if !indices.is_empty() && drawn.len() < most => drawn.extend(indices),
            _ => break,
        }
    }
    drawn
}

/// The token ids of the documents that were drawn.
pub fn drawn_documents<'a>(
    draw: &Draw,
    benchmark: &'a Benchmark,
    context: usize,
    recompute: bool,
    bounds: Option<&'a Bounds>,
) -> StepDocuments<'a> {
    let documents = draw.iter().flat_map(|(&set, indices)| {
        let texts = benchmark.documents(set);
        indices.iter().map(move |&index| (set, texts[index].as_slice()))
    });
    StepDocuments { documents: documents.collect(), context, recompute, bounds }
}

/// The state before the first step.
pub fn beginning<B: AutodiffBackend>(model: Llama<B>, corpus: &Corpus, recipe: &Recipe) -> State<B> {
    State::new(model, &recipe.optimizer, sampler(corpus, recipe))
}

/// Operates from `state` on: until `recipe.train.steps` steps are done, on documents whose token ids `benchmark`
/// holds in the order of the corpus, held to `reference` on the retain set, with the ascent within `bounds`.
pub fn operate<B: AutodiffBackend, K: Kernels<B> + Kernels<B::InnerBackend>>(
    state: State<B>,
    benchmark: &Benchmark,
    recipe: &Recipe,
    reference: &mut dyn Reference<B::InnerBackend>,
    bounds: Option<&Bounds>,
    keeper: &mut dyn Keeper<B>,
    observer: &mut dyn Observer,
) -> Result<(Llama<B>, Cost)> {
    let Recipe { objective, optimizer, train: section, guard, .. } = recipe;
    let step = |model: &Llama<B>, draw: &Draw, context: usize| {
        let documents = drawn_documents(draw, benchmark, context, section.recompute, bounds);
        gradients::<B, K>(model, &documents, objective, Some(&mut *reference))
    };
    let mut on_the_way = OnTheWay::new(benchmark, section.evaluate_every);
    let after = |model: &Llama<B>, number: usize, observer: &mut dyn Observer| {
        on_the_way.after_step::<B, K>(model, number, observer)
    };
    let course = Course { optimizer, guard, steps: section.steps, max_tokens: section.max_tokens };
    train::<B, K>(state, &course, keeper, observer, step, after)
}
