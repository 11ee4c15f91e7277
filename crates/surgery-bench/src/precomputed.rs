//! A reference with precomputed states, as in all but the first use of a document.

use surgery_core::Result;
use surgery_core::batch::Window;
use surgery_core::burn::tensor::Tensor;
use surgery_core::burn::tensor::backend::Backend;
use surgery_core::kernels::Kernels;
use surgery_core::model::At;
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
    fn states(&mut self, windows: &[Window], at: At) -> Result<Tensor<B, 2>> {
        let tokens = || windows.iter().map(Window::tokens);
        if let Some((known, states)) = &self.states
            && known.iter().map(Vec::as_slice).eq(tokens())
        {
            return Ok(states.clone());
        }
        let states = self.live.states(windows, at)?;
        self.states = Some((tokens().map(<[u32]>::to_vec).collect(), states.clone()));
        Ok(states)
    }

    fn head(&self) -> Tensor<B, 2> {
        self.live.head()
    }
}
