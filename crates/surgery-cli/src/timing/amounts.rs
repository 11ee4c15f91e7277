//! The amounts of work of a run and of a round of the stand-in.

use surgery_core::batch::Window;
use surgery_core::config::LlamaConfig;
use surgery_core::data::{Benchmark, EncodedQuestion, Example};
use surgery_core::evaluate::{self, num_positions};
use surgery_core::folders::DataFolder;
use surgery_core::inspect::{FIGURE, OBSERVED, prompts};
use surgery_core::objective::Weighing;
use surgery_core::recipe::{Recipe, ReferenceForm};
use surgery_core::replay::stand_ins;
use surgery_core::step::{StepDocument, StepDocuments};
use surgery_core::surgery::{TrainingDocuments, sampler};
use surgery_core::training::MidRunEvaluation;

use super::values;
use crate::fit;

/// Maximum number of steps whose documents are sampled for their mean length.
const STEPS_SEEN: usize = 32;

/// The amount of each kind of work, in arithmetic operations or in values read from memory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Amounts {
    /// Operations of steps without their updates.
    pub(super) gradients: f64,
    /// Values that updates read.
    pub(super) updates: f64,
    /// Operations of evaluations of documents.
    pub(super) documents: f64,
    /// Operations of evaluations of questions.
    pub(super) questions: f64,
    /// Operations of texts that are generated many at once.
    pub(super) written: f64,
    /// Weights read for texts that are generated one by one.
    pub(super) alone: f64,
}

/// The total length of some texts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Texts {
    pub(super) tokens: f64,
    /// The sum of the squares of the windows' lengths.
    pub(super) squares: f64,
}

impl Texts {
    pub(super) fn of<'a>(documents: impl IntoIterator<Item = &'a Example>, context: usize) -> Self {
        let windows = Window::of_all(documents, context);
        windows.iter().fold(Self::default(), |Self { tokens, squares }, window| {
            let length = window.len() as f64;
            Self { tokens: tokens + length, squares: squares + length * length }
        })
    }

    /// The operations of all blocks on these texts.
    pub(super) fn through_blocks(self, config: &LlamaConfig) -> f64 {
        let width = (config.num_attention_heads * config.head_dim * config.num_hidden_layers) as f64;
        2.0 * self.tokens * values(config)[0] + 2.0 * self.squares * width
    }

    /// The operations of one product with the head.
    pub(super) fn through_head(self, config: &LlamaConfig) -> f64 {
        2.0 * self.tokens * values(config)[1]
    }

    pub(super) fn measured(self, config: &LlamaConfig) -> f64 {
        self.through_blocks(config) + self.through_head(config)
    }
}

/// The operations of a step's gradients.
pub(super) fn step_operations(recipe: &Recipe, config: &LlamaConfig, step: &StepDocuments) -> f64 {
    let objective = recipe.objective.for_model(config, recipe.train.seed);
    let texts = |counts: &dyn Fn(&StepDocument) -> bool| {
        let documents = step.documents.iter().filter(|document| counts(document));
        let sequences = documents.flat_map(|document| {
            let count = usize::from(objective.needs(document.set).alternative);
            std::iter::once(document.example).chain(document.example.alternatives.iter().take(count))
        });
        Texts::of(sequences, step.context)
    };
    let all = texts(&|_| true);
    let compared = texts(&|document| objective.usage(document.set).of_reference().is_some());
    // A document in several batches whose NLL is measured first takes a forward pass of its own.
    let is_divided = |document: &StepDocument| {
        let has_parts = document.example.len() > step.context || objective.needs(document.set).alternative;
        has_parts && all.tokens > step.batch_tokens as f64
    };
    let is_first = |document: &StepDocument| objective.needs(document.set).nll;
    let apart = texts(&|document| is_first(document) && is_divided(document));
    let beside = texts(&|document| is_first(document) && !is_divided(document));
    // A forward pass counts 1, the backward pass 2, and a second forward pass with `recompute` 1 more.
    let passes = if recipe.train.recompute { 4.0 } else { 3.0 };
    let reference = match recipe.train.reference {
        ReferenceForm::Live => compared.through_blocks(config),
        ReferenceForm::Cached => 0.0,
    };
    passes * all.through_blocks(config)
        + 3.0 * all.through_head(config)
        + compared.through_head(config)
        + apart.measured(config)
        + beside.through_head(config)
        + reference
}

