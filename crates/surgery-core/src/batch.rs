//! Documents to rows: windows of long documents, packed into rows without padding between them.
//!
//! A document is encoded, split into windows where it is longer than the context, and its windows are
//! placed in rows of equal length. A window sees only itself, whatever stands beside it in its row. Texts that
//! begin alike may share their beginning: it stands in their row once, and each text's own tokens see it.

use std::ops::Range;

/// A contiguous piece of a document that stands in a row by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The document, by its position in the list that was packed; the first of those that share it.
    pub document: usize,
    /// The row it stands in.
    pub row: usize,
    /// Its columns there.
    pub columns: Range<usize>,
    /// The columns of its row that it continues and sees, besides its own; empty for a text by itself.
    pub past: Range<usize>,
}

/// A token to be predicted, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The position that predicts, in the flattened `[rows * columns]`.
    pub position: usize,
    /// The token that should follow there.
    pub token: u32,
    /// The document, by its position in the list that was packed.
    pub document: usize,
    /// Which token of the document it is; the first of a document is never predicted.
    pub index: usize,
}

/// Texts that begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree<'a> {
    /// What all of them begin with.
    pub trunk: &'a [u32],
    /// How each of them goes on from there.
    pub branches: Vec<&'a [u32]>,
}

/// Token ids in rows of equal length, `[rows, columns]`.
#[derive(Debug, Clone)]
pub struct Rows {
    /// Row-major; positions that belong to no segment hold token 0.
    pub tokens: Vec<u32>,
    /// Number of rows.
    pub rows: usize,
    /// Length of each row.
    pub columns: usize,
    /// What stands where.
    pub segments: Vec<Segment>,
    /// Every token that is predicted, in the order of documents and of their tokens.
    pub targets: Vec<Target>,
}

/// The windows of a document of `length` tokens in a context of `context`: each begins with the last token
/// of the one before, so that every token but the first is predicted exactly once.
pub fn windows(length: usize, context: usize) -> Vec<Range<usize>> {
    assert!(context >= 2, "a window must hold a token and the one it predicts");
    let mut windows = Vec::new();
    let mut start = 0;
    while start + 1 < length {
        let end = (start + context).min(length);
        windows.push(start..end);
        start = end - 1;
    }
    if windows.is_empty() && length == 1 {
        windows.push(0..1);
    }
    windows
}

/// Input tokens of one forward pass without a gradient, unless a single piece has more.
pub const BATCH_TOKENS: usize = 2048;

