//! Measurements on the stand-in.

use std::time::Instant;

use surgery_core::Result;
use surgery_core::config::LlamaConfig;
use surgery_core::data::{EncodedQuestion, Example, Set};
use surgery_core::evaluate::{self, score, score_options};
use surgery_core::event::Silent;
use surgery_core::folders::DataFolder;
use surgery_core::generate::{Sampling, generate, generate_several};
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

use super::amounts::{Amounts, Texts, of_questions, questions_of, step_of, step_operations};
use super::{Estimate, values};

/// Maximum number of texts that are generated at once, and tokens of each.
const TEXTS_WRITTEN: usize = 128;
const TOKENS_WRITTEN: usize = 4;
/// Tokens of the text that is generated alone.
const TOKENS_ALONE: usize = 16;

/// A stand-in, and the step, documents and questions that it is timed on.
pub(super) struct Bench<'a, P: Platform> {
    recipe: &'a Recipe,
    pub(super) config: LlamaConfig,
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
    pub(super) fn new(
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
    pub(super) fn round(&mut self) -> Result<Amounts> {
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
    pub(super) fn scaled(&self, rounds: &[Amounts], whole: &Amounts, config: &LlamaConfig) -> Estimate {
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