/// The operations of measuring questions.
pub(super) fn of_questions(questions: Vec<EncodedQuestion>, config: &LlamaConfig) -> f64 {
    let options = || questions.iter().flat_map(|question| &question.options);
    let counted = options().map(|option| option.harness.scored.len()).sum::<usize>() as f64;
    let head = Texts { tokens: counted, squares: 0.0 }.through_head(config);
    let benchmark = Benchmark { sets: Vec::new(), questions: vec![(String::new(), questions)] };
    let positions = Texts { tokens: num_positions(&benchmark, config) as f64, squares: 0.0 };
    positions.through_blocks(config) + head
}

pub(super) fn questions_of(benchmark: &Benchmark) -> impl Iterator<Item = &EncodedQuestion> {
    benchmark.questions.iter().flat_map(|(_, questions)| questions)
}

impl Amounts {
    /// The work of a run on a model of this shape.
    pub(super) fn of_run(recipe: &Recipe, config: &LlamaConfig, data: &DataFolder) -> Self {
        let benchmark = &data.benchmark;
        let longest = evaluate::context(config);
        let (train, replay) = (&recipe.train, &recipe.replay);
        let context = config.context(train.max_tokens);
        let all_documents = TrainingDocuments { benchmark, replay: stand_ins(replay, context) };
        let mut sampler = sampler(&data.corpus, recipe);
        let seen = train.steps.min(STEPS_SEEN);
        let drawn: f64 = (1..=seen)
            .map(|number| {
                let drawn = all_documents.drawn(&sampler.draw(), number);
                step_operations(recipe, config, &step_of(recipe, drawn, context))
            })
            .sum();
        let documents = |benchmark: &Benchmark| {
            let documents = benchmark.sets.iter().flat_map(|(_, documents)| documents);
            Texts::of(documents, longest).measured(config)
        };
        let questions =
            |benchmark: &Benchmark| of_questions(questions_of(benchmark).cloned().collect(), config);
        // Evaluations before and after training, and mid-run evaluations on a sample. The one after training also compares
        // retain documents with the reference.
        let mid_run = MidRunEvaluation::new(benchmark, train.evaluate_every);
        let (evaluations, sample) = mid_run.in_steps(train.steps);
        let kept = Texts::of(benchmark.kept(), longest);
        let against = match train.reference {
            ReferenceForm::Live => kept.measured(config),
            ReferenceForm::Cached => kept.through_head(config),
        };
        let observed = FIGURE.into_iter().flat_map(|set| benchmark.documents(set).iter().take(OBSERVED));
        let observed = Texts::of(observed, longest).through_blocks(config);
        let written = (replay.documents * replay.max_tokens.min(context)) as f64;
        let written = Texts { tokens: written, squares: written * replay.max_tokens as f64 };
        // Continuations are generated one by one, before and after training.
        let continued: usize = prompts(benchmark, longest).iter().map(|prompt| prompt.most).sum();
        let [blocks, head, _] = values(config);
        Self {
            gradients: drawn * train.steps as f64 / seen.max(1) as f64,
            updates: train.steps as f64 * fit::trained_values(recipe, config) as f64,
            documents: 2.0 * (documents(benchmark) + observed)
                + evaluations as f64 * documents(sample)
                + against,
            questions: 2.0 * questions(benchmark) + evaluations as f64 * questions(sample),
            written: written.measured(config),
            alone: 2.0 * continued as f64 * (blocks + head),
        }
    }
}

/// A step on these documents.
pub(super) fn step_of<'a>(
    recipe: &Recipe,
    documents: Vec<StepDocument<'a>>,
    context: usize,
) -> StepDocuments<'a> {
    let batch_tokens = recipe.train.most_tokens();
    let recompute = recipe.train.recompute;
    StepDocuments { documents, context, batch_tokens, recompute, bounds: None, reference_nll: None }
}
