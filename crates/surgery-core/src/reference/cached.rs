//! Stored hidden states of the reference, computed before the first step.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use sha2::{Digest, Sha256};

use super::Reference;
use super::store::{Key, Store};
use crate::batch::{BATCH_TOKENS, Rows, Window, batches};
use crate::config::LlamaConfig;
use crate::data::Example;
use crate::error::Result;
use crate::kernels::Kernels;
use crate::model::{At, Llama};

/// The states of documents that were requested in advance, and a copy of the head. Nothing else of the reference is kept
/// when the model changes. Unless the store is in memory, only the states in use are.
#[derive(Debug, Clone)]
pub struct Cached<B: Backend, K> {
    head: Tensor<B, 2>,
    store: Store,
    /// A digest of the model's weights and shape.
    digest: Key,
    /// The requested windows without states, each as a document of its own.
    missing: BTreeMap<(At, Key), Example>,
    kernels: PhantomData<K>,
}

impl<B: Backend, K: Kernels<B>> Cached<B, K> {
    /// Makes `model` the reference. States that `store` already has are used.
    pub fn new(model: &Llama<B>, store: Store) -> Self {
        let digest = digest(model);
        Self { head: model.head(), store, digest, missing: BTreeMap::new(), kernels: PhantomData }
    }

    /// Requests the states of `documents` in windows of at most `context` tokens. Damaged states in the store are computed
    /// again.
    pub fn want<'a>(&mut self, documents: impl IntoIterator<Item = &'a Example>, context: usize, at: At) {
        for window in Window::of_all(documents, context) {
            let key = self.key(&window, at);
            if self.store.get(&key, self.shape(&window)).is_err() {
                let predicted = window.predicted().map(|index| index - window.start);
                let predicted = predicted.map(|index| index..index + 1).collect();
                let tokens = window.tokens().to_vec();
                self.missing.insert((at, key), Example { tokens, predicted, alternatives: Vec::new() });
            }
        }
    }

    /// The key of a window's states: a digest of the model, the window's tokens, and the indices that are predicted.
    fn key(&self, window: &Window, at: At) -> Key {
        let mut hash = Sha256::new();
        hash.update(self.digest);
        if let At::Block(block) = at {
            hash.update(format!("block {block}"));
        }
        window.tokens().iter().for_each(|token| hash.update(token.to_le_bytes()));
        let skipped = window.len() - 1 != window.predicted().count();
        for index in window.predicted().filter(|_| skipped) {
            hash.update(((index - window.start) as u64).to_le_bytes());
        }
        hash.finalize().into()
    }

    /// Number of predicted tokens, and of values of each.
    fn shape(&self, window: &Window) -> [usize; 2] {
        [window.predicted().count(), self.head.dims()[1]]
    }

    /// Stores the states of the `windows` that are missing.
    fn keep(&mut self, windows: &[Window], states: Tensor<B, 2>, at: At) -> Result<()> {
        let values: Vec<f32> = states.into_data().convert::<f32>().to_vec().expect("converted to f32");
        let mut values = values.as_slice();
        for window in windows {
            let shape = self.shape(window);
            let (states, rest) = values.split_at(shape[0] * shape[1]);
            values = rest;
            let key = self.key(window, at);
            if self.missing.remove(&(at, key)).is_some() {
                self.store.put(&key, shape, states)?;
            }
        }
        Ok(())
    }
}

impl<B: Backend, K: Kernels<B>> Reference<B> for Cached<B, K> {
    fn states(&mut self, windows: &[Window], at: At) -> Result<Tensor<B, 2>> {
        let mut values = Vec::new();
        for window in windows {
            values.extend(self.store.get(&self.key(window, at), self.shape(window))?);
        }
        let size = self.head.dims()[1];
        let shape = [values.len() / size, size];
        Ok(Tensor::from_data(TensorData::new(values, shape), &self.head.device()))
    }

    fn head(&self) -> Tensor<B, 2> {
        self.head.clone()
    }

    fn remember(&mut self, windows: &[Window], hidden: Tensor<B, 2>) -> Result<()> {
        if self.missing.is_empty() { Ok(()) } else { self.keep(windows, hidden, At::Final) }
    }

    /// Computes requested states that are still missing. `model` must be the one that this was made from.
    fn complete(&mut self, model: &Llama<B>) -> Result<()> {
        let missing: Vec<(At, Example)> =
            self.missing.iter().map(|((at, _), example)| (*at, example.clone())).collect();
        for missing in missing.chunk_by(|(a, _), (b, _)| a == b) {
            let windows: Vec<Window> =
                missing.iter().map(|(_, example)| Window { example, start: 0, end: example.len() }).collect();
            for batch in batches(&Window::lengths(&windows), BATCH_TOKENS) {
                let batch: Vec<Window> = batch.into_iter().map(|window| windows[window]).collect();
                let at = missing[0].0;
                let states = model.states::<K>(&Rows::pack(&batch, K::ONE_ROW), at)?;
                self.keep(&batch, states, at)?;
            }
        }
        Ok(())
    }
}

/// Number of bytes of the states of `documents`.
pub fn bytes_of_states<'a>(documents: impl IntoIterator<Item = &'a Example>, config: &LlamaConfig) -> u64 {
    let tokens: u64 = documents.into_iter().map(|document| document.num_predicted() as u64).sum();
    tokens * 4 * config.hidden_size as u64
}

/// A digest of a model: its shape, and its weights in the precision that they were loaded in.
fn digest<B: Backend>(model: &Llama<B>) -> Key {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", model.config()));
    let mut tensors: Vec<(String, Tensor<B, 1>)> = model.tensors().into_iter().collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, tensor) in tensors {
        hash.update(format!("{name} {:?} {:?}", tensor.dtype(), tensor.dims()));
        hash.update(tensor.into_data().as_bytes());
    }
    hash.finalize().into()
}
