//! The batches of a step, each of which is one forward pass.

use super::{Sequence, StepDocuments};
use crate::batch::{Rows, Window, batches as divide};

/// Windows of one forward pass.
pub(crate) struct Batch<'a> {
    pub(crate) windows: Vec<Window<'a>>,
    /// The sequence of each window, and the index of the window's first predicted token among those of the sequence.
    from: Vec<(usize, usize)>,
}

/// A predicted token of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The sequence.
    pub(crate) sequence: usize,
    /// The token's index among the predicted tokens of its sequence.
    pub(crate) number: usize,
    /// The position that predicts it, in the flattened rows.
    pub(crate) position: usize,
    /// The token.
    pub(crate) token: u32,
}

/// The windows of all sequences, in batches of at most `step.batch_tokens` tokens.
pub(crate) fn batches<'a>(sequences: &[Sequence<'a>], step: &StepDocuments) -> Vec<Batch<'a>> {
    let (mut windows, mut from) = (Vec::new(), Vec::new());
    for (number, sequence) in sequences.iter().enumerate() {
        let mut first = 0;
        for window in Window::of(sequence.example, step.context) {
            windows.push(window);
            from.push((number, first));
            first += window.predicted().count();
        }
    }
    let divided = divide(&Window::lengths(&windows), step.batch_tokens);
    let batch = |indices: Vec<usize>| Batch {
        windows: indices.iter().map(|&index| windows[index]).collect(),
        from: indices.iter().map(|&index| from[index]).collect(),
    };
    divided.into_iter().map(batch).collect()
}

/// For each document of the step, whether it is in several batches, its alternative included.
pub(super) fn are_divided(batches: &[Batch], sequences: &[Sequence], documents: usize) -> Vec<bool> {
    let mut only = vec![None; documents];
    let mut divided = vec![false; documents];
    for (number, batch) in batches.iter().enumerate() {
        for &(sequence, _) in &batch.from {
            let document = sequences[sequence].document;
            divided[document] |= *only[document].get_or_insert(number) != number;
        }
    }
    divided
}

impl<'a> Batch<'a> {
    /// Its predicted tokens, in the order of the targets of its packed `rows`.
    pub(crate) fn places(&self, rows: &Rows) -> Vec<Place> {
        let (mut places, mut last, mut number) = (Vec::with_capacity(rows.targets.len()), None, 0);
        for target in &rows.targets {
            let (sequence, first) = self.from[target.text];
            number = if last == Some(target.text) { number + 1 } else { first };
            last = Some(target.text);
            places.push(Place { sequence, number, position: target.position, token: target.token });
        }
        places
    }

    /// The windows of the sequences that `is_wanted` accepts.
    pub(crate) fn windows_of(&self, is_wanted: impl Fn(usize) -> bool) -> Vec<Window<'a>> {
        let windows = self.windows.iter().zip(&self.from);
        windows.filter(|(_, (sequence, _))| is_wanted(*sequence)).map(|(window, _)| *window).collect()
    }
}
