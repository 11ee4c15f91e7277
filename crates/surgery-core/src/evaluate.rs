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
use crate::data::{Benchmark, EncodedQuestion, KEPT};
use crate::error::Result;
use crate::event::{Event, Observer, stop_if_interrupted};
use crate::kernels::{HEAD_CHUNK, Kernels};
use crate::model::Llama;
use crate::reference::{Reference, at_positions};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

pub use results::{Accuracy, Choices, Evaluation, Halves, Perplexity, choose};
use results::{accuracy, mean, perplexity};

/// The longest window of a text, in tokens, where the model's own context is not shorter: the paper's
/// sequence length. A longer text is split as in training.
const CONTEXT: usize = 4096;

/// The longest window of a text that an evaluation runs a model of this shape over, in tokens.
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
    let texts = benchmark.sets.iter().flat_map(|(_, texts)| alone(texts));
    let questions = benchmark.questions.iter().flat_map(|(_, questions)| questions.iter().map(together));
    let groups: Vec<Group> = texts.chain(questions).collect();
    pieces(&groups, context(config)).iter().map(|piece| piece.tree.num_positions()).sum()
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
        let losses = measure::<B, K>(model, &alone(texts), against, &mut progress)?;
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
    Ok(measure::<B, K>(model, &alone(texts), &mut Against::Nothing, &mut progress)?.nll)
}

/// The mean NLL of each option's tokens, question by question.
pub fn score_options<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    questions: &[EncodedQuestion],
    observer: &mut dyn Observer,
) -> Result<Vec<Vec<TextLoss>>> {
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

/// A text and the range of its tokens that count.
type Counted<'a> = (&'a [u32], Range<usize>);

/// Texts that begin alike as far as they do.
type Group<'a> = Vec<Counted<'a>>;

/// Every text by itself, of which every token but the first counts.
fn alone(texts: &[Vec<u32>]) -> Vec<Group<'_>> {
    texts.iter().map(|text| vec![(text.as_slice(), 1..text.len().max(1))]).collect()
}

/// The options of a question, of which their own tokens count.
fn together(question: &EncodedQuestion) -> Group<'_> {
    question.options.iter().map(|(text, counted)| (text.as_slice(), counted.clone())).collect()
}

fn options_of<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    questions: &[EncodedQuestion],
    progress: &mut Progress,
) -> Result<Vec<Vec<TextLoss>>> {
    let groups: Vec<Group> = questions.iter().map(together).collect();
    let mut losses = measure::<B, K>(model, &groups, &mut Against::Nothing, progress)?.nll.into_iter();
    Ok(groups.iter().map(|group| losses.by_ref().take(group.len()).collect()).collect())
}

/// What a forward pass runs over in one piece: texts of a group with what they share, or a window of a text.
struct Piece<'a> {
    tree: Tree<'a>,
    /// The first of its texts, by its position among those of all groups.
    first: usize,
    /// The token of its texts that it begins with.
    start: usize,
    /// How many texts are measured when it is: none where later windows follow.
    completes: usize,
}

/// The pieces of `groups`. What comes after the last token that counts is left out.
fn pieces<'a>(groups: &[Group<'a>], context: usize) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let mut first = 0;
    for group in groups {
        let texts: Vec<&[u32]> = group.iter().map(|(text, counted)| &text[..counted.end]).collect();
        let tree = Tree::of(&texts);
        let fits = texts.iter().all(|text| text.len() <= context);
        // As long as what has to fit anyway: a text of the context's length.
        if fits && tree.num_positions() <= context.max(BATCH_TOKENS) {
            pieces.push(Piece { tree, first, start: 0, completes: group.len() });
        } else {
            for (number, (text, (_, counted))) in texts.iter().zip(group).enumerate() {
                let counts = |window: &Range<usize>| window.end > counted.start;
                let windows = windows(text.len(), context).into_iter().filter(counts);
                pieces.extend(windows.map(|window| Piece {
                    tree: Tree::of(&[&text[window.clone()]]),
                    first: first + number,
                    start: window.start,
                    completes: usize::from(window.end == text.len()),
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

/// The losses of every text, in the order of `groups`.
fn measure<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    groups: &[Group],
    against: &mut Against<B>,
    progress: &mut Progress,
) -> Result<Losses> {
    let context = context(model.config());
    let counted: Vec<&Range<usize>> = groups.iter().flatten().map(|(_, counted)| counted).collect();
    let nothing = vec![TextLoss::default(); counted.len()];
    let mut losses = Losses { nll: nothing.clone(), kl: nothing };
    let predicts = |piece: &Piece| piece.tree.num_positions() > 0;
    let (pieces, empty): (Vec<Piece>, Vec<Piece>) = pieces(groups, context).into_iter().partition(predicts);
    progress.advance(empty.iter().map(|piece| piece.completes).sum())?;
    let lengths: Vec<usize> = pieces.iter().map(|piece| piece.tree.num_positions()).collect();
    for batch in batches(&lengths, BATCH_TOKENS) {
        let batch: Vec<&Piece> = batch.into_iter().map(|piece| &pieces[piece]).collect();
        measure_batch::<B, K>(model, &batch, &counted, against, context, &mut losses)?;
        progress.advance(batch.iter().map(|piece| piece.completes).sum())?;
    }
    Ok(losses)
}

/// Adds what one forward pass tells to `losses`; `counted` are the tokens that count of all texts.
fn measure_batch<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    batch: &[&Piece],
    counted: &[&Range<usize>],
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
    let counts = |target: &&Target| {
        let (text, start) = texts[target.document];
        counted[text].contains(&(start + target.index))
    };
    let targets: Vec<&Target> = rows.targets.iter().filter(counts).collect();
    if targets.is_empty() {
        return Ok(());
    }
    let hidden = at_positions(model.hidden::<K>(&rows)?, targets.iter().map(|target| target.position));
    let of_targets = targets.iter().map(|target| texts[target.document].0);
    add(&mut losses.nll, of_targets.clone(), nll::<B, K>(model, &hidden, &targets));
    let windows: Vec<&[u32]> = trees.iter().map(|tree| tree.trunk).collect();
    add(&mut losses.kl, of_targets, against.divergence::<K>(model, hidden, &windows, context)?);
    Ok(())
}

/// Adds a value of each target to the loss of its text.
fn add(losses: &mut [TextLoss], texts: impl Iterator<Item = usize>, values: Vec<f32>) {
    for (text, value) in texts.zip(values) {
        losses[text].sum += f64::from(value);
        losses[text].tokens += 1;
    }
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
