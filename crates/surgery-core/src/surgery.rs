//! The steps of the operation.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::backend::{AutodiffBackend, Backend};

use crate::data::{Benchmark, Corpus, Example, Sampler, Set, StepSample};
use crate::error::Result;
use crate::event::Observer;
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::recipe::Recipe;
use crate::reference::Reference;
use crate::step::{StepDocument, StepDocuments, gradients};
use crate::token_nll::NllTable;
use crate::training::{Checkpointer, Cost, MidRunEvaluation, Next, State, TrainingPlan, train};

/// All documents that steps may sample.
#[derive(Debug, Clone)]
pub struct TrainingDocuments<'a> {
    /// The documents of the data folder.
    pub benchmark: &'a Benchmark,
    /// The [replay documents](crate::replay). Their indices follow those of the retain set, and they are sampled with them.
    pub replay: Vec<Example>,
}

impl TrainingDocuments<'_> {
    /// The document of a set with this index in the [`sampler`].
    pub fn document(&self, set: Set, index: usize) -> &Example {
        let documents = self.benchmark.documents(set);
        match index.checked_sub(documents.len()) {
            Some(replay) if set == Set::Retain => &self.replay[replay],
            _ => &documents[index],
        }
    }

    /// Number of documents of a set.
    fn count(&self, set: Set) -> usize {
        let replay = if set == Set::Retain { self.replay.len() } else { 0 };
        self.benchmark.documents(set).len() + replay
    }

    /// The documents of `sample`, the sample of step `number` (from 1). A document takes its alternatives in turn, one an
    /// epoch.
    pub fn drawn(&self, sample: &StepSample, number: usize) -> Vec<StepDocument<'_>> {
        let of_set = |(&set, indices): (&Set, &'_ Vec<usize>)| {
            let (before, all) = ((number - 1) * indices.len(), self.count(set));
            let document = |(place, &index): (usize, &usize)| StepDocument {
                set,
                example: self.document(set, index),
                alternative: (before + place) / all,
            };
            indices.iter().enumerate().map(document).collect::<Vec<_>>()
        };
        sample.iter().flat_map(of_set).collect()
    }
}

/// The reference values that the documents of steps are compared with.
pub struct Comparison<'a, B: Backend> {
    /// The reference.
    pub reference: &'a mut dyn Reference<B>,
    /// The NLL of the documents to unlearn under the reference, if the objective needs it.
    pub reference_nll: Option<&'a NllTable>,
    /// The NLL at which the ascent on each token ends, if it is bounded.
    pub bounds: Option<&'a NllTable>,
}

/// The sampler of an operation, over the sets with a weight in its objective and the replay documents.
pub fn sampler(corpus: &Corpus, recipe: &Recipe) -> Sampler {
    let subjects = |set: Set| {
        let of_corpus = corpus.documents(set).iter().map(|document| document.subject.clone());
        let replay = if set == Set::Retain { recipe.replay.documents } else { 0 };
        (set, of_corpus.chain(std::iter::repeat_n(None, replay)).collect())
    };
    let sets = recipe.objective.sets().into_iter().map(subjects);
    Sampler::new(sets, recipe.train.documents_per_step, recipe.train.seed)
}

/// The indices of the documents that the steps of an operation will sample. The seed determines them.
pub fn to_be_drawn(corpus: &Corpus, recipe: &Recipe) -> BTreeMap<Set, BTreeSet<usize>> {
    let mut sampler = sampler(corpus, recipe);
    let all: usize = recipe.objective.sets().into_iter().map(|set| corpus.documents(set).len()).sum();
    let mut drawn: BTreeMap<Set, BTreeSet<usize>> = BTreeMap::new();
    for _ in 0..recipe.train.steps {
        if drawn.values().map(BTreeSet::len).sum::<usize>() == all + recipe.replay.documents {
            break;
        }
        for (set, indices) in sampler.draw() {
            drawn.entry(set).or_default().extend(indices);
        }
    }
    drawn
}

/// The state before the first step.
pub fn beginning<B: AutodiffBackend>(model: Llama<B>, corpus: &Corpus, recipe: &Recipe) -> State<B> {
    let objective = recipe.objective.for_model(model.config(), recipe.train.seed);
    State::new(model, &recipe.optimizer, sampler(corpus, recipe), objective.lambda())
}

/// Trains from `state` on `documents`, which are in the order of the corpus, until `recipe.train.steps` steps are done.
pub fn operate<B: AutodiffBackend, K: Kernels<B> + Kernels<B::InnerBackend>>(
    state: State<B>,
    documents: &TrainingDocuments,
    recipe: &Recipe,
    comparison: Comparison<B::InnerBackend>,
    checkpointer: &mut dyn Checkpointer<B>,
    observer: &mut dyn Observer,
) -> Result<(Llama<B>, Cost)> {
    let Recipe { objective, optimizer, train: section, guard, .. } = recipe;
    let Comparison { reference, reference_nll, bounds } = comparison;
    let mut objective = objective.for_model(state.model.config(), section.seed);
    let step = |model: &Llama<B>, sample: &StepSample, next: Next| {
        let step = StepDocuments {
            documents: documents.drawn(sample, next.number),
            context: next.context,
            batch_tokens: section.most_tokens(),
            recompute: section.recompute,
            bounds,
            reference_nll,
        };
        objective.set_lambda(next.lambda);
        let graded = gradients::<B, K>(model, &step, &objective, Some(&mut *reference))?;
        let lambda = objective.next_lambda(&graded.record.terms);
        Ok((graded, lambda))
    };
    let mut mid_run = MidRunEvaluation::new(documents.benchmark, section.evaluate_every);
    let after = |model: &Llama<B>, number: usize, observer: &mut dyn Observer| {
        mid_run.after_step::<B, K>(model, number, observer)
    };
    let plan = TrainingPlan { optimizer, guard, steps: section.steps, max_tokens: section.max_tokens };
    train::<B, K>(state, &plan, checkpointer, observer, step, after)
}
