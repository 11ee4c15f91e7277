//! The model as it was: what the retain term holds the model to.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

use crate::batch::Rows;
use crate::error::Result;
use crate::kernels::Kernels;
use crate::model::Llama;

/// Gives the reference's distribution as its final hidden states and its head, from which it follows
/// exactly: `softmax(hidden · headᵀ)`. That is `hidden` values a token instead of `vocab`.
pub trait Reference<B: Backend> {
    /// The hidden states that predict each token of `documents` (token ids, split into windows of at most
    /// `context`) but the first of each: `[predicted tokens, hidden]`, document by document.
    fn hidden(&mut self, documents: &[&[u32]], context: usize) -> Result<Tensor<B, 2>>;

    /// The head's matrix, `[vocab, hidden]`.
    fn head(&self) -> Tensor<B, 2>;
}

/// A frozen copy of the model, run whenever it is asked.
#[derive(Debug, Clone)]
pub struct Live<B: Backend, K> {
    model: Llama<B>,
    kernels: std::marker::PhantomData<K>,
}

impl<B: Backend, K: Kernels<B>> Live<B, K> {
    /// Freezes `model`.
    pub fn new(model: Llama<B>) -> Self {
        Self { model, kernels: std::marker::PhantomData }
    }
}

impl<B: Backend, K: Kernels<B>> Reference<B> for Live<B, K> {
    fn hidden(&mut self, documents: &[&[u32]], context: usize) -> Result<Tensor<B, 2>> {
        let rows = Rows::pack(documents, context, K::ONE_ROW);
        let hidden = self.model.hidden::<K>(&rows)?;
        Ok(at_positions(hidden, rows.targets.iter().map(|target| target.position)))
    }

    fn head(&self) -> Tensor<B, 2> {
        self.model.head()
    }
}

/// The hidden states at some positions of the flattened rows: `[rows, columns, hidden]` to
/// `[positions, hidden]`.
pub(crate) fn at_positions<B: Backend>(
    hidden: Tensor<B, 3>,
    positions: impl Iterator<Item = usize>,
) -> Tensor<B, 2> {
    let [rows, columns, size] = hidden.dims();
    select(hidden.reshape([rows * columns, size]), positions)
}

/// Some rows of a matrix: `[n, hidden]` to `[positions, hidden]`.
pub(crate) fn select<B: Backend>(
    hidden: Tensor<B, 2>,
    positions: impl Iterator<Item = usize>,
) -> Tensor<B, 2> {
    let positions: Vec<i32> = positions.map(|position| position as i32).collect();
    let positions = Tensor::<B, 1, Int>::from_data(positions.as_slice(), &hidden.device());
    hidden.select(0, positions)
}
