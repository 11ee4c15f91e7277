//! Perplexity, multiple choice, and the divergence from a reference (the paper, section 4).
//!
//! Texts are measured in batches of similar length, packed without padding; only the tokens that count pass
//! through the head, a chunk at a time, so that the `[tokens, vocab]` logits never exist whole. The model runs once
//! over each text, whatever is measured on it, and once over what the options of a question have in common.

mod results;

use std::collections::BTreeMap;
use std::ops::Range;

use crate::batch::{BATCH_TOKENS, Rows, Target, Tree, batches, windows};
use crate::config::LlamaConfig;
use crate::data::{Benchmark, EncodedOption, EncodedQuestion, KEPT, ScoredText};
use crate::error::Result;
use crate::event::{Event, Observer, stop_if_interrupted};
use crate::kernels::{HEAD_CHUNK, Kernels};
use crate::model::Llama;
use crate::reference::Reference;
use crate::tensors::at_positions;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

pub use results::{Accuracy, Choices, Evaluation, Halves, Perplexity, choose};
use results::{accuracy, mean, perplexity};

/// The longest window of a text, in tokens, where the model's own context is not shorter: the paper's
/// sequence length. A longer text is split as in training.
const CONTEXT: usize = 4096;

/// The longest window of a text that an evaluation runs a model of this shape over, in tokens. Questions are not split:
/// of one that is longer than the model's own context, the last tokens are scored, as many as it takes.
pub fn context(config: &LlamaConfig) -> usize {
    config.context(CONTEXT)
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

/// The positions that an evaluation of `benchmark` runs a model of this shape over.
pub fn num_positions(benchmark: &Benchmark, config: &LlamaConfig) -> usize {
    let of_pieces = |pieces: Vec<Piece>| pieces.iter().map(|piece| piece.tree.num_positions()).sum::<usize>();
    let texts = benchmark.sets.iter().map(|(_, texts)| of_pieces(pieces(&alone(texts), context(config))));
    let questions = benchmark.questions.iter();
    let questions =
        questions.map(|(_, questions)| of_pieces(pieces(&together(questions, config), usize::MAX)));
    texts.chain(questions).sum()
}

/// The longest text, or part of a text, that an evaluation of `benchmark` runs a model of this shape over, in tokens.
pub fn longest(benchmark: &Benchmark, config: &LlamaConfig) -> usize {
    let documents = benchmark.sets.iter().flat_map(|(_, texts)| texts).map(Vec::len);
    let documents = documents.max().unwrap_or(0).min(context(config));
    let questions = benchmark.questions.iter().flat_map(|(_, questions)| together(questions, config));
    let options = questions.flatten().map(|counted| counted.tokens.len().saturating_sub(1));
    documents.max(options.max().unwrap_or(0))
}

/// What a model's divergence on the sets that should stay is measured from.
pub enum Against<'a, B: Backend> {
    /// Nothing: it is not measured.
    Nothing,
    /// The model itself: it is 0, and the reference may remember the states for when it no longer is.
    Itself(&'a mut dyn Reference<B>),
    /// The model that this is a reference of.
    Reference(&'a mut dyn Reference<B>),
}

/// What an evaluation found item by item, in the order of the benchmark.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Details {
    /// The mean NLL of each document in nats, by set.
    pub documents: BTreeMap<String, Vec<f64>>,
    /// Which questions were answered rightly by the paper's rule, by set of questions.
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

/// As [`evaluate`], and says what came out for each document and each question.
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
        let longest = context(model.config());
        let losses = measure::<B, K>(model, &alone(texts), longest, against, &mut progress)?;
        evaluation.perplexity.insert(set.name().into(), perplexity(&losses.nll));
        if !matches!(against, Against::Nothing) {
            let means: Vec<f64> = losses.kl.iter().filter_map(TextLoss::mean).collect();
            evaluation.kl.insert(set.name().into(), mean(&means));
        }
        let means = losses.nll.iter().map(|loss| loss.mean().unwrap_or(f64::NAN)).collect();
        details.documents.insert(set.name().into(), means);
    }
    for (name, questions) in &benchmark.questions {
        let options = options_of::<B, K>(model, questions, &mut progress)?;
        let choices: Vec<Choices> = questions.iter().zip(&options).map(Choices::of).collect();
        evaluation.accuracy.insert(name.clone(), accuracy(questions, &choices));
        details.answers.insert(name.clone(), choices.iter().map(|choice| choice.paper).collect());
    }
    Ok((evaluation, details))
}

