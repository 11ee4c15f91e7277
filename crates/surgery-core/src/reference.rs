//! The model as it was before the first step: what documents to keep are compared with.

mod cached;
mod store;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::batch::{Rows, Window};
use crate::error::Result;
use crate::kernels::Kernels;
use crate::model::{At, Llama};

pub use cached::{Cached, bytes_of_states};
pub use store::Store;

/// Gives the reference's hidden states. Its distribution follows exactly from the final ones and its head,
/// `softmax(hidden · headᵀ)`: that is `hidden` values a token instead of `vocab`.
pub trait Reference<B: Backend> {
    /// The hidden states of each predicted token of `windows`, `[predicted tokens, hidden]`, window by window: those that
    /// predict it ([`At::Final`]), or its own ([`At::Block`]).
    fn states(&mut self, windows: &[Window], at: At) -> Result<Tensor<B, 2>>;

    /// The head's matrix, `[vocab, hidden]`.
    fn head(&self) -> Tensor<B, 2>;

    /// Is shown final states of `windows` that were computed while the model still was the reference.
    fn remember(&mut self, windows: &[Window], hidden: Tensor<B, 2>) -> Result<()> {
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
    fn states(&mut self, windows: &[Window], at: At) -> Result<Tensor<B, 2>> {
        self.model.states::<K>(&Rows::pack(windows, K::ONE_ROW), at)
    }

    fn head(&self) -> Tensor<B, 2> {
        self.model.head()
    }
}
