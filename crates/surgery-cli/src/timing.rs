//! Estimates of the time of a run. Its parts are timed on a stand-in for the model, a small Llama of the same kind with
//! random weights, and scaled by the operations and bytes of the run and of the stand-in. So an estimate takes about as
//! long for a large model as for a small one.

use std::time::Instant;

use surgery_core::Result;
use surgery_core::batch::Window;
use surgery_core::config::LlamaConfig;
use surgery_core::data::{Benchmark, EncodedQuestion, Example, Set};
use surgery_core::evaluate::{self, num_positions, score, score_options};
use surgery_core::event::Silent;
use surgery_core::folders::DataFolder;
use surgery_core::generate::{Sampling, generate, generate_several};
use surgery_core::inspect::{FIGURE, OBSERVED, prompts};
use surgery_core::model::Llama;
use surgery_core::objective::{StepObjective, Weighing};
use surgery_core::optimizer::AdamW;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::{Recipe, ReferenceForm};
use surgery_core::reference::{Cached, Live, Reference, Store};
use surgery_core::replay::{at_once, stand_ins};
use surgery_core::step::{StepDocument, StepDocuments, gradients, update};
use surgery_core::surgery::{TrainingDocuments, sampler};
use surgery_core::token_nll::NllTable;
use surgery_core::training::MidRunEvaluation;

use crate::fit;

/// The estimated time of a run in seconds.
pub struct Estimate {
    /// Time of the training, with the generation of replay documents.
    pub train: f64,
    /// Time of the evaluations.
    pub evaluate: f64,
    /// The timed model and the method, for the user.
    pub basis: String,
}

/// The sizes of stand-ins, the smallest first, in values of all matrices. A fast device reaches its speed on a large one
/// only.
const SIZES: [usize; 2] = [12_000_000, 100_000_000];
/// Tokens of a stand-in's step. With fewer tokens, the fixed costs of a step weigh more: with 432, the estimate for the
/// gradients of a model with 135M parameters was twice too high.
const TOKENS: usize = 1024;
/// Minimum time of a round in seconds. If a round takes less, a larger stand-in is timed if there is one.
const SHORTEST_ROUND: f64 = 0.15;
/// Rounds are repeated for this time in seconds, or until there are `MOST_ROUNDS`. The median counts.
const REPEATED_FOR: f64 = 1.0;
const MOST_ROUNDS: usize = 3;
/// Maximum number of texts that are generated at once, and tokens of each.
const TEXTS_WRITTEN: usize = 128;
const TOKENS_WRITTEN: usize = 4;
/// Tokens of the text that is generated alone.
const TOKENS_ALONE: usize = 16;
/// Maximum number of steps whose documents are sampled for their mean length.
const STEPS_SEEN: usize = 32;

/// Estimates the time of a run of `recipe`; `None` if no stand-in fits in memory.
pub fn estimate<P: Platform>(
    recipe: &Recipe,
    config: &LlamaConfig,
    data: &DataFolder,
    device: &DeviceOf<P>,
) -> Result<Option<Estimate>> {
    // Without end tokens, a generated text has as many tokens as were asked for.
    let config = &LlamaConfig { eos_token_ids: Vec::new(), ..config.clone() };
    let whole = Amounts::of_run(recipe, config, data);
    let mut found = None;
    for most_values in SIZES {
        let stand_in = shrunk(config, most_values);
        if fit::stand_in::<P>(recipe, &stand_in, TOKENS, device).is_err() {
            break;
        }
        let mut bench = Bench::<P>::new(recipe, stand_in, TOKENS, data, device)?;
        // The first round warms up.
        bench.round()?;
        let started = Instant::now();
        let mut rounds = vec![bench.round()?];
        let is_short = started.elapsed().as_secs_f64() < SHORTEST_ROUND;
        while rounds.len() < MOST_ROUNDS && started.elapsed().as_secs_f64() < REPEATED_FOR {
            rounds.push(bench.round()?);
        }
        found = Some(bench.scaled(&rounds, &whole, config));
        if !is_short || bench.config == *config {
            break;
        }
    }
    Ok(found)
}