/// Batches of pieces of these lengths, each as the pieces' indices: at most `most` tokens, unless a single piece
/// has more. The longest come first, so that the pieces of a batch are of similar length and fill its rows.
pub fn batches(lengths: &[usize], most: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&piece| std::cmp::Reverse(lengths[piece]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for piece in order {
        tokens += lengths[piece];
        match batches.last_mut() {
            Some(batch) if tokens <= most => batch.push(piece),
            _ => {
                tokens = lengths[piece];
                batches.push(vec![piece]);
            }
        }
    }
    batches
}

impl<'a> Tree<'a> {
    /// These texts, with the longest beginning that all of them share. It is found in their tokens: the tokens
    /// of a question alone need not be those that a question with an option begins with.
    pub fn of(texts: &[&'a [u32]]) -> Self {
        let first: &'a [u32] = texts.first().copied().unwrap_or_default();
        let shared_with = |other: &&[u32]| first.iter().zip(*other).take_while(|(a, b)| a == b).count();
        let shared = texts.iter().map(shared_with).min().unwrap_or(0);
        Self { trunk: &first[..shared], branches: texts.iter().map(|text| &text[shared..]).collect() }
    }

    /// The positions that it takes in a row.
    pub fn num_positions(&self) -> usize {
        self.trunk_positions() + self.branches.iter().map(|branch| branch_positions(branch)).sum::<usize>()
    }

    /// The trunk's last token predicts something only where a text goes on after it.
    fn trunk_positions(&self) -> usize {
        let goes_on = self.branches.iter().any(|branch| !branch.is_empty());
        if goes_on { self.trunk.len() } else { self.trunk.len().saturating_sub(1) }
    }
}

/// The last token of a text predicts nothing.
fn branch_positions(branch: &[u32]) -> usize {
    branch.len().saturating_sub(1)
}

impl Rows {
    /// Packs `documents` (token ids), split into windows of at most `context` tokens, into rows as long as the
    /// longest window, or one after the other into `one_row`.
    pub fn pack<D: AsRef<[u32]>>(documents: &[D], context: usize, one_row: bool) -> Self {
        let mut pieces: Vec<(usize, Range<usize>)> = Vec::new();
        for (document, tokens) in documents.iter().enumerate() {
            let windows = windows(tokens.as_ref().len(), context);
            pieces.extend(windows.into_iter().map(|window| (document, window)));
        }
        let lengths: Vec<usize> = pieces.iter().map(|(_, window)| window.len()).collect();
        let (mut packed, places) = Self::empty(&lengths, one_row);
        for ((document, window), (row, column)) in pieces.into_iter().zip(places) {
            let tokens = &documents[document].as_ref()[window.clone()];
            let columns = column..column + tokens.len();
            let start = row * packed.columns + column;
            packed.targets.extend(tokens.iter().enumerate().skip(1).map(|(offset, &token)| Target {
                position: start + offset - 1,
                token,
                document,
                index: window.start + offset,
            }));
            packed.put(Segment { document, row, columns, past: 0..0 }, tokens);
        }
        packed
    }

    /// Packs `trees`, each in one row: rows as long as the longest tree, or one after the other into `one_row`.
    /// The documents are the trees' texts, tree by tree. Only tokens that predict another take a position, so the
    /// last of a text takes none.
    pub fn pack_trees(trees: &[Tree], one_row: bool) -> Self {
        let lengths: Vec<usize> = trees.iter().map(Tree::num_positions).collect();
        let (mut packed, places) = Self::empty(&lengths, one_row);
        let mut document = 0;
        for (tree, (row, column)) in trees.iter().zip(places) {
            let trunk = column..column + tree.trunk_positions();
            packed.put(Segment { document, row, columns: trunk.clone(), past: 0..0 }, tree.trunk);
            let mut end = trunk.end;
            for branch in &tree.branches {
                let columns = end..end + branch_positions(branch);
                end = columns.end;
                packed.predict(tree.trunk, branch, [trunk.start, columns.start], row, document);
                packed.put(Segment { document, row, columns, past: trunk.clone() }, branch);
                document += 1;
            }
        }
        packed
    }

    /// Rows for pieces of these lengths, with nothing in them yet, and the row and column at which each piece
    /// begins.
    fn empty(lengths: &[usize], one_row: bool) -> (Self, Vec<(usize, usize)>) {
        let longest = lengths.iter().max().copied().unwrap_or(0);
        let columns = if one_row { lengths.iter().sum() } else { longest };
        let columns = columns.max(1);

        // First fit, longest first: within a few per cent of the least number of rows.
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

    /// Puts the first of `tokens` into the segment's columns.
    fn put(&mut self, segment: Segment, tokens: &[u32]) {
        let count = segment.columns.len();
        if count > 0 {
            let start = segment.row * self.columns + segment.columns.start;
            self.tokens[start..start + count].copy_from_slice(&tokens[..count]);
            self.segments.push(segment);
        }
    }

    /// Adds the targets of a text whose trunk and branch begin at these columns.
    fn predict(
        &mut self,
        trunk: &[u32],
        branch: &[u32],
        [of_trunk, of_branch]: [usize; 2],
        row: usize,
        document: usize,
    ) {
        let start = row * self.columns;
        let position = |index: usize| match index < trunk.len() {
            true => start + of_trunk + index,
            false => start + of_branch + index - trunk.len(),
        };
        let tokens = trunk.iter().chain(branch).enumerate().skip(1);
        let target = |(index, &token)| Target { position: position(index - 1), token, document, index };
        self.targets.extend(tokens.map(target));
    }

    /// The number of tokens that stand in segments: padding left out.
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
                let document: Vec<u32> = (100..100 + length as u32).collect();
                let rows = Rows::pack(&[&document], context, false);
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
            let rows = Rows::pack(&documents, 64, one_row);
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

    /// The texts of a tree, with beginnings of all kinds: none, one token, everything.
    fn texts(shared: usize, ends: &[usize]) -> Vec<Vec<u32>> {
        let text = |(number, &end): (usize, &usize)| {
            let own = 0..end as u32;
            (0..shared as u32).chain(own.map(|token| 1000 * (number as u32 + 1) + token)).collect()
        };
        ends.iter().enumerate().map(text).collect()
    }

    #[test]
    fn every_target_of_a_tree_sees_its_text_and_nothing_else() {
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
        let trees: Vec<Tree> = groups
            .iter()
            .map(|texts| Tree::of(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>()))
            .collect();
        assert_eq!(trees[0].trunk.len(), 5);
        assert_eq!(trees[4].trunk.len(), 6);
        let documents: Vec<&Vec<u32>> = groups.iter().flatten().collect();
        for one_row in [false, true] {
            let rows = Rows::pack_trees(&trees, one_row);
            let mut targets = rows.targets.iter();
            for (document, text) in documents.iter().enumerate() {
                for index in 1..text.len() {
                    let target = targets.next().unwrap();
                    assert_eq!((target.document, target.index, target.token), (document, index, text[index]));
                    assert_eq!(seen(&rows, target.position), text[..index]);
                }
            }
            assert!(targets.next().is_none());
            assert_eq!(rows.num_tokens(), trees.iter().map(Tree::num_positions).sum::<usize>());
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
    fn batches_hold_every_piece_once_and_are_bounded() {
        let lengths = [3, 90, 7, 7, 20, 1, 64, 0];
        let batches = batches(&lengths, 64);
        let mut pieces: Vec<usize> = batches.concat();
        pieces.sort_unstable();
        assert_eq!(pieces, (0..lengths.len()).collect::<Vec<_>>());
        for batch in &batches {
            let tokens: usize = batch.iter().map(|&piece| lengths[piece]).sum();
            assert!(tokens <= 64 || batch.len() == 1);
        }
        assert_eq!(batches[0], [1]);
    }
}
