//! Windows of documents, in batches, packed into rows without padding between them.
//!
//! A document longer than the context is split into windows. A window sees only itself, not its neighbours in the row.
//! Texts with a common prefix may share it: the row contains the prefix once, and each text's suffix sees it.
//! [`batches`] divides windows or prefix groups into forward passes of a bounded number of tokens. Training, evaluation,
//! bounds, activations and the reference use it.

use std::ops::Range;

use crate::data::{Example, windows};

/// A window of a document: consecutive tokens of one forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window<'a> {
    /// The document.
    pub example: &'a Example,
    /// The index of its first token in the document.
    pub start: usize,
    /// One past the index of its last token.
    pub end: usize,
}

impl<'a> Window<'a> {
    /// The windows of `example`, of at most `context` tokens. Each begins with the last token of the one before, so that
    /// every predicted token is predicted once. Windows without a predicted token are left out.
    pub fn of(example: &'a Example, context: usize) -> impl Iterator<Item = Self> {
        let all = windows(example.len(), context).into_iter();
        let all = all.map(move |range| Self { example, start: range.start, end: range.end });
        all.filter(|window| window.predicted().next().is_some())
    }

    /// The windows of all `examples`, in their order.
    pub fn of_all(examples: impl IntoIterator<Item = &'a Example>, context: usize) -> Vec<Self> {
        examples.into_iter().flat_map(|example| Self::of(example, context)).collect()
    }

    /// Its token ids.
    pub fn tokens(&self) -> &'a [u32] {
        &self.example.tokens[self.start..self.end]
    }

    /// The document indices of the tokens that the window predicts.
    pub fn predicted(&self) -> impl Iterator<Item = usize> + use<'a> {
        let (first, end) = (self.start + 1, self.end);
        let ranges = self.example.predicted.iter();
        ranges.flat_map(move |range| range.start.max(first)..range.end.min(end))
    }

    /// Number of tokens.
    #[allow(clippy::len_without_is_empty, reason = "a window holds at least two tokens")]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// The length of each window.
    pub fn lengths(windows: &[Self]) -> Vec<usize> {
        windows.iter().map(Self::len).collect()
    }
}

/// Consecutive tokens of a text in consecutive columns of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The text's position in the packed list; for a shared prefix, that of the first text.
    pub text: usize,
    /// Its row.
    pub row: usize,
    /// Its columns in the row.
    pub columns: Range<usize>,
    /// The columns of the prefix that it continues and sees; empty if there is none.
    pub past: Range<usize>,
}

/// A predicted token and the position that predicts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The position that predicts the token, in the flattened `[rows * columns]`.
    pub position: usize,
    /// The predicted token.
    pub token: u32,
    /// The position of the window or text in the packed list.
    pub text: usize,
    /// The token's index, in the document of a window or in the text of a group; never 0.
    pub index: usize,
}

/// Texts with a common prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixGroup<'a> {
    /// The common prefix.
    pub prefix: &'a [u32],
    /// The rest of each text.
    pub suffixes: Vec<&'a [u32]>,
}

/// Token ids in rows of equal length, `[rows, columns]`.
#[derive(Debug, Clone)]
pub struct Rows {
    /// Row-major; padding is token 0.
    pub tokens: Vec<u32>,
    /// Number of rows.
    pub rows: usize,
    /// Length of each row.
    pub columns: usize,
    /// The texts' places in the rows.
    pub segments: Vec<Segment>,
    /// Every predicted token, in the order of texts and of their tokens.
    pub targets: Vec<Target>,
}

/// Maximum number of input tokens of a forward pass without a gradient, unless a single window has more.
pub const BATCH_TOKENS: usize = 2048;

