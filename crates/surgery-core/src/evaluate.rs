//! Perplexity, multiple choice, and the divergence from a reference (the paper, section 4).
//!
//! Texts are measured in batches of similar length, packed without padding; only the tokens that count pass
//! through the head, a chunk at a time, so that the `[tokens, vocab]` logits never exist whole.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use crate::batch::{Rows, windows};
use crate::config::LlamaConfig;
use crate::data::{Benchmark, EncodedQuestion, Set, Split};
use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::kernels::{HEAD_CHUNK, Kernels};
use crate::model::Llama;
use crate::reference::at_positions;

/// The longest window of a text, in tokens, where the model's own context is not shorter: the paper's
/// sequence length. A longer text is split as in training.
const CONTEXT: usize = 4096;
/// Input tokens of one forward pass, unless a single window has more.
const BATCH_TOKENS: usize = 2048;

/// What a model was measured to be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// By set.
    pub perplexity: BTreeMap<String, Perplexity>,
    /// In percent, by the paper's rule, by set of questions.
    pub accuracy: BTreeMap<String, Accuracy>,
    /// KL(reference ‖ model) in nats: the mean over a set's documents of the mean over their tokens. Empty
    /// without a reference.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kl: BTreeMap<String, f64>,
}

/// Perplexity of a set's documents, three ways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// The paper's: the mean over documents of exp(mean NLL); outliers dominate it.
    pub mean: f64,
    /// exp of the mean NLL over all tokens.
    pub corpus: f64,
    /// The median over documents of exp(mean NLL).
    pub median: f64,
}

/// The share of questions answered rightly, in percent; none where a half holds no question.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Of the validation half.
    pub validation: Option<f64>,
    /// Of the test half.
    pub test: Option<f64>,
}

impl Evaluation {
    /// A measure that is not a finite number, by name: the model no longer computes.
    pub fn not_finite(&self) -> Option<(String, f64)> {
        let perplexities =
            self.perplexity.iter().map(|(set, p)| (format!("the perplexity of {set}"), p.corpus));
        let kl = self.kl.iter().map(|(set, &kl)| (format!("the KL on {set}"), kl));
        perplexities.chain(kl).find(|(_, value)| !value.is_finite())
    }

    /// `self` minus `before`, entry by entry, for entries that both have.
    pub fn minus(&self, before: &Self) -> Self {
        let perplexity = pairs(&self.perplexity, &before.perplexity, |a, b| Perplexity {
            mean: a.mean - b.mean,
            corpus: a.corpus - b.corpus,
            median: a.median - b.median,
        });
        let minus = |a: Option<f64>, b: Option<f64>| Some(a? - b?);
        let accuracy = pairs(&self.accuracy, &before.accuracy, |a, b| Accuracy {
            validation: minus(a.validation, b.validation),
            test: minus(a.test, b.test),
        });
        Self { perplexity, accuracy, kl: pairs(&self.kl, &before.kl, |a, b| a - b) }
    }
}

fn pairs<T>(
    after: &BTreeMap<String, T>,
    before: &BTreeMap<String, T>,
    minus: impl Fn(&T, &T) -> T,
) -> BTreeMap<String, T> {
    let both = after.iter().filter_map(|(name, a)| Some((name.clone(), minus(a, before.get(name)?))));
    both.collect()
}

/// The loss of one text: the sum over its counted tokens, in nats, and their number.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TextLoss {
    /// Σ over the counted tokens.
    pub sum: f64,
    /// How many were counted.
    pub tokens: usize,
}

impl TextLoss {
    /// The mean over the counted tokens; none where there is none.
    pub fn mean(&self) -> Option<f64> {
        (self.tokens > 0).then(|| self.sum / self.tokens as f64)
    }
}

/// Measures `model` on a whole benchmark; with a reference, the KL to it on the sets that should stay.
pub fn evaluate<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    benchmark: &Benchmark,
    reference: Option<&Llama<B>>,
    observer: &mut dyn Observer,
) -> Result<Evaluation> {
    let kept = |set: &Set| matches!(set, Set::Retain | Set::RetainHeldout);
    let options = benchmark.questions.iter().flat_map(|(_, questions)| questions);
    let documents = |set: &Set| if reference.is_some() && kept(set) { 2 } else { 1 };
    let total = benchmark.sets.iter().map(|(set, texts)| documents(set) * texts.len()).sum::<usize>()
        + options.map(|question| question.options.len()).sum::<usize>();
    let mut progress = Progress { done: 0, total, observer };

    let mut evaluation = Evaluation::default();
    for (set, texts) in &benchmark.sets {
        let losses = nll_of_texts::<B, K>(model, &whole(texts), &mut progress)?;
        evaluation.perplexity.insert(set.name().into(), perplexity(&losses));
        if let Some(reference) = reference.filter(|_| kept(set)) {
            let kl = kl_of_texts::<B, K>(model, reference, &whole(texts), &mut progress)?;
            let means: Vec<f64> = kl.iter().filter_map(TextLoss::mean).collect();
            evaluation.kl.insert(set.name().into(), mean(&means));
        }
    }
    for (name, questions) in &benchmark.questions {
        let right = answers::<B, K>(model, questions, &mut progress)?;
        evaluation.accuracy.insert(name.clone(), accuracy(questions, &right));
    }
    Ok(evaluation)
}

