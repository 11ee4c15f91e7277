//! The model as it was: what the retain term holds the model to.

mod cached;
mod store;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::batch::{Rows, Tree, windows};
use crate::error::Result;
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::tensors::at_positions;

pub use cached::{Cached, bytes_of_states};
pub use store::Store;

/// Gives the reference's distribution as its final hidden states and its head, from which it follows
/// exactly: `softmax(hidden · headᵀ)`. That is `hidden` values a token instead of `vocab`.
pub trait Reference<B: Backend> {
    /// The hidden states that predict each token of `documents` (token ids, split into windows of at most
    /// `context`) but the first of each: `[predicted tokens, hidden]`, document by document.
    fn hidden(&mut self, documents: &[&[u32]], context: usize) -> Result<Tensor<B, 2>>;

    /// The head's matrix, `[vocab, hidden]`.
    fn head(&self) -> Tensor<B, 2>;

    /// Is shown states that came up while the model still was as the reference is: of `windows`, as
    /// [`hidden`](Self::hidden) gives them.
    fn remember(&mut self, windows: &[&[u32]], hidden: Tensor<B, 2>) -> Result<()> {
        let _ = (windows, hidden);
        Ok(())
    }

    /// Is shown the model for the last time before it changes.
    fn complete(&mut self, model: &Llama<B>) -> Result<()> {
        let _ = model;
        Ok(())
    }
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
        states::<B, K>(&self.model, &windows_of(documents, context))
    }

    fn head(&self) -> Tensor<B, 2> {
        self.model.head()
    }
}

/// The windows of `documents` in which a token is predicted.
pub(crate) fn windows_of<'a>(documents: &[&'a [u32]], context: usize) -> Vec<&'a [u32]> {
    let windows = documents
        .iter()
        .flat_map(|document| windows(document.len(), context).into_iter().map(|window| &document[window]));
    windows.filter(|window| window.len() > 1).collect()
}

/// The hidden states of `model` that predict each token of `windows` but the first of each, laid out as an
/// evaluation does: `[predicted tokens, hidden]`.
pub(crate) fn states<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    windows: &[&[u32]],
) -> Result<Tensor<B, 2>> {
    let trees: Vec<Tree> = windows.iter().map(|window| Tree::of(&[window])).collect();
    let rows = Rows::pack_trees(&trees, K::ONE_ROW);
    let hidden = model.hidden::<K>(&rows)?;
    Ok(at_positions(hidden, rows.targets.iter().map(|target| target.position)))
}
