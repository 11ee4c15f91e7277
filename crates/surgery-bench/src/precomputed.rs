//! A reference with precomputed states, as in all but the first use of a document.

use surgery_core::Result;
use surgery_core::burn::tensor::Tensor;
use surgery_core::burn::tensor::backend::Backend;
use surgery_core::kernels::Kernels;
use surgery_core::reference::{Live, Reference};

/// Computes the states once and returns them as long as the documents stay the same.
pub(crate) struct Precomputed<B: Backend, K> {
    live: Live<B, K>,
    states: Option<(Vec<Vec<u32>>, Tensor<B, 2>)>,
}

impl<B: Backend, K> Precomputed<B, K> {
    pub(crate) fn new(live: Live<B, K>) -> Self {
        Self { live, states: None }
    }
}

impl<B: Backend, K: Kernels<B>> Reference<B> for Precomputed<B, K> {
    fn hidden(&mut self, documents: &[&[u32]], context: usize) -> Result<Tensor<B, 2>> {
        if let Some((known, states)) = &self.states
            && known == documents
        {
            return Ok(states.clone());
        }
        let states = self.live.hidden(documents, context)?;
        let documents = documents.iter().map(|document| document.to_vec()).collect();
        self.states = Some((documents, states.clone()));
        Ok(states)
    }

    fn head(&self) -> Tensor<B, 2> {
        self.live.head()
    }
}
