//! The losses of the options of questions. The model runs once over the prefix that the options of a question share.

use std::ops::Range;

use burn::tensor::backend::Backend;

use super::{OptionLoss, Progress, TextLoss};
use crate::batch::{BATCH_TOKENS, PrefixGroup, Rows, Target, batches};
use crate::config::LlamaConfig;
use crate::data::{EncodedOption, EncodedQuestion, ScoredText};
use crate::error::Result;
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::tensors::at_positions;
use crate::token_nll::nll_of_states;

/// A text, and the ranges of its tokens whose losses are wanted.
struct Counted<'a> {
    tokens: &'a [u32],
    ranges: Vec<Range<usize>>,
    /// The index of its first range among the ranges of all texts.
    first: usize,
    /// Number of options that are complete once it is measured.
    completes: usize,
}

/// The texts of each question. An option has one text for both rules, or one for each rule if the tokens differ. A text
/// longer than the model's context loses its beginning, as in lm-evaluation-harness: the last token is predicted from as
/// many tokens as the context has.
fn texts_of<'a>(questions: &'a [EncodedQuestion], config: &LlamaConfig) -> Vec<Vec<Counted<'a>>> {
    let most = config.max_position_embeddings;
    let cut = |text: &'a ScoredText| {
        let end = text.scored.end;
        let start = end.saturating_sub(most.saturating_add(1));
        let first = text.scored.start.max(start + 1);
        (&text.tokens[start..end], first - start..end - start)
    };
    let mut first = 0;
    let mut counted = |tokens, ranges: Vec<Range<usize>>, completes| {
        first += ranges.len();
        Counted { tokens, first: first - ranges.len(), ranges, completes }
    };
    let mut of_option = |option: &'a EncodedOption| {
        let ((paper, in_paper), (harness, in_harness)) = (cut(&option.paper), cut(&option.harness));
        let (longer, shorter) = if paper.len() > harness.len() { (paper, harness) } else { (harness, paper) };
        match longer.starts_with(shorter) {
            true => vec![counted(longer, vec![in_paper, in_harness], 1)],
            false => vec![counted(paper, vec![in_paper], 0), counted(harness, vec![in_harness], 1)],
        }
    };
    questions.iter().map(|question| question.options.iter().flat_map(&mut of_option).collect()).collect()
}

/// Texts of one forward pass, with the prefix that they share.
struct Piece<'a> {
    group: PrefixGroup<'a>,
    texts: Vec<Counted<'a>>,
}

/// Groups the options of each question, unless a group takes more positions than a batch and than its longest option.
fn pieces<'a>(questions: Vec<Vec<Counted<'a>>>) -> Vec<Piece<'a>> {
    let of_texts = |texts: Vec<Counted<'a>>| {
        let tokens: Vec<&[u32]> = texts.iter().map(|text| text.tokens).collect();
        let longest = tokens.iter().map(|tokens| tokens.len()).max().unwrap_or(0);
        let group = PrefixGroup::of(&tokens);
        if group.num_positions() <= longest.max(BATCH_TOKENS) {
            return vec![Piece { group, texts }];
        }
        let alone = |text: Counted<'a>| Piece { group: PrefixGroup::of(&[text.tokens]), texts: vec![text] };
        texts.into_iter().map(alone).collect::<Vec<_>>()
    };
    questions.into_iter().flat_map(of_texts).collect()
}

/// Number of positions of the forward passes for `questions` with a model of this shape.
pub(super) fn num_positions(questions: &[EncodedQuestion], config: &LlamaConfig) -> usize {
    pieces(texts_of(questions, config)).iter().map(|piece| piece.group.num_positions()).sum()
}

/// Number of input tokens of the longest option of `questions`.
pub(super) fn longest(questions: &[EncodedQuestion], config: &LlamaConfig) -> usize {
    let texts = texts_of(questions, config);
    texts.iter().flatten().map(|text| text.tokens.len().saturating_sub(1)).max().unwrap_or(0)
}

/// The losses of each option, question by question.
pub(super) fn measure<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    questions: &[EncodedQuestion],
    progress: &mut Progress,
) -> Result<Vec<Vec<OptionLoss>>> {
    let options = questions.iter().map(|question| question.options.len()).sum::<usize>();
    let mut losses = vec![TextLoss::default(); 2 * options];
    let pieces = pieces(texts_of(questions, model.config()));
    let lengths: Vec<usize> = pieces.iter().map(|piece| piece.group.num_positions()).collect();
    for batch in batches(&lengths, BATCH_TOKENS) {
        let groups: Vec<PrefixGroup> = batch.iter().map(|&piece| pieces[piece].group.clone()).collect();
        let texts: Vec<&Counted> = batch.iter().flat_map(|&piece| &pieces[piece].texts).collect();
        measure_batch::<B, K>(model, &groups, &texts, &mut losses)?;
        progress.advance(texts.iter().map(|text| text.completes).sum())?;
    }
    let mut losses = losses.as_chunks::<2>().0.iter().map(|&[paper, harness]| OptionLoss { paper, harness });
    Ok(questions.iter().map(|question| losses.by_ref().take(question.options.len()).collect()).collect())
}

/// Adds the losses of one forward pass to `losses`.
fn measure_batch<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    groups: &[PrefixGroup],
    texts: &[&Counted],
    losses: &mut [TextLoss],
) -> Result<()> {
    let rows = Rows::pack_groups(groups, K::ONE_ROW);
    let wanted =
        |target: &&Target| texts[target.text].ranges.iter().any(|range| range.contains(&target.index));
    let targets: Vec<&Target> = rows.targets.iter().filter(wanted).collect();
    if targets.is_empty() {
        return Ok(());
    }
    let hidden = at_positions(model.hidden::<K>(&rows)?, targets.iter().map(|target| target.position));
    let tokens: Vec<u32> = targets.iter().map(|target| target.token).collect();
    let nll = nll_of_states::<B, K>(&hidden, &model.head(), &tokens);
    for (target, value) in targets.into_iter().zip(nll) {
        let text = texts[target.text];
        for (number, range) in text.ranges.iter().enumerate() {
            if range.contains(&target.index) {
                losses[text.first + number].add(value);
            }
        }
    }
    Ok(())
}