/// The NLL of each text's predicted tokens, in the order of `texts`.
pub fn score<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    texts: &[Vec<u32>],
    observer: &mut dyn Observer,
) -> Result<Vec<TextLoss>> {
    let mut progress = Progress { done: 0, total: texts.len(), observer };
    nll_of_texts::<B, K>(model, &whole(texts), &mut progress)
}

/// The mean NLL of each option's tokens, question by question.
pub fn score_options<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    questions: &[EncodedQuestion],
    observer: &mut dyn Observer,
) -> Result<Vec<Vec<TextLoss>>> {
    let total = questions.iter().map(|question| question.options.len()).sum();
    options::<B, K>(model, questions, &mut Progress { done: 0, total, observer })
}

/// The option that the paper's rule chooses: the lowest mean NLL, the first of equals. Means are compared,
/// not perplexities, which overflow.
pub fn choose(options: &[TextLoss]) -> usize {
    let means = options.iter().map(|option| option.mean().unwrap_or(f64::INFINITY));
    let best = means.enumerate().fold((0, f64::INFINITY), |best, (index, mean)| match mean < best.1 {
        true => (index, mean),
        false => best,
    });
    best.0
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
        match self.observer.interrupted() {
            true => Err(Error::Interrupted { step: 0 }),
            false => Ok(()),
        }
    }
}

/// A text and the range of its tokens that count.
type Counted<'a> = (&'a [u32], Range<usize>);

/// Every token but the first.
fn whole(texts: &[Vec<u32>]) -> Vec<Counted<'_>> {
    texts.iter().map(|text| (text.as_slice(), 1..text.len().max(1))).collect()
}

fn options<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    questions: &[EncodedQuestion],
    progress: &mut Progress,
) -> Result<Vec<Vec<TextLoss>>> {
    let texts: Vec<Counted> = questions
        .iter()
        .flat_map(|question| &question.options)
        .map(|(text, counted)| (text.as_slice(), counted.clone()))
        .collect();
    let mut losses = nll_of_texts::<B, K>(model, &texts, progress)?.into_iter();
    Ok(questions.iter().map(|question| losses.by_ref().take(question.options.len()).collect()).collect())
}

fn answers<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    questions: &[EncodedQuestion],
    progress: &mut Progress,
) -> Result<Vec<bool>> {
    let options = options::<B, K>(model, questions, progress)?;
    Ok(questions.iter().zip(options).map(|(question, losses)| choose(&losses) == question.answer).collect())
}

fn nll_of_texts<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    texts: &[Counted],
    progress: &mut Progress,
) -> Result<Vec<TextLoss>> {
    in_batches(texts, model.config(), K::ONE_ROW, progress, |rows, targets| {
        let hidden =
            at_positions(model.hidden::<K>(rows)?, targets.iter().map(|&t| rows.targets[t].position));
        let ids: Vec<u32> = targets.iter().map(|&target| rows.targets[target].token).collect();
        Ok(in_chunks(ids.len(), |chunk| {
            let states = hidden.clone().narrow(0, chunk.start, chunk.len());
            to_vec(K::nll(states, model.head(), &ids[chunk]))
        }))
    })
}

fn kl_of_texts<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    reference: &Llama<B>,
    texts: &[Counted],
    progress: &mut Progress,
) -> Result<Vec<TextLoss>> {
    in_batches(texts, model.config(), K::ONE_ROW, progress, |rows, targets| {
        let states = |model: &Llama<B>| -> Result<_> {
            let positions = targets.iter().map(|&target| rows.targets[target].position);
            Ok(at_positions(model.hidden::<K>(rows)?, positions))
        };
        let (now, was) = (states(model)?, states(reference)?);
        Ok(in_chunks(targets.len(), |chunk| {
            let part =
                |states: &burn::tensor::Tensor<B, 2>| states.clone().narrow(0, chunk.start, chunk.len());
            to_vec(K::kl(part(&now), model.head(), part(&was), reference.head()))
        }))
    })
}