/// Divides texts of these lengths into batches of at most `most` tokens, unless a single text has more. A batch is the
/// texts' indices in ascending order. Texts of similar length share a batch, so that they fill its rows. The batch with
/// the longest text comes first. If all texts together have at most `most` tokens, there is one batch.
pub fn batches(lengths: &[usize], most: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&text| std::cmp::Reverse(lengths[text]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for text in order {
        tokens += lengths[text];
        match batches.last_mut() {
            Some(batch) if tokens <= most => batch.push(text),
            _ => {
                tokens = lengths[text];
                batches.push(vec![text]);
            }
        }
    }
    batches.iter_mut().for_each(|batch| batch.sort_unstable());
    batches
}

impl<'a> PrefixGroup<'a> {
    /// These texts, with the longest prefix that all of them share. It is found in their tokens, because a question
    /// alone may have other tokens than the beginning of the question with an option.
    pub fn of(texts: &[&'a [u32]]) -> Self {
        let first: &'a [u32] = texts.first().copied().unwrap_or_default();
        let shared_with = |other: &&[u32]| first.iter().zip(*other).take_while(|(a, b)| a == b).count();
        let shared = texts.iter().map(shared_with).min().unwrap_or(0);
        Self { prefix: &first[..shared], suffixes: texts.iter().map(|text| &text[shared..]).collect() }
    }

    /// Number of positions that it takes in a row.
    pub fn num_positions(&self) -> usize {
        self.prefix_positions() + self.suffixes.iter().map(|suffix| suffix_positions(suffix)).sum::<usize>()
    }

    /// The prefix's last token takes a position only if a text continues after it; otherwise it predicts nothing.
    fn prefix_positions(&self) -> usize {
        let continues = self.suffixes.iter().any(|suffix| !suffix.is_empty());
        if continues { self.prefix.len() } else { self.prefix.len().saturating_sub(1) }
    }
}

/// The last token of a text predicts nothing.
fn suffix_positions(suffix: &[u32]) -> usize {
    suffix.len().saturating_sub(1)
}

impl Rows {
    /// Packs windows into rows as long as the longest, or one after the other into `one_row`.
    pub fn pack(windows: &[Window], one_row: bool) -> Self {
        let (mut packed, places) = Self::empty(&Window::lengths(windows), one_row);
        for (text, (window, (row, column))) in windows.iter().zip(places).enumerate() {
            let tokens = window.tokens();
            let columns = column..column + tokens.len();
            let start = row * packed.columns + column;
            packed.targets.extend(window.predicted().map(|index| Target {
                position: start + index - window.start - 1,
                token: window.example.tokens[index],
                text,
                index,
            }));
            packed.put(Segment { text, row, columns, past: 0..0 }, tokens);
        }
        packed
    }

    /// Packs each prefix group into one row: rows as long as the longest group, or one after the other into `one_row`.
    /// Texts are numbered group by group. Each token of a text but the first is predicted. The last token of a text
    /// predicts nothing, so it takes no position.
    pub fn pack_groups(groups: &[PrefixGroup], one_row: bool) -> Self {
        let lengths: Vec<usize> = groups.iter().map(PrefixGroup::num_positions).collect();
        let (mut packed, places) = Self::empty(&lengths, one_row);
        let mut text = 0;
        for (group, (row, column)) in groups.iter().zip(places) {
            let prefix = column..column + group.prefix_positions();
            packed.put(Segment { text, row, columns: prefix.clone(), past: 0..0 }, group.prefix);
            let mut end = prefix.end;
            for suffix in &group.suffixes {
                let columns = end..end + suffix_positions(suffix);
                end = columns.end;
                packed.predict(group.prefix, suffix, [prefix.start, columns.start], row, text);
                packed.put(Segment { text, row, columns, past: prefix.clone() }, suffix);
                text += 1;
            }
        }
        packed
    }

    /// Empty rows for texts of these lengths, and the row and column at which each text begins.
    fn empty(lengths: &[usize], one_row: bool) -> (Self, Vec<(usize, usize)>) {
        let longest = lengths.iter().max().copied().unwrap_or(0);
        let columns = if one_row { lengths.iter().sum() } else { longest };
        let columns = columns.max(1);

        // First fit, longest first: within a few per cent of the minimum number of rows.
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&piece| std::cmp::Reverse(lengths[piece]));
        let mut filled: Vec<usize> = Vec::new();
        let mut places = vec![(0, 0); lengths.len()];
        for piece in order {
            let length = lengths[piece];
            let row = filled.iter().position(|used| used + length <= columns).unwrap_or_else(|| {
                filled.push(0);
                filled.len() - 1
            });
            places[piece] = (row, filled[row]);
            filled[row] += length;
        }
        let rows = filled.len();
        let tokens = vec![0; rows * columns];
        (Self { tokens, rows, columns, segments: Vec::new(), targets: Vec::new() }, places)
    }

    /// Writes the first of `tokens` into the segment's columns.
    fn put(&mut self, segment: Segment, tokens: &[u32]) {
        let count = segment.columns.len();
        if count > 0 {
            let start = segment.row * self.columns + segment.columns.start;
            self.tokens[start..start + count].copy_from_slice(&tokens[..count]);
            self.segments.push(segment);
        }
    }

    /// Adds the targets of a text whose prefix and suffix begin at these columns.
    fn predict(
        &mut self,
        prefix: &[u32],
        suffix: &[u32],
        [of_prefix, of_suffix]: [usize; 2],
        row: usize,
        text: usize,
    ) {
        let start = row * self.columns;
        let position = |index: usize| match index < prefix.len() {
            true => start + of_prefix + index,
            false => start + of_suffix + index - prefix.len(),
        };
        let tokens = prefix.iter().chain(suffix).enumerate().skip(1);
        let target = |(index, &token)| Target { position: position(index - 1), token, text, index };
        self.targets.extend(tokens.map(target));
    }

    /// Number of tokens without padding.
    pub fn num_tokens(&self) -> usize {
        self.segments.iter().map(|segment| segment.columns.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_but_the_first_is_predicted_once() {
        for length in 0..40 {
            for context in 2..12 {
                let example = Example::of_text((100..100 + length as u32).collect());
                let rows = Rows::pack(&Window::of_all([&example], context), false);
                let document = &example.tokens;
                let predicted: Vec<usize> = rows.targets.iter().map(|target| target.index).collect();
                assert_eq!(predicted, (1..length.max(1)).collect::<Vec<_>>());
                for target in &rows.targets {
                    assert_eq!(target.token, document[target.index]);
                    assert_eq!(rows.tokens[target.position], document[target.index - 1]);
                }
                assert!(rows.columns <= context);
            }
        }
    }

    #[test]
    fn segments_do_not_overlap_and_rows_are_full() {
        let documents: Vec<Vec<u32>> = (0..30).map(|i| vec![i; 3 + (i as usize * 7) % 20]).collect();
        for one_row in [false, true] {
            let examples: Vec<Example> = documents.iter().cloned().map(Example::of_text).collect();
            let rows = Rows::pack(&Window::of_all(&examples, 64), one_row);
            let mut times = vec![0; rows.tokens.len()];
            for segment in &rows.segments {
                let start = segment.row * rows.columns;
                times[start + segment.columns.start..start + segment.columns.end]
                    .iter_mut()
                    .for_each(|t| *t += 1);
            }
            assert!(times.iter().all(|&times| times <= 1));
            assert_eq!(times.iter().sum::<usize>(), rows.num_tokens());
            assert_eq!(rows.num_tokens(), documents.iter().map(Vec::len).sum::<usize>());
            let least = if one_row { 10 } else { 8 };
            assert!(rows.num_tokens() * 10 >= rows.tokens.len() * least, "more than a fifth is padding");
        }
    }

    /// The texts of a group that share `shared` tokens; `ends` are the lengths of their suffixes.
    fn texts(shared: usize, ends: &[usize]) -> Vec<Vec<u32>> {
        let text = |(number, &end): (usize, &usize)| {
            let own = 0..end as u32;
            (0..shared as u32).chain(own.map(|token| 1000 * (number as u32 + 1) + token)).collect()
        };
        ends.iter().enumerate().map(text).collect()
    }

    #[test]
    fn every_target_of_a_group_sees_its_text_and_nothing_else() {
        let groups = [
            texts(5, &[3, 1, 4]),
            texts(1, &[2, 2]),
            texts(0, &[3, 5, 1]),
            texts(6, &[0, 0, 0]),
            texts(6, &[0, 3, 0]),
            texts(1, &[0]),
            texts(0, &[0, 2]),
            texts(7, &[9]),
        ];
        let packed: Vec<PrefixGroup> = groups
            .iter()
            .map(|texts| PrefixGroup::of(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>()))
            .collect();
        assert_eq!(packed[0].prefix.len(), 5);
        assert_eq!(packed[4].prefix.len(), 6);
        let documents: Vec<&Vec<u32>> = groups.iter().flatten().collect();
        for one_row in [false, true] {
            let rows = Rows::pack_groups(&packed, one_row);
            let mut targets = rows.targets.iter();
            for (document, text) in documents.iter().enumerate() {
                for index in 1..text.len() {
                    let target = targets.next().unwrap();
                    assert_eq!((target.text, target.index, target.token), (document, index, text[index]));
                    assert_eq!(seen(&rows, target.position), text[..index]);
                }
            }
            assert!(targets.next().is_none());
            assert_eq!(rows.num_tokens(), packed.iter().map(PrefixGroup::num_positions).sum::<usize>());
            assert!(!one_row || rows.rows == 1);
        }
    }

    /// The tokens that a position sees, itself included.
    fn seen(rows: &Rows, position: usize) -> Vec<u32> {
        let (row, column) = (position / rows.columns, position % rows.columns);
        let holds = |segment: &&Segment| segment.row == row && segment.columns.contains(&column);
        let segment = rows.segments.iter().find(holds).expect("a target is predicted from a segment");
        let own = segment.columns.start..column + 1;
        segment.past.clone().chain(own).map(|column| rows.tokens[row * rows.columns + column]).collect()
    }

    #[test]
    fn batches_contain_every_text_once_and_are_bounded() {
        let lengths = [3, 90, 7, 7, 20, 1, 64, 0];
        let batches = batches(&lengths, 64);
        let mut texts: Vec<usize> = batches.concat();
        texts.sort_unstable();
        assert_eq!(texts, (0..lengths.len()).collect::<Vec<_>>());
        for batch in &batches {
            let tokens: usize = batch.iter().map(|&text| lengths[text]).sum();
            assert!(tokens <= 64 || batch.len() == 1);
        }
        assert_eq!(batches[0], [1]);
        assert_eq!(super::batches(&lengths, 192), [[0, 1, 2, 3, 4, 5, 6, 7]]);
    }

    #[test]
    fn only_predicted_tokens_are_targets() {
        let example =
            Example { tokens: (0..20).collect(), predicted: vec![7..9, 12..20], alternatives: Vec::new() };
        for context in 2..24 {
            let windows = Window::of_all([&example], context);
            let rows = Rows::pack(&windows, true);
            let predicted: Vec<usize> = rows.targets.iter().map(|target| target.index).collect();
            assert_eq!(predicted, [7, 8, 12, 13, 14, 15, 16, 17, 18, 19]);
            for target in &rows.targets {
                assert_eq!(rows.tokens[target.position] + 1, target.token);
            }
            assert!(windows.iter().all(|window| window.predicted().count() > 0));
        }
    }
}
