//! Where each token of a batch stands: its rotation, and which keys it may see.

use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::batch::Rows;
use crate::config::LlamaConfig;
use crate::error::{Error, Result};

/// What rope and attention need to know about the tokens of a batch.
#[derive(Debug, Clone)]
pub struct Placement<B: Backend> {
    layout: Arc<Layout>,
    device: B::Device,
    // Made when a backend first asks: one with kernels of its own has no use for them.
    cos: OnceCell<Tensor<B, 4>>,
    sin: OnceCell<Tensor<B, 4>>,
    mask: OnceCell<Tensor<B, 4, Bool>>,
    sight: OnceCell<Tensor<B, 2, Int>>,
}

/// Which token stands where, on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Rows of the batch, and queries and keys of each.
    rows: usize,
    columns: usize,
    keys: usize,
    /// Stretches of tokens that see one another. A position outside all of them is padding.
    pub spans: Vec<Span>,
    /// The place of each query in its text, from 0; 0 for padding. `[rows * columns]`
    pub positions: Vec<usize>,
    /// The first place that occurs among them.
    first: usize,
    /// Cosine and sine of the angles of each place from the first that occurs to the last, `[places, head_dim / 2]`.
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// Values of a head.
    pub head_dim: usize,
}

/// A stretch of tokens: query i of it sees its keys up to i, and all of its past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Among the queries of all rows.
    pub queries: Range<usize>,
    /// The same tokens among the keys of all rows.
    pub keys: Range<usize>,
    /// Keys before them, which they continue; empty for a text by itself.
    pub past: Range<usize>,
}

impl<B: Backend> Placement<B> {
    /// For packed rows: every segment sees itself, causally, and what it continues.
    pub fn packed(rows: &Rows, config: &LlamaConfig, device: &B::Device) -> Result<Self> {
        let at = |row: usize, columns: &Range<usize>| {
            row * rows.columns + columns.start..row * rows.columns + columns.end
        };
        let span = |segment: &crate::batch::Segment| Span {
            queries: at(segment.row, &segment.columns),
            keys: at(segment.row, &segment.columns),
            past: at(segment.row, &segment.past),
        };
        let spans = rows.segments.iter().map(span).collect();
        Self::new([rows.rows, rows.columns, rows.columns], spans, config, device)
    }

    /// For texts that go on, one a row: `count` tokens of each after `past` that are in a cache already.
    pub fn continued(
        [rows, past, count]: [usize; 3],
        config: &LlamaConfig,
        device: &B::Device,
    ) -> Result<Self> {
        let span = |row: usize| {
            let keys = row * (past + count);
            Span {
                queries: row * count..(row + 1) * count,
                keys: keys + past..keys + past + count,
                past: keys..keys + past,
            }
        };
        Self::new([rows, count, past + count], (0..rows).map(span).collect(), config, device)
    }

    fn new(
        [rows, columns, keys]: [usize; 3],
        spans: Vec<Span>,
        config: &LlamaConfig,
        device: &B::Device,
    ) -> Result<Self> {
        let mut positions = vec![0; rows * columns];
        for span in &spans {
            for (offset, position) in positions[span.queries.clone()].iter_mut().enumerate() {
                *position = span.past.len() + offset;
            }
        }
        let first = positions.iter().min().copied().unwrap_or(0);
        let end = positions.iter().max().map_or(0, |last| last + 1);
        config.check_length(end)?;
        let frequencies = config.rope.frequencies(config.head_dim);
        // As transformers does: the angle is a product of f32s. A text that goes on asks for its new places only.
        let angles = || (first..end).flat_map(|place| frequencies.iter().map(move |f| place as f32 * f));
        let (cos, sin) = (angles().map(f32::cos).collect(), angles().map(f32::sin).collect());
        let head_dim = config.head_dim;
        let layout = Layout { rows, columns, keys, spans, positions, first, cos, sin, head_dim };
        Ok(Self {
            layout: Arc::new(layout),
            device: device.clone(),
            cos: OnceCell::new(),
            sin: OnceCell::new(),
            mask: OnceCell::new(),
            sight: OnceCell::new(),
        })
    }

    /// Which token stands where.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Values of a head.
    pub fn head_dim(&self) -> usize {
        self.layout.head_dim
    }

    /// Cosine of each position's angles, `[rows, columns, 1, head_dim / 2]`.
    pub fn cos(&self) -> Tensor<B, 4> {
        self.cos.get_or_init(|| self.angles(|(cos, _)| cos)).clone()
    }

