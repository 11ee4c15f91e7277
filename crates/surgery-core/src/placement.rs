//! Where each token of a batch stands: its rotation, and which keys it may see.

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor, TensorData};

use crate::batch::Rows;
use crate::config::LlamaConfig;
use crate::error::{Error, Result};

/// What rope and attention need to know about the tokens of a batch.
#[derive(Debug, Clone)]
pub struct Placement<B: Backend> {
    cos: Tensor<B, 4>,
    sin: Tensor<B, 4>,
    mask: Tensor<B, 4, Bool>,
}

impl<B: Backend> Placement<B> {
    /// For packed rows: every segment counts its positions from 0 and sees only itself, causally. A
    /// position outside every segment sees itself, so that its softmax is defined.
    pub fn packed(rows: &Rows, config: &LlamaConfig, device: &B::Device) -> Result<Self> {
        let longest = rows.segments.iter().map(|segment| segment.columns.len()).max().unwrap_or(0);
        config.check_length(longest)?;
        let segments = rows.segment_ids();
        let columns = rows.columns;
        let mask = (0..rows.rows * columns).flat_map(|query| {
            let (row, column) = (query / columns, query % columns);
            let segments = &segments[row * columns..(row + 1) * columns];
            (0..columns).map(move |key| {
                let outside = segments[column] == 0;
                let hides = key > column || segments[key] != segments[column] || outside;
                hides && key != column
            })
        });
        let mask = TensorData::new(mask.collect::<Vec<bool>>(), [rows.rows, 1, columns, columns]);
        Ok(Self::new(&rows.positions(), [rows.rows, columns], mask, config, device))
    }

    /// For one text that goes on: `count` tokens after `past` that are in a cache already.
    pub fn continued(past: usize, count: usize, config: &LlamaConfig, device: &B::Device) -> Result<Self> {
        config.check_length(past + count)?;
        let positions: Vec<usize> = (past..past + count).collect();
        let mask = positions.iter().flat_map(|&query| (0..past + count).map(move |key| key > query));
        let mask = TensorData::new(mask.collect::<Vec<bool>>(), [1, 1, count, past + count]);
        Ok(Self::new(&positions, [1, count], mask, config, device))
    }

    fn new(
        positions: &[usize],
        [rows, columns]: [usize; 2],
        mask: TensorData,
        config: &LlamaConfig,
        device: &B::Device,
    ) -> Self {
        let frequencies = config.rope.frequencies(config.head_dim);
        // As transformers does: the angle is a product of f32s.
        let angles = || positions.iter().flat_map(|&at| frequencies.iter().map(move |f| at as f32 * f));
        let shape = [rows, columns, 1, frequencies.len()];
        let tensor = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, shape), device);
        Self {
            cos: tensor(angles().map(f32::cos).collect()),
            sin: tensor(angles().map(f32::sin).collect()),
            mask: Tensor::from_data(mask, device),
        }
    }

    /// Cosine of each position's angles, `[rows, columns, 1, head_dim / 2]`.
    pub fn cos(&self) -> Tensor<B, 4> {
        self.cos.clone()
    }

    /// Sine of each position's angles, `[rows, columns, 1, head_dim / 2]`.
    pub fn sin(&self) -> Tensor<B, 4> {
        self.sin.clone()
    }

    /// True where a query may not see a key, `[rows, 1, columns, keys]`.
    pub fn mask(&self) -> Tensor<B, 4, Bool> {
        self.mask.clone()
    }
}

impl LlamaConfig {
    /// Refuses a text that is longer than the model's sliding window, which is not supported.
    fn check_length(&self, length: usize) -> Result<()> {
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
