//! A document as token ids, and which of them are predicted.

use std::ops::Range;

/// A document as a model reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Example {
    /// Its token ids, special tokens included.
    pub tokens: Vec<u32>,
    /// Which of its tokens are predicted: ascending, disjoint ranges of indices; never the first token.
    pub predicted: Vec<Range<usize>>,
    /// What a preference loss prefers to it: the same beginning with other ends, in the order of the data.
    pub alternatives: Vec<Example>,
}

impl Example {
    /// A text: every token but the first is predicted.
    pub fn of_text(tokens: Vec<u32>) -> Self {
        let predicted = if tokens.len() > 1 { vec![1..tokens.len()] } else { Vec::new() };
        Self { tokens, predicted, alternatives: Vec::new() }
    }

    /// How many of its tokens are predicted.
    pub fn num_predicted(&self) -> usize {
        self.predicted.iter().map(Range::len).sum()
    }

    /// The number of its tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether it has no token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}