    /// Sine of each position's angles, `[rows, columns, 1, head_dim / 2]`.
    pub fn sin(&self) -> Tensor<B, 4> {
        self.sin.get_or_init(|| self.angles(|(_, sin)| sin)).clone()
    }

    fn angles<'a>(&'a self, part: impl Fn((&'a [f32], &'a [f32])) -> &'a [f32]) -> Tensor<B, 4> {
        let Layout { rows, columns, head_dim, positions, .. } = &*self.layout;
        let values: Vec<f32> =
            positions.iter().flat_map(|&place| part(self.layout.angles(place))).copied().collect();
        Tensor::from_data(TensorData::new(values, [*rows, *columns, 1, head_dim / 2]), &self.device)
    }

    /// What each query sees, as numbers of the keys of all rows, `[rows * columns, 5]`: from the first to the second,
    /// which are its past, and from the third to the fourth, its text so far. The fifth is where its text ends among
    /// the queries. Padding sees itself.
    pub fn sight(&self) -> Tensor<B, 2, Int> {
        let sight = || {
            let values = self.layout.sight();
            let count = values.len() / 5;
            Tensor::from_data(TensorData::new(values, [count, 5]), &self.device)
        };
        self.sight.get_or_init(sight).clone()
    }

    /// True where a query may not see a key, `[rows, 1, columns, keys]`. Padding sees itself, so that its
    /// softmax is defined.
    pub fn mask(&self) -> Tensor<B, 4, Bool> {
        self.mask.get_or_init(|| self.hidden()).clone()
    }

    fn hidden(&self) -> Tensor<B, 4, Bool> {
        let Layout { rows, columns, keys, spans, .. } = &*self.layout;
        let mut hidden = vec![true; rows * columns * keys];
        for query in 0..rows * columns {
            hidden[query * keys + query % columns] = false;
        }
        for span in spans {
            let first = span.queries.start / columns * keys;
            for (offset, query) in span.queries.clone().enumerate() {
                let row = &mut hidden[query * keys..(query + 1) * keys];
                // For keys that are not its own, a query's own column means nothing.
                row[query % columns] = true;
                row[span.past.start - first..span.past.end - first].fill(false);
                row[span.keys.start - first..=span.keys.start - first + offset].fill(false);
            }
        }
        Tensor::from_data(TensorData::new(hidden, [*rows, 1, *columns, *keys]), &self.device)
    }
}

impl Layout {
    /// Whether no text continues what came before: every span's keys are its queries.
    pub fn is_fresh(&self) -> bool {
        self.columns == self.keys && self.spans.iter().all(|span| span.past.is_empty())
    }

    /// Cosine and sine of the angles of a place that occurs, `[head_dim / 2]` each.
    pub fn angles(&self, place: usize) -> (&[f32], &[f32]) {
        let half = self.head_dim / 2;
        let values = (place - self.first) * half..(place - self.first + 1) * half;
        (&self.cos[values.clone()], &self.sin[values])
    }

    /// As [`Placement::sight`].
    fn sight(&self) -> Vec<i32> {
        let Self { rows, columns, keys, spans, .. } = self;
        let mut sight = vec![[0; 5]; rows * columns];
        for (query, seen) in sight.iter_mut().enumerate() {
            // Padding sees itself.
            let key = query / columns * keys + query % columns;
            *seen = [key, key, key, key + 1, query + 1];
        }
        for Span { queries, keys, past } in spans {
            for (offset, seen) in sight[queries.clone()].iter_mut().enumerate() {
                let first = keys.start;
                let past = if past.is_empty() { first..first } else { past.clone() };
                *seen = [past.start, past.end, first, first + offset + 1, queries.end];
            }
        }
        sight.into_iter().flatten().map(|value| value as i32).collect()
    }
}

impl LlamaConfig {
    /// Refuses a text that is longer than the model's sliding window, which is not supported.
    pub fn check_length(&self, length: usize) -> Result<()> {
        match self.sliding_window {
            Some(window) if length > window => Err(Error::Config {
                path: "the model's config.json".into(),
                key: "sliding_window".into(),
                found: format!("{window} while a text has {length} tokens"),
                expected:
                    "a window at least as long as the text: shorter ones are not supported; split the text"
                        .into(),
            }),
            _ => Ok(()),
        }
    }
}