/// A shape with at most about `most` values in matrices. It has fewer blocks and a smaller vocabulary, in the same
/// proportion, because a head costs more than its products. If one block is too large, blocks are narrower.
fn shrunk(config: &LlamaConfig, most: usize) -> LlamaConfig {
    let mut shape = config.clone();
    let [blocks, head, _] = values(config);
    let of_blocks = most as f64 * blocks / (blocks + head);
    let narrower = (block_values(config) / of_blocks).sqrt().max(1.0).ceil() as usize;
    if narrower > 1 {
        let part = |size: usize| (size / narrower).max(1);
        // The number of query heads stays a multiple of the number of key heads.
        let group = config.num_attention_heads / config.num_key_value_heads;
        shape.num_key_value_heads = part(config.num_key_value_heads);
        shape.num_attention_heads = shape.num_key_value_heads * group;
        (shape.hidden_size, shape.intermediate_size) =
            (part(config.hidden_size), part(config.intermediate_size));
    }
    let fitting = (of_blocks / block_values(&shape)) as usize;
    shape.num_hidden_layers = config.num_hidden_layers.min(fitting.max(1));
    let of_head = values(&shape)[0] * head / blocks;
    shape.vocab_size = config.vocab_size.min((of_head as usize / shape.hidden_size).max(2));
    shape
}

/// Number of values of a block's matrices.
fn block_values(config: &LlamaConfig) -> f64 {
    values(config)[0] / config.num_hidden_layers as f64
}

/// Number of values of all blocks' matrices, of the head, and of the model.
fn values(config: &LlamaConfig) -> [f64; 3] {
    let parameters = config.parameters();
    [parameters.block_matrices(), parameters.head().size(), parameters.values()].map(|count| count as f64)
}

/// The amount of each kind of work, in arithmetic operations or in values read from memory.
#[derive(Debug, Clone, Copy, Default)]
struct Amounts {
    /// Operations of steps without their updates.
    gradients: f64,
    /// Values that updates read.
    updates: f64,
    /// Operations of evaluations of documents.
    documents: f64,
    /// Operations of evaluations of questions.
    questions: f64,
    /// Operations of texts that are generated many at once.
    written: f64,
    /// Weights read for texts that are generated one by one.
    alone: f64,
}

/// The total length of some texts.
#[derive(Debug, Clone, Copy, Default)]
struct Texts {
    tokens: f64,
    /// The sum of the squares of the windows' lengths.
    squares: f64,
}

impl Texts {
    fn of<'a>(documents: impl IntoIterator<Item = &'a Example>, context: usize) -> Self {
        let windows = Window::of_all(documents, context);
        windows.iter().fold(Self::default(), |Self { tokens, squares }, window| {
            let length = window.len() as f64;
            Self { tokens: tokens + length, squares: squares + length * length }
        })
    }

    /// The operations of all blocks on these texts.
    fn through_blocks(self, config: &LlamaConfig) -> f64 {
        let width = (config.num_attention_heads * config.head_dim * config.num_hidden_layers) as f64;
        2.0 * self.tokens * values(config)[0] + 2.0 * self.squares * width
    }

    /// The operations of one product with the head.
    fn through_head(self, config: &LlamaConfig) -> f64 {
        2.0 * self.tokens * values(config)[1]
    }

    fn measured(self, config: &LlamaConfig) -> f64 {
        self.through_blocks(config) + self.through_head(config)
    }
}