/// The NLL of each text's predicted tokens, in the order of `texts`.
pub fn score<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    texts: &[Vec<u32>],
    observer: &mut dyn Observer,
) -> Result<Vec<TextLoss>> {
    let mut progress = Progress { done: 0, total: texts.len(), observer };
    let longest = context(model.config());
    Ok(measure::<B, K>(model, &alone(texts), longest, &mut Against::Nothing, &mut progress)?.nll)
}

/// The loss of an option, by two rules.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct OptionLoss {
    /// Of [`EncodedOption::paper`](crate::data::EncodedOption::paper).
    pub paper: TextLoss,
    /// Of [`EncodedOption::harness`](crate::data::EncodedOption::harness): minus its log-likelihood there.
    pub harness: TextLoss,
}

/// The losses of each option, question by question.
pub fn score_options<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    questions: &[EncodedQuestion],
    observer: &mut dyn Observer,
) -> Result<Vec<Vec<OptionLoss>>> {
    let total = questions.iter().map(|question| question.options.len()).sum();
    options_of::<B, K>(model, questions, &mut Progress { done: 0, total, observer })
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

/// A text, and ranges of its tokens of each of which the loss is wanted.
struct Counted<'a> {
    tokens: &'a [u32],
    ranges: Vec<Range<usize>>,
    /// How many documents or options are measured when it is.
    completes: usize,
}

/// Texts that begin alike as far as they do.
type Group<'a> = Vec<Counted<'a>>;

/// Every text by itself, of which every token but the first counts.
fn alone(texts: &[Vec<u32>]) -> Vec<Group<'_>> {
    let ranges = |tokens: &[u32]| std::iter::once(1..tokens.len().max(1)).collect();
    texts.iter().map(|tokens| vec![Counted { tokens, ranges: ranges(tokens), completes: 1 }]).collect()
}

/// The options of each question: one text for both rules, or one for each where they differ. Of a text that is longer
/// than the model's context its beginning is cut off, as lm-evaluation-harness does: what is left predicts from as many
/// tokens as the context has.
fn together<'a>(questions: &'a [EncodedQuestion], config: &LlamaConfig) -> Vec<Group<'a>> {
    let most = config.max_position_embeddings;
    let cut = |text: &'a ScoredText| {
        let end = text.scored.end;
        let start = end.saturating_sub(most.saturating_add(1));
        let first = text.scored.start.max(start + 1);
        (&text.tokens[start..end], first - start..end - start)
    };
    let of_option = |option: &'a EncodedOption| -> Group<'a> {
        let ((paper, in_paper), (harness, in_harness)) = (cut(&option.paper), cut(&option.harness));
        let (longer, shorter) = if paper.len() > harness.len() { (paper, harness) } else { (harness, paper) };
        match longer.starts_with(shorter) {
            true => vec![Counted { tokens: longer, ranges: vec![in_paper, in_harness], completes: 1 }],
            false => vec![
                Counted { tokens: paper, ranges: vec![in_paper], completes: 0 },
                Counted { tokens: harness, ranges: vec![in_harness], completes: 1 },
            ],
        }
    };
    questions.iter().map(|question| question.options.iter().flat_map(of_option).collect()).collect()
}

fn options_of<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    questions: &[EncodedQuestion],
    progress: &mut Progress,
) -> Result<Vec<Vec<OptionLoss>>> {
    let groups = together(questions, model.config());
    let nll = measure::<B, K>(model, &groups, usize::MAX, &mut Against::Nothing, progress)?.nll;
    let mut losses = nll.as_chunks::<2>().0.iter().map(|&[paper, harness]| OptionLoss { paper, harness });
    Ok(questions.iter().map(|question| losses.by_ref().take(question.options.len()).collect()).collect())
}

