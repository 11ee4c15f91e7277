//! Perplexity, multiple choice, and the divergence from a reference (the paper, section 4).
//!
//! Documents and options are measured in batches of similar length, packed without padding. Only scored tokens pass
//! through the head, a chunk at a time, so that memory never holds all `[tokens, vocab]` logits. The model runs once over
//! each document, whatever is measured on it, and once over the prefix that the options of a question share.

mod documents;
mod options;
mod results;

use std::collections::BTreeMap;

use burn::tensor::backend::Backend;

use crate::batch::Window;
use crate::config::LlamaConfig;
use crate::data::{Benchmark, EncodedQuestion, Example, KEPT};
use crate::error::Result;
use crate::event::{Event, Observer, stop_if_interrupted};
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::reference::Reference;

pub use crate::evaluation::{Accuracy, Evaluation, Halves, Perplexity};
pub use results::{Choices, choose};
use results::{accuracy, mean, perplexity};

/// Maximum length of a window of a text in tokens, unless the model's context is shorter: the paper's sequence length.
/// A longer text is split as in training.
const CONTEXT: usize = 4096;

/// Maximum length of a window, in tokens, in an evaluation of a model of this shape. Questions are not split. A question
/// longer than the model's context loses its first tokens.
pub fn context(config: &LlamaConfig) -> usize {
    config.context(CONTEXT)
}

/// The loss of one text: the sum over its scored tokens, in nats, and their number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TextLoss {
    /// The sum over the scored tokens.
    pub sum: f64,
    /// Number of scored tokens.
    pub tokens: usize,
}

impl TextLoss {
    /// Adds the loss of another token.
    fn add(&mut self, value: f32) {
        self.sum += f64::from(value);
        self.tokens += 1;
    }

    /// The mean over the scored tokens; `None` if there are none.
    pub fn mean(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.sum / self.tokens as f64)
    }
}

/// Number of positions in an evaluation of `benchmark` with a model of this shape.
pub fn num_positions(benchmark: &Benchmark, config: &LlamaConfig) -> usize {
    let documents = benchmark.sets.iter().flat_map(|(_, documents)| documents);
    let windows = Window::of_all(documents, context(config));
    let questions = benchmark.questions.iter();
    let questions = questions.map(|(_, questions)| options::num_positions(questions, config)).sum::<usize>();
    windows.iter().map(Window::len).sum::<usize>() + questions
}

/// Length, in tokens, of the longest window of a document or option of a question in an evaluation of `benchmark` with
/// a model of this shape.
pub fn longest(benchmark: &Benchmark, config: &LlamaConfig) -> usize {
    let documents = benchmark.sets.iter().flat_map(|(_, documents)| documents).map(Example::len);
    let documents = documents.max().unwrap_or(0).min(context(config));
    let questions = benchmark.questions.iter().map(|(_, questions)| options::longest(questions, config));
    documents.max(questions.max().unwrap_or(0))
}

/// The model that the divergence on the sets of retain documents is measured from.
pub enum Against<'a, B: Backend> {
    /// No model: the divergence is not measured.
    Nothing,
    /// The evaluated model: the divergence is 0. The reference may store the states for later evaluations.
    Itself(&'a mut dyn Reference<B>),
    /// The reference.
    Reference(&'a mut dyn Reference<B>),
}

/// The results of an evaluation for each document and question, in the order of the benchmark.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Details {
    /// The mean NLL of each document in nats, by set.
    pub documents: BTreeMap<String, Vec<f64>>,
    /// Whether each question was answered correctly by the paper's rule, by set of questions.
    pub answers: BTreeMap<String, Vec<bool>>,
}

/// Measures `model` on a whole benchmark.
pub fn evaluate<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    benchmark: &Benchmark,
    against: Against<B>,
    observer: &mut dyn Observer,
) -> Result<Evaluation> {
    Ok(evaluate_in_detail::<B, K>(model, benchmark, against, observer)?.0)
}

/// As [`evaluate`], with the results for each document and question.
pub fn evaluate_in_detail<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    benchmark: &Benchmark,
    mut against: Against<B>,
    observer: &mut dyn Observer,
) -> Result<(Evaluation, Details)> {
    let options = benchmark.questions.iter().flat_map(|(_, questions)| questions);
    let total = benchmark.sets.iter().map(|(_, texts)| texts.len()).sum::<usize>()
        + options.map(|question| question.options.len()).sum::<usize>();
    let mut progress = Progress { done: 0, total, observer };

    let (mut evaluation, mut details) = (Evaluation::default(), Details::default());
    for (set, texts) in &benchmark.sets {
        let against = if KEPT.contains(set) { &mut against } else { &mut Against::Nothing };
        let losses = documents::measure::<B, K>(model, texts, against, &mut progress)?;
        evaluation.perplexity.insert(set.name().into(), perplexity(&losses.nll));
        if !matches!(against, Against::Nothing) {
            let means: Vec<f64> = losses.kl.iter().filter_map(TextLoss::mean).collect();
            evaluation.kl.insert(set.name().into(), mean(&means));
        }
        let means = losses.nll.iter().map(|loss| loss.mean().unwrap_or(f64::NAN)).collect();
        details.documents.insert(set.name().into(), means);
    }
    for (name, questions) in &benchmark.questions {
        let options = options::measure::<B, K>(model, questions, &mut progress)?;
        let choices: Vec<Choices> = questions.iter().zip(&options).map(Choices::of).collect();
        evaluation.accuracy.insert(name.clone(), accuracy(questions, &choices));
        details.answers.insert(name.clone(), choices.iter().map(|choice| choice.paper).collect());
    }
    Ok((evaluation, details))
}

/// The NLL of each document's predicted tokens, in the order of `documents`.
pub fn score<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    documents: &[Example],
    observer: &mut dyn Observer,
) -> Result<Vec<TextLoss>> {
    let mut progress = Progress { done: 0, total: documents.len(), observer };
    Ok(documents::measure::<B, K>(model, documents, &mut Against::Nothing, &mut progress)?.nll)
}

/// The loss of an option, by two rules.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct OptionLoss {
    /// The loss of [`EncodedOption::paper`](crate::data::EncodedOption::paper).
    pub paper: TextLoss,
    /// The loss of [`EncodedOption::harness`](crate::data::EncodedOption::harness): the negative log-likelihood.
    pub harness: TextLoss,
}

/// The losses of each option, question by question.
pub fn score_options<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    questions: &[EncodedQuestion],
    observer: &mut dyn Observer,
) -> Result<Vec<Vec<OptionLoss>>> {
    let total = questions.iter().map(|question| question.options.len()).sum();
    options::measure::<B, K>(model, questions, &mut Progress { done: 0, total, observer })
}

struct Progress<'a> {
    done: usize,
    total: usize,
    observer: &'a mut dyn Observer,
}

impl Progress<'_> {
    fn advance(&mut self, texts: usize) -> Result<()> {
        self.done += texts;
        self.observer.observe(Event::Evaluating { done: self.done, total: self.total });
        stop_if_interrupted(self.observer)
    }
}