/// The operations of a step's gradients.
fn step_operations(recipe: &Recipe, config: &LlamaConfig, step: &StepDocuments) -> f64 {
    let objective = recipe.objective.for_model(config, recipe.train.seed);
    let texts = |counts: &dyn Fn(Set) -> bool| {
        let documents = step.documents.iter().filter(|document| counts(document.set));
        let sequences = documents.flat_map(|document| {
            let count = usize::from(objective.needs(document.set).alternative);
            std::iter::once(document.example).chain(document.example.alternatives.iter().take(count))
        });
        Texts::of(sequences, step.context)
    };
    let all = texts(&|_| true);
    let compared = texts(&|set| objective.usage(set).of_reference().is_some());
    let measured_first = texts(&|set| objective.needs(set).nll);
    // A forward pass counts 1, the backward pass 2, and a second forward pass with `recompute` 1 more.
    let passes = if recipe.train.recompute { 4.0 } else { 3.0 };
    let reference = match recipe.train.reference {
        ReferenceForm::Live => compared.through_blocks(config),
        ReferenceForm::Cached => 0.0,
    };
    // In a step of several batches, NLLs that are measured first take a forward pass of their own.
    let first = match all.tokens > step.batch_tokens as f64 {
        true => measured_first.measured(config),
        false => measured_first.through_head(config),
    };
    passes * all.through_blocks(config)
        + 3.0 * all.through_head(config)
        + compared.through_head(config)
        + first
        + reference
}

/// The operations of measuring questions.
fn of_questions(questions: Vec<EncodedQuestion>, config: &LlamaConfig) -> f64 {
    let options = || questions.iter().flat_map(|question| &question.options);
    let counted = options().map(|option| option.harness.scored.len()).sum::<usize>() as f64;
    let head = Texts { tokens: counted, squares: 0.0 }.through_head(config);
    let benchmark = Benchmark { sets: Vec::new(), questions: vec![(String::new(), questions)] };
    let positions = Texts { tokens: num_positions(&benchmark, config) as f64, squares: 0.0 };
    positions.through_blocks(config) + head
}

fn questions_of(benchmark: &Benchmark) -> impl Iterator<Item = &EncodedQuestion> {
    benchmark.questions.iter().flat_map(|(_, questions)| questions)
}