/// What a forward pass runs over in one piece: texts of a group with what they share, or a window of a text.
struct Piece<'a> {
    tree: Tree<'a>,
    /// The first of its texts, by its position among those of all groups.
    first: usize,
    /// The token of its texts that it begins with.
    start: usize,
    /// How many documents or options are measured when it is: none where later windows follow.
    completes: usize,
}

/// The pieces of `groups`: texts longer than `context` in windows. What comes after the last token that counts is left
/// out.
fn pieces<'a>(groups: &[Group<'a>], context: usize) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let mut first = 0;
    for group in groups {
        let end = |counted: &Counted| counted.ranges.iter().map(|range| range.end).max().unwrap_or(0);
        let texts: Vec<&[u32]> = group.iter().map(|counted| &counted.tokens[..end(counted)]).collect();
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let tree = Tree::of(&texts);
        // Not longer than what has to fit anyway.
        if longest <= context && tree.num_positions() <= longest.max(BATCH_TOKENS) {
            let completes = group.iter().map(|counted| counted.completes).sum();
            pieces.push(Piece { tree, first, start: 0, completes });
        } else {
            for (number, (text, counted)) in texts.iter().zip(group).enumerate() {
                let from = counted.ranges.iter().map(|range| range.start).min().unwrap_or(0);
                let windows = windows(text.len(), context).into_iter().filter(|window| window.end > from);
                pieces.extend(windows.map(|window| Piece {
                    tree: Tree::of(&[&text[window.clone()]]),
                    first: first + number,
                    start: window.start,
                    completes: if window.end == text.len() { counted.completes } else { 0 },
                }));
            }
        }
        first += group.len();
    }
    pieces
}

/// What was measured on each text.
struct Losses {
    nll: Vec<TextLoss>,
    /// The divergence; of no token where it is not measured.
    kl: Vec<TextLoss>,
}

/// The losses of every range of every text, in the order of `groups`; texts longer than `context` in windows.
fn measure<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    groups: &[Group],
    context: usize,
    against: &mut Against<B>,
    progress: &mut Progress,
) -> Result<Losses> {
    let mut ranges = Ranges { of_texts: Vec::new(), count: 0 };
    for counted in groups.iter().flatten() {
        ranges.of_texts.push((ranges.count, &counted.ranges));
        ranges.count += counted.ranges.len();
    }
    let nothing = vec![TextLoss::default(); ranges.count];
    let mut losses = Losses { nll: nothing.clone(), kl: nothing };
    let predicts = |piece: &Piece| piece.tree.num_positions() > 0;
    let (pieces, empty): (Vec<Piece>, Vec<Piece>) = pieces(groups, context).into_iter().partition(predicts);
    progress.advance(empty.iter().map(|piece| piece.completes).sum())?;
    let lengths: Vec<usize> = pieces.iter().map(|piece| piece.tree.num_positions()).collect();
    for batch in batches(&lengths, BATCH_TOKENS) {
        let batch: Vec<&Piece> = batch.into_iter().map(|piece| &pieces[piece]).collect();
        measure_batch::<B, K>(model, &batch, &ranges, against, context, &mut losses)?;
        progress.advance(batch.iter().map(|piece| piece.completes).sum())?;
    }
    Ok(losses)
}

/// The ranges of all texts whose losses are wanted.
struct Ranges<'a> {
    /// Of each text, and the number of its first.
    of_texts: Vec<(usize, &'a [Range<usize>])>,
    /// How many there are.
    count: usize,
}

