//! The reference: the model before the first step, with which the model is compared on retain documents.

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

/// Returns the reference's hidden states. Its distribution is `softmax(hidden · headᵀ)`, so a token takes `hidden` values
/// instead of `vocab`.
pub trait Reference<B: Backend> {
    /// The hidden states of each predicted token of `windows`, `[predicted tokens, hidden]`, window by window: the states
    /// that predict the token ([`At::Final`]), or those at its own position ([`At::Block`]).
    fn states(&mut self, windows: &[Window], at: At) -> Result<Tensor<B, 2>>;

    /// The head's matrix, `[vocab, hidden]`.
    fn head(&self) -> Tensor<B, 2>;

    /// Receives final states of `windows`, computed with the model before its first step, and may store them.
    fn remember(&mut self, windows: &[Window], hidden: Tensor<B, 2>) -> Result<()> {
        let _ = (windows, hidden);
        Ok(())
    }

    /// Receives the model before its first step, to compute states that are still missing.
    fn complete(&mut self, model: &Llama<B>) -> Result<()> {
        let _ = model;
        Ok(())
    }
}

/// A frozen copy of the model, which runs whenever states are asked for.
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
