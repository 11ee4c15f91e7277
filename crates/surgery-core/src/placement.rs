//! Positions, RoPE tables and attention mask of a batch.

use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData};

use crate::batch::Rows;
use crate::config::LlamaConfig;
use crate::error::{Error, Result};

/// Positions, RoPE tables and attention mask of a batch's tokens.
#[derive(Debug, Clone)]
pub struct Placement<B: Backend> {
    layout: Arc<Layout>,
    device: B::Device,
    // Computed at first use: backends with their own kernels do not need these tensors.
    cos: OnceCell<Tensor<B, 4>>,
    sin: OnceCell<Tensor<B, 4>>,
    mask: OnceCell<Tensor<B, 4, Bool>>,
    sight: OnceCell<Tensor<B, 2, Int>>,
}

/// The layout of a batch on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Number of rows, of queries in a row, and of keys in a row.
    rows: usize,
    columns: usize,
    keys: usize,
    /// Spans of tokens that attend to one another. A position outside all spans is padding.
    pub spans: Vec<Span>,
    /// The position of each query in its text, from 0; 0 for padding. `[rows * columns]`
    pub positions: Vec<usize>,
    /// The lowest position that occurs.
    first: usize,
    /// Cosine and sine of the rotary angles for the positions from the lowest to the highest that occur, `[positions,
    /// head_dim / 2]`.
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// Size of a head.
    pub head_dim: usize,
}

/// A span of tokens. Query i of it attends to the span's keys up to i and to all of its past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Range in the queries of all rows.
    pub queries: Range<usize>,
    /// Range of the same tokens in the keys of all rows.
    pub keys: Range<usize>,
    /// Range of earlier keys of the same text; empty for a text without a past.
    pub past: Range<usize>,
}

impl<B: Backend> Placement<B> {
    /// For packed rows: every segment attends causally to itself and to its past.
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

    /// For continued texts, one a row: `count` new tokens each, after `past` tokens in the cache.
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
        // As in transformers, the angle is a product of f32s. Only the positions that occur are computed.
        let angles =
            || (first..end).flat_map(|position| frequencies.iter().map(move |f| position as f32 * f));
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

    /// The layout on the host.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Size of a head.
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

    /// The keys that each query attends to, as indices into the keys of all rows, `[rows * columns, 5]`: start and
    /// end of its past, start and end of its text so far. The fifth value is the end of its text in the queries.
    /// Padding attends to itself.
    pub fn sight(&self) -> Tensor<B, 2, Int> {
        let sight = || {
            let values = self.layout.sight();
            let count = values.len() / 5;
            Tensor::from_data(TensorData::new(values, [count, 5]), &self.device)
        };
        self.sight.get_or_init(sight).clone()
    }

    /// True where a query must not attend to a key, `[rows, 1, columns, keys]`. Padding attends to itself, so that
    /// its softmax is defined.
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
                // A span's keys need not start at the query's own column: clear that default first.
                row[query % columns] = true;
                row[span.past.start - first..span.past.end - first].fill(false);
                row[span.keys.start - first..=span.keys.start - first + offset].fill(false);
            }
        }
        Tensor::from_data(TensorData::new(hidden, [*rows, 1, *columns, *keys]), &self.device)
    }
}

impl Layout {
    /// Whether no span has a past, so that every span's keys are its queries.
    pub fn is_fresh(&self) -> bool {
        self.columns == self.keys && self.spans.iter().all(|span| span.past.is_empty())
    }

    /// Cosine and sine of the angles of a position that occurs, `[head_dim / 2]` each.
    pub fn angles(&self, place: usize) -> (&[f32], &[f32]) {
        let half = self.head_dim / 2;
        let values = (place - self.first) * half..(place - self.first + 1) * half;
        (&self.cos[values.clone()], &self.sin[values])
    }

    /// The host's form of [`Placement::sight`].
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
    /// Refuses a text longer than the model's sliding window, which is not supported.
    pub fn check_length(&self, length: usize) -> Result<()> {
        match self.sliding_window {
            Some(window) if length > window => Err(Error::Config {
                path: "the model's config.json".into(),
                key: "sliding_window".into(),
                found: format!("{window}, but a text has {length} tokens"),
                expected:
                    "a window at least as long as the text: shorter ones are not supported; split the text"
                        .into(),
            }),
            _ => Ok(()),
        }
    }
}