impl Amounts {
    /// The work of a run on a model of this shape.
    fn of_run(recipe: &Recipe, config: &LlamaConfig, data: &DataFolder) -> Self {
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

/// A stand-in, and the step, documents and questions that it is timed on.
struct Bench<'a, P: Platform> {
    recipe: &'a Recipe,
    config: LlamaConfig,
    model: Llama<P::Infer>,
    trained: Option<Llama<P::Train>>,
    reference: Box<dyn Reference<P::Infer>>,
    optimizer: AdamW<P::Infer>,
    objective: StepObjective,
    reference_nll: NllTable,
    step: Vec<(Set, Example)>,
    context: usize,
    documents: Vec<Example>,
    questions: Vec<EncodedQuestion>,
    /// The amount of each kind of work in a round.
    amounts: Amounts,
}

impl<'a, P: Platform> Bench<'a, P> {
    fn new(
        recipe: &'a Recipe,
        config: LlamaConfig,
        tokens: usize,
        data: &DataFolder,
        device: &DeviceOf<P>,
    ) -> Result<Self> {
        let vocab = config.vocab_size as u32;
        let known = |example: &Example, most: usize| shortened(example, vocab, most);
        let context = config.context(recipe.train.max_tokens);
        let all_documents =
            TrainingDocuments { benchmark: &data.benchmark, replay: stand_ins(&recipe.replay, context) };
        let sample = sampler(&data.corpus, recipe).draw();
        let drawn = all_documents.drawn(&sample, 1);
        let step = some(&drawn, |document| document.example.len(), tokens)
            .map(|document| (document.set, known(document.example, tokens)))
            .collect::<Vec<_>>();
        let texts: Vec<&Example> = data.benchmark.sets.iter().flat_map(|(_, texts)| texts).collect();
        let documents =
            some(&texts, |text| text.len(), tokens).map(|text| known(text, tokens)).collect::<Vec<_>>();
        let asked: Vec<&EncodedQuestion> = questions_of(&data.benchmark).collect();
        let length = |question: &EncodedQuestion| -> usize {
            question.options.iter().map(|option| option.harness.tokens.len()).sum()
        };
        let questions: Vec<EncodedQuestion> = some(&asked, |question| length(question), tokens)
            .map(|question| {
                let mut question = (*question).clone();
                for option in &mut question.options {
                    for text in [&mut option.paper, &mut option.harness] {
                        text.tokens.iter_mut().for_each(|token| *token %= vocab);
                    }
                }
                question
            })
            .collect();

        let model: Llama<P::Infer> =
            Llama::random(&config, recipe.train.seed, recipe.model.precision, device);
        let objective = recipe.objective.for_model(&config, recipe.train.seed);
        let forgotten = step.iter().filter(|_| objective.needs(Set::Unlearn).reference_nll);
        let forgotten =
            forgotten.flat_map(|(_, example)| std::iter::once(example).chain(&example.alternatives));
        let reference_nll = NllTable::of::<P::Infer, P::Kernels>(&model, forgotten, context)?;
        let reference: Box<dyn Reference<P::Infer>> = match recipe.train.reference {
            ReferenceForm::Live => Box::new(Live::<P::Infer, P::Kernels>::new(model.clone())),
            ReferenceForm::Cached => {
                let mut cached = Cached::<P::Infer, P::Kernels>::new(&model, Store::in_memory());
                for (set, example) in &step {
                    if let Some(at) = objective.usage(*set).of_reference() {
                        cached.want([example], context, at);
                    }
                }
                cached.complete(&model)?;
                Box::new(cached)
            }
        };
        let mut bench = Self {
            recipe,
            trained: Some(Llama::<P::Train>::trainable(model.clone())),
            reference,
            optimizer: AdamW::new(recipe.optimizer.clone()),
            model,
            objective,
            reference_nll,
            step,
            context,
            documents,
            questions,
            config,
            amounts: Amounts::default(),
        };
        let config = &bench.config;
        let [blocks, head, parameters] = values(config);
        let texts = at_once(&recipe.replay).min(TEXTS_WRITTEN);
        let written = Texts { tokens: (texts * TOKENS_WRITTEN) as f64, squares: 0.0 };
        bench.amounts = Amounts {
            gradients: step_operations(recipe, config, &step_of(recipe, bench.drawn(), context)),
            updates: parameters,
            documents: Texts::of(&bench.documents, evaluate::context(config)).measured(config),
            questions: of_questions(bench.questions.clone(), config),
            written: written.measured(config),
            alone: TOKENS_ALONE as f64 * (blocks + head),
        };
        Ok(bench)
    }

    /// The documents of its step.
    fn drawn(&self) -> Vec<StepDocument<'_>> {
        self.step.iter().map(|(set, example)| StepDocument { set: *set, example, alternative: 0 }).collect()
    }

    /// Times each kind of work once, in seconds.
    fn round(&mut self) -> Result<Amounts> {
        let Self { recipe, model, trained, reference, optimizer, documents, questions, .. } = self;
        let mut seconds = Amounts::default();
        let drawn =
            self.step.iter().map(|(set, example)| StepDocument { set: *set, example, alternative: 0 });
        let step = StepDocuments {
            reference_nll: Some(&self.reference_nll),
            ..step_of(recipe, drawn.collect(), self.context)
        };
        let objective = &self.objective;
        let before = trained.take().expect("put back below");
        let graded = timed(&mut seconds.gradients, || {
            gradients::<P::Train, P::Kernels>(&before, &step, objective, Some(&mut **reference))
        })?;
        let after = timed(&mut seconds.updates, || {
            update::<P::Train, P::Kernels>(before, graded, optimizer, 0.0, 1)
        })?;
        *trained = Some(after.0);
        timed(&mut seconds.documents, || score::<P::Infer, P::Kernels>(model, documents, &mut Silent))?;
        timed(&mut seconds.questions, || {
            score_options::<P::Infer, P::Kernels>(model, questions, &mut Silent)
        })?;
        let sampling = Sampling { temperature: recipe.replay.temperature, seed: recipe.train.seed };
        if recipe.replay.documents > 0 {
            let texts = at_once(&recipe.replay).min(TEXTS_WRITTEN);
            let prompts: Vec<(usize, &[u32])> = (0..texts).map(|text| (text, [0].as_slice())).collect();
            timed(&mut seconds.written, || {
                generate_several::<P::Infer, P::Kernels>(model, &prompts, TOKENS_WRITTEN, sampling, &Silent)
            })?;
        }
        timed(&mut seconds.alone, || generate::<P::Infer, P::Kernels>(model, &[0], TOKENS_ALONE, sampling))?;
        Ok(seconds)
    }

