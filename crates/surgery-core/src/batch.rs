//! Documents to rows: windows of long documents, packed into rows without padding between them.
//!
//! A document is encoded, split into windows where it is longer than the context, and its windows are
//! placed in rows of equal length. A window sees only itself, whatever stands beside it in its row.

use std::ops::Range;

/// A contiguous piece of a document that stands in a row by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The document, by its position in the list that was packed.
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

impl Rows {
    /// Packs `documents` (token ids), split into windows of at most `context` tokens, into rows as long as the
    /// longest window, or one after the other into `one_row`.
    pub fn pack<D: AsRef<[u32]>>(documents: &[D], context: usize, one_row: bool) -> Self {
        struct Piece {
            document: usize,
            window: Range<usize>,
        }
        let mut pieces: Vec<Piece> = Vec::new();
        for (document, tokens) in documents.iter().enumerate() {
            let windows = windows(tokens.as_ref().len(), context);
            pieces.extend(windows.into_iter().map(|window| Piece { document, window }));
        }
        let lengths = pieces.iter().map(|piece| piece.window.len());
        let columns = if one_row { lengths.sum() } else { lengths.max().unwrap_or(0) };
        let columns = columns.max(1);

        // First fit, longest first: within a few per cent of the least number of rows.
        let mut order: Vec<usize> = (0..pieces.len()).collect();
        order.sort_by_key(|&piece| std::cmp::Reverse(pieces[piece].window.len()));
        let mut filled: Vec<usize> = Vec::new();
        let mut places = vec![(0, 0); pieces.len()];
        for piece in order {
            let length = pieces[piece].window.len();
            let row = filled.iter().position(|used| used + length <= columns).unwrap_or_else(|| {
                filled.push(0);
                filled.len() - 1
            });
            places[piece] = (row, filled[row]);
            filled[row] += length;
        }

        let rows = filled.len();
        let mut tokens = vec![0; rows * columns];
        let mut segments = Vec::with_capacity(pieces.len());
        let mut targets = Vec::new();
        for (piece, &(row, column)) in pieces.iter().zip(&places) {
            let window = &documents[piece.document].as_ref()[piece.window.clone()];
            let start = row * columns + column;
            tokens[start..start + window.len()].copy_from_slice(window);
            targets.extend(window.iter().enumerate().skip(1).map(|(offset, &token)| Target {
                position: start + offset - 1,
                token,
                document: piece.document,
                index: piece.window.start + offset,
            }));
            let columns = column..column + window.len();
            segments.push(Segment { document: piece.document, row, columns, past: 0..0 });
        }
        Self { tokens, rows, columns, segments, targets }
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
}