/// Calls `measure` on batches of windows of similar length with the rows and the indices of the targets that
/// count, and sums what it returns (one value a target) by text.
fn in_batches(
    texts: &[Counted],
    config: &LlamaConfig,
    one_row: bool,
    progress: &mut Progress,
    mut measure: impl FnMut(&Rows, &[usize]) -> Result<Vec<f32>>,
) -> Result<Vec<TextLoss>> {
    let context = config.context(CONTEXT);
    let mut losses = vec![TextLoss::default(); texts.len()];
    let mut pieces: Vec<(usize, Range<usize>)> = Vec::new();
    for (text, (tokens, _)) in texts.iter().enumerate() {
        pieces.extend(windows(tokens.len(), context).into_iter().map(|window| (text, window)));
    }
    pieces.sort_by_key(|(_, window)| std::cmp::Reverse(window.len()));
    let mut rest = pieces.as_slice();
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = rest.iter().take_while(|(_, window)| {
            tokens += window.len();
            tokens <= BATCH_TOKENS
        });
        let (batch, later) = rest.split_at(fits.count().max(1));
        rest = later;

        let windows: Vec<&[u32]> =
            batch.iter().map(|(text, window)| &texts[*text].0[window.clone()]).collect();
        let rows = Rows::pack(&windows, context, one_row);
        let counts = |target: &usize| {
            let target = &rows.targets[*target];
            let (text, window) = &batch[target.document];
            texts[*text].1.contains(&(window.start + target.index))
        };
        let targets: Vec<usize> = (0..rows.targets.len()).filter(counts).collect();
        if !targets.is_empty() {
            for (value, &target) in measure(&rows, &targets)?.into_iter().zip(&targets) {
                let loss = &mut losses[batch[rows.targets[target].document].0];
                loss.sum += f64::from(value);
                loss.tokens += 1;
            }
        }
        // A text counts as done with its first window; the others are few.
        progress.advance(batch.iter().filter(|(_, window)| window.start == 0).count())?;
    }
    Ok(losses)
}

fn in_chunks(count: usize, mut values: impl FnMut(Range<usize>) -> Vec<f32>) -> Vec<f32> {
    let starts = (0..count).step_by(HEAD_CHUNK);
    starts.flat_map(|start| values(start..(start + HEAD_CHUNK).min(count))).collect()
}

fn to_vec<B: Backend>(values: burn::tensor::Tensor<B, 1>) -> Vec<f32> {
    values.into_data().convert::<f32>().to_vec().expect("converted to f32")
}

fn perplexity(losses: &[TextLoss]) -> Perplexity {
    let mut each: Vec<f64> = losses.iter().filter_map(TextLoss::mean).map(f64::exp).collect();
    each.sort_by(f64::total_cmp);
    let (sum, tokens) = losses.iter().fold((0.0, 0), |(sum, tokens), l| (sum + l.sum, tokens + l.tokens));
    let middle = match each.len() {
        0 => f64::NAN,
        n if n.is_multiple_of(2) => (each[n / 2 - 1] + each[n / 2]) / 2.0,
        n => each[n / 2],
    };
    Perplexity { mean: mean(&each), corpus: (sum / tokens as f64).exp(), median: middle }
}

fn accuracy(questions: &[EncodedQuestion], right: &[bool]) -> Accuracy {
    let percent = |split| {
        let of_split = questions.iter().zip(right).filter(|(question, _)| question.split == split);
        let right: Vec<f64> = of_split.map(|(_, &right)| if right { 100.0 } else { 0.0 }).collect();
        (!right.is_empty()).then(|| mean(&right))
    };
    Accuracy { validation: percent(Split::Validation), test: percent(Split::Test) }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(mean: f64, tokens: usize) -> TextLoss {
        TextLoss { sum: mean * tokens as f64, tokens }
    }

    #[test]
    fn perplexities_differ_as_they_should() {
        let p = perplexity(&[loss(0.0, 1), loss(1.0, 3), loss(2.0, 1), loss(4.0, 5)]);
        let e = std::f64::consts::E;
        assert!((p.mean - (1.0 + e + e.powi(2) + e.powi(4)) / 4.0).abs() < 1e-9);
        assert!((p.median - (e + e.powi(2)) / 2.0).abs() < 1e-9);
        assert!((p.corpus - (25.0f64 / 10.0).exp()).abs() < 1e-9);
    }

    #[test]
    fn the_lowest_mean_wins_and_the_first_of_equals() {
        assert_eq!(choose(&[loss(2.0, 3), loss(1.0, 9), loss(1.0, 2)]), 1);
        // exp of both overflows f32; their order does not.
        assert_eq!(choose(&[loss(200.0, 1), loss(100.0, 1)]), 1);
        assert_eq!(choose(&[TextLoss::default(), loss(3.0, 1)]), 1);
    }
}