    /// The estimated time of `whole`, from the median of `rounds`.
    fn scaled(&self, rounds: &[Amounts], whole: &Amounts, config: &LlamaConfig) -> Estimate {
        let part = |of: fn(&Amounts) -> f64| {
            let mut seconds: Vec<f64> = rounds.iter().map(of).collect();
            seconds.sort_by(f64::total_cmp);
            match of(&self.amounts) {
                0.0 => 0.0,
                amount => seconds[seconds.len() / 2] * of(whole) / amount,
            }
        };
        let train = part(|of| of.gradients) + part(|of| of.updates) + part(|of| of.written);
        let evaluate = part(|of| of.documents) + part(|of| of.questions) + part(|of| of.alone);
        let tokens: usize = self.step.iter().map(|(_, text)| text.len()).sum();
        let of_model = if self.config == *config { "the model's shape" } else { "a stand-in" };
        let LlamaConfig { num_hidden_layers, hidden_size, vocab_size, .. } = self.config;
        let basis = format!(
            "timed {} times on {of_model} with random weights ({num_hidden_layers} blocks, hidden size {hidden_size}, \
             {vocab_size} tokens in the vocabulary; a step of {tokens} tokens), and scaled by the operations and bytes \
             that the run needs",
            rounds.len()
        );
        Estimate { train, evaluate, basis }
    }
}

/// A step on these documents.
fn step_of<'a>(recipe: &Recipe, documents: Vec<StepDocument<'a>>, context: usize) -> StepDocuments<'a> {
    let batch_tokens = recipe.train.most_tokens();
    let recompute = recipe.train.recompute;
    StepDocuments { documents, context, batch_tokens, recompute, bounds: None, reference_nll: None }
}

/// The first tokens of a document, in a vocabulary of this size.
fn shortened(example: &Example, vocab: u32, most: usize) -> Example {
    let tokens: Vec<u32> = example.tokens.iter().take(most).map(|token| token % vocab).collect();
    let clipped = example.predicted.iter().map(|range| range.start..range.end.min(tokens.len()));
    let predicted: Vec<_> = clipped.filter(|range| !range.is_empty()).collect();
    let alternatives = example.alternatives.iter().map(|other| shortened(other, vocab, most)).collect();
    match predicted.is_empty() {
        // No predicted token is left: predict all tokens instead.
        true => Example { alternatives, ..Example::of_text(tokens) },
        false => Example { tokens, predicted, alternatives },
    }
}

/// Runs `work`, and adds its time in seconds to `sum`.
fn timed<T>(sum: &mut f64, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let done = work();
    *sum += started.elapsed().as_secs_f64();
    done
}

/// Some of `all`, evenly spread, with about `tokens` tokens together; at least one, unless `all` is empty.
fn some<T>(all: &[T], length: impl Fn(&T) -> usize, tokens: usize) -> impl Iterator<Item = &T> {
    let total: usize = all.iter().map(length).sum();
    all.iter().step_by(total.div_ceil(tokens).max(1))
}