impl Ranges<'_> {
    /// Whether the loss of a text's token is wanted.
    fn want(&self, (text, token): (usize, usize)) -> bool {
        self.of_texts[text].1.iter().any(|range| range.contains(&token))
    }

    /// Adds a value of each of these tokens of texts to the losses that it belongs to.
    fn add(&self, losses: &mut [TextLoss], tokens: impl Iterator<Item = (usize, usize)>, values: &[f32]) {
        for ((text, token), &value) in tokens.zip(values) {
            let (first, ranges) = self.of_texts[text];
            for (loss, _) in
                losses[first..].iter_mut().zip(ranges).filter(|(_, range)| range.contains(&token))
            {
                loss.sum += f64::from(value);
                loss.tokens += 1;
            }
        }
    }
}

/// Adds what one forward pass tells to `losses`.
fn measure_batch<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    batch: &[&Piece],
    ranges: &Ranges,
    against: &mut Against<B>,
    context: usize,
    losses: &mut Losses,
) -> Result<()> {
    let trees: Vec<Tree> = batch.iter().map(|piece| piece.tree.clone()).collect();
    let rows = Rows::pack_trees(&trees, K::ONE_ROW);
    // The text of each packed document, and the token that it begins with.
    let texts_of = |piece: &&Piece| {
        let (first, start) = (piece.first, piece.start);
        (0..piece.tree.branches.len()).map(move |number| (first + number, start))
    };
    let texts: Vec<(usize, usize)> = batch.iter().flat_map(texts_of).collect();
    let token = |target: &Target| {
        let (text, start) = texts[target.document];
        (text, start + target.index)
    };
    let targets: Vec<&Target> = rows.targets.iter().filter(|target| ranges.want(token(target))).collect();
    if targets.is_empty() {
        return Ok(());
    }
    let hidden = at_positions(model.hidden::<K>(&rows)?, targets.iter().map(|target| target.position));
    let tokens = targets.iter().map(|target| token(target));
    ranges.add(&mut losses.nll, tokens.clone(), &nll::<B, K>(model, &hidden, &targets));
    let windows: Vec<&[u32]> = trees.iter().map(|tree| tree.trunk).collect();
    ranges.add(&mut losses.kl, tokens, &against.divergence::<K>(model, hidden, &windows, context)?);
    Ok(())
}

/// The NLL of each target; `hidden` is `[targets, hidden]`.
fn nll<B: Backend, K: Kernels<B>>(model: &Llama<B>, hidden: &Tensor<B, 2>, targets: &[&Target]) -> Vec<f32> {
    let ids: Vec<u32> = targets.iter().map(|target| target.token).collect();
    in_chunks(ids.len(), |chunk| {
        let states = hidden.clone().narrow(0, chunk.start, chunk.len());
        K::nll(states, model.head(), &ids[chunk])
    })
}

impl<B: Backend> Against<'_, B> {
    /// The divergence of `model` at each predicted token of `windows`, whose states are `hidden`: nothing where
    /// it is not measured.
    fn divergence<K: Kernels<B>>(
        &mut self,
        model: &Llama<B>,
        hidden: Tensor<B, 2>,
        windows: &[&[u32]],
        context: usize,
    ) -> Result<Vec<f32>> {
        let count = hidden.dims()[0];
        match self {
            Against::Nothing => Ok(Vec::new()),
            Against::Itself(reference) => {
                reference.remember(windows, hidden)?;
                Ok(vec![0.0; count])
            }
            Against::Reference(reference) => {
                let was = reference.hidden(windows, context)?;
                Ok(in_chunks(count, |chunk| {
                    let part = |states: &Tensor<B, 2>| states.clone().narrow(0, chunk.start, chunk.len());
                    K::kl(part(&hidden), model.head(), part(&was), reference.head())
                }))
            }
        }
    }
}

/// `values` of all positions, a chunk of them at a time.
fn in_chunks<B: Backend>(count: usize, values: impl Fn(Range<usize>) -> Tensor<B, 1>) -> Vec<f32> {
    let starts = (0..count).step_by(HEAD_CHUNK);
    let chunk = |start: usize| {
        let values = values(start..(start + HEAD_CHUNK).min(count)).into_data().convert::<f32>();
        values.to_vec::<f32>().expect("converted to f32")
    };
    starts.flat_map(chunk).collect()
}
