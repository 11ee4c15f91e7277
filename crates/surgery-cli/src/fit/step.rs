//! The largest step of a run, in tokens.

use surgery_core::config::LlamaConfig;
use surgery_core::data::{Example, Set, StepSample};
use surgery_core::folders::DataFolder;
use surgery_core::objective::Weighing;
use surgery_core::pretrain::most_tokens;
use surgery_core::recipe::{PretrainRecipe, Recipe};
use surgery_core::replay::stand_ins;
use surgery_core::surgery::{TrainingDocuments, sampler};
use surgery_core::training::FORESEEN;

/// The largest step of a run, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct StepSize {
    /// Number of input tokens.
    pub(super) tokens: usize,
    /// Number of tokens of documents that are compared with the reference.
    pub(super) compared: usize,
    /// Length of the longest window.
    pub(super) longest: usize,
}

impl StepSize {
    /// The largest forward pass of the step if one has at most `batch_tokens` tokens; 0 for no limit.
    pub(super) fn batch(self, batch_tokens: usize) -> Self {
        let most = if batch_tokens == 0 { self.tokens } else { batch_tokens.max(self.longest) };
        Self { tokens: self.tokens.min(most), compared: self.compared.min(most), ..self }
    }
}

/// The largest of the first [`FORESEEN`] steps of an operation. The seed determines the documents of the steps.
pub(super) fn largest_step(recipe: &Recipe, config: &LlamaConfig, data: &DataFolder) -> StepSize {
    let context = config.context(recipe.train.max_tokens);
    let documents =
        TrainingDocuments { benchmark: &data.benchmark, replay: stand_ins(&recipe.replay, context) };
    let objective = recipe.objective.for_model(config, recipe.train.seed);
    let sets: Vec<(Set, bool, bool)> = recipe
        .objective
        .sets()
        .into_iter()
        .map(|set| (set, objective.usage(set).of_reference().is_some(), objective.needs(set).alternative))
        .collect();
    // The tokens of a document and of its longest alternative.
    let tokens = |example: &Example, has_alternative: bool| {
        let alternatives = example.alternatives.iter().filter(|_| has_alternative).map(Example::len);
        example.len() + alternatives.max().unwrap_or(0)
    };
    let longest = longest_window(recipe, config, data);
    let mut sampler = sampler(&data.corpus, recipe);
    let size = |draw: StepSample| {
        let mut size = StepSize { longest, ..StepSize::default() };
        for &(set, is_compared, has_alternative) in &sets {
            let drawn = draw.get(&set).into_iter().flatten();
            let of_set: usize =
                drawn.map(|&index| tokens(documents.document(set, index), has_alternative)).sum();
            size.tokens += of_set;
            size.compared += if is_compared { of_set } else { 0 };
        }
        size
    };
    let steps = recipe.train.steps.min(FORESEEN);
    let most = |most: StepSize, size: StepSize| StepSize {
        tokens: most.tokens.max(size.tokens),
        compared: most.compared.max(size.compared),
        longest,
    };
    (0..steps).map(|_| size(sampler.draw())).fold(StepSize { longest, ..StepSize::default() }, most)
}

/// The longest window of the documents that the steps of an operation draw, and of their alternatives, in tokens.
pub(super) fn longest_window(recipe: &Recipe, config: &LlamaConfig, data: &DataFolder) -> usize {
    let context = config.context(recipe.train.max_tokens);
    let drawn = recipe.objective.sets().into_iter().flat_map(|set| data.benchmark.documents(set));
    let all = drawn.flat_map(|document| std::iter::once(document).chain(&document.alternatives));
    let replay = if recipe.replay.documents > 0 { recipe.replay.max_tokens } else { 0 };
    all.map(Example::len).max().unwrap_or(0).max(replay).min(context)
}

/// The largest step of a pretraining.
pub(super) fn pretraining_step(
    recipe: &PretrainRecipe,
    config: &LlamaConfig,
    documents: &[Example],
) -> StepSize {
    let longest = documents.iter().map(Example::len).max().unwrap_or(0);
    let longest = longest.min(config.context(recipe.train.max_tokens));
    StepSize { tokens: most_tokens(documents, recipe), compared: 0, longest }
}
