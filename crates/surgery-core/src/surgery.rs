//! The operation from its first step to its last.

use std::collections::BTreeSet;
use std::sync::Arc;

use burn::tensor::backend::AutodiffBackend;

use crate::bounds::Bounds;
use crate::data::{Benchmark, Corpus, Sampler, Set, StepSample};
use crate::error::Result;
use crate::event::Observer;
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::recipe::Recipe;
use crate::reference::Reference;
use crate::step::{StepDocuments, gradients};
use crate::training::{Checkpointer, Cost, MidRunEvaluation, State, TrainingPlan, train};

/// The token ids of all documents that steps may draw.
#[derive(Debug, Clone)]
pub struct TrainingDocuments<'a> {
    /// The data's.
    pub benchmark: &'a Benchmark,
    /// What the [model wrote](crate::replay): these come after the retain set's, and are drawn like them.
    pub written: Vec<Arc<[u32]>>,
}

impl TrainingDocuments<'_> {
    /// The document of a set that has this index for the [`sampler`].
    pub fn document(&self, set: Set, index: usize) -> &[u32] {
        let documents = self.benchmark.documents(set);
        match index.checked_sub(documents.len()) {
            Some(written) if set == Set::Retain => &self.written[written],
            _ => &documents[index],
        }
    }

    /// Those that were drawn.
    pub fn step<'a>(
        &'a self,
        draw: &StepSample,
        context: usize,
        recompute: bool,
        bounds: Option<&'a Bounds>,
    ) -> StepDocuments<'a> {
        let documents = draw
            .iter()
            .flat_map(|(&set, indices)| indices.iter().map(move |&index| (set, self.document(set, index))));
        StepDocuments { documents: documents.collect(), context, recompute, bounds }
    }
}

/// The sampler of an operation, over the sets that its objective weighs and what the model writes.
pub fn sampler(corpus: &Corpus, recipe: &Recipe) -> Sampler {
    let subjects = |set: Set| {
        let of_corpus = corpus.documents(set).iter().map(|document| document.subject.clone());
        let written = if set == Set::Retain { recipe.replay.documents } else { 0 };
        (set, of_corpus.chain(std::iter::repeat_n(None, written)).collect())
    };
    let sets = recipe.objective.sets().into_iter().map(subjects);
    Sampler::new(sets, recipe.train.documents_per_step, recipe.train.seed)
}

/// The retain documents that the steps of an operation will draw, by their indices: the seed decides.
pub fn retain_to_be_drawn(corpus: &Corpus, recipe: &Recipe) -> BTreeSet<usize> {
    let mut sampler = sampler(corpus, recipe);
    let most = corpus.documents(Set::Retain).len() + recipe.replay.documents;
    let mut drawn = BTreeSet::new();
    for _ in 0..recipe.train.steps {
        match sampler.draw().remove(&Set::Retain) {
            Some(indices) if !indices.is_empty() && drawn.len() < most => drawn.extend(indices),
            _ => break,
        }
    }
    drawn
}

/// The state before the first step.
pub fn beginning<B: AutodiffBackend>(model: Llama<B>, corpus: &Corpus, recipe: &Recipe) -> State<B> {
    State::new(model, &recipe.optimizer, sampler(corpus, recipe))
}

/// Operates from `state` on: until `recipe.train.steps` steps are done, on documents whose token ids `drawable`
/// holds in the order of the corpus, held to `reference` on the retain set, with the ascent within `bounds`.
pub fn operate<B: AutodiffBackend, K: Kernels<B> + Kernels<B::InnerBackend>>(
    state: State<B>,
    drawable: &TrainingDocuments,
    recipe: &Recipe,
    reference: &mut dyn Reference<B::InnerBackend>,
    bounds: Option<&Bounds>,
    checkpointer: &mut dyn Checkpointer<B>,
    observer: &mut dyn Observer,
) -> Result<(Llama<B>, Cost)> {
    let Recipe { objective, optimizer, train: section, guard, .. } = recipe;
    let step = |model: &Llama<B>, draw: &StepSample, context: usize| {
        let documents = drawable.step(draw, context, section.recompute, bounds);
        gradients::<B, K>(model, &documents, objective, Some(&mut *reference))
    };
    let mut mid_run = MidRunEvaluation::new(drawable.benchmark, section.evaluate_every);
    let after = |model: &Llama<B>, number: usize, observer: &mut dyn Observer| {
        mid_run.after_step::<B, K>(model, number, observer)
    };
    let plan = TrainingPlan { optimizer, guard, steps: section.steps, max_tokens: section.max_tokens };
    train::<B, K>(state, &plan, checkpointer, observer, step, after)
}
