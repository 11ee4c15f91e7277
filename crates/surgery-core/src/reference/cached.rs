//! The reference's final hidden states, computed while the model still is the reference.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};
use sha2::{Digest, Sha256};

use super::store::{Key, Store};
use super::{Reference, states, windows_of};
use crate::batch::{BATCH_TOKENS, batches};
use crate::config::LlamaConfig;
use crate::error::Result;
use crate::kernels::Kernels;
use crate::model::Llama;

/// The states of the texts that were asked for in advance, and a copy of the head: all that is left of the
/// reference when the model changes. In memory are only the states that are being used, unless the store is.
#[derive(Debug, Clone)]
pub struct Cached<B: Backend, K> {
    head: Tensor<B, 2>,
    store: Store,
    /// A digest of the model: of its weights and of its shape.
    digest: Key,
    /// The windows that were asked for and have no states yet.
    missing: BTreeMap<Key, Vec<u32>>,
    kernels: PhantomData<K>,
}

impl<B: Backend, K: Kernels<B>> Cached<B, K> {
    /// The reference is `model`; what `store` holds of it already is used.
    pub fn new(model: &Llama<B>, store: Store) -> Self {
        let digest = digest(model);
        Self { head: model.head(), store, digest, missing: BTreeMap::new(), kernels: PhantomData }
    }

    /// Asks for the states of `documents` in windows of at most `context`. Of what the store holds, what is
    /// damaged is asked for anew.
    pub fn want<'a>(&mut self, documents: impl IntoIterator<Item = &'a [u32]>, context: usize) {
        let documents: Vec<&[u32]> = documents.into_iter().collect();
        for window in windows_of(&documents, context) {
            let key = self.key(window);
            if self.store.get(&key, self.shape(window)).is_err() {
                self.missing.insert(key, window.to_vec());
            }
        }
    }

    /// A window's states follow from the model and the window's tokens alone.
    fn key(&self, window: &[u32]) -> Key {
        let mut hash = Sha256::new();
        hash.update(self.digest);
        window.iter().for_each(|token| hash.update(token.to_le_bytes()));
        hash.finalize().into()
    }

    /// Predicted tokens and values of each.
    fn shape(&self, window: &[u32]) -> [usize; 2] {
        [window.len() - 1, self.head.dims()[1]]
    }
}

impl<B: Backend, K: Kernels<B>> Reference<B> for Cached<B, K> {
    fn hidden(&mut self, documents: &[&[u32]], context: usize) -> Result<Tensor<B, 2>> {
        let mut values = Vec::new();
        for window in windows_of(documents, context) {
            values.extend(self.store.get(&self.key(window), self.shape(window))?);
        }
        let size = self.head.dims()[1];
        let shape = [values.len() / size, size];
        Ok(Tensor::from_data(TensorData::new(values, shape), &self.head.device()))
    }

    fn head(&self) -> Tensor<B, 2> {
        self.head.clone()
    }

    fn remember(&mut self, windows: &[&[u32]], hidden: Tensor<B, 2>) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let values: Vec<f32> = hidden.into_data().convert::<f32>().to_vec().expect("converted to f32");
        let mut values = values.as_slice();
        for window in windows.iter().filter(|window| window.len() > 1) {
            let shape = self.shape(window);
            let (states, rest) = values.split_at(shape[0] * shape[1]);
            values = rest;
            let key = self.key(window);
            if self.missing.contains_key(&key) {
                self.store.put(&key, shape, states)?;
                self.missing.remove(&key);
            }
        }
        Ok(())
    }

    /// Computes what was asked for and is still missing; `model` must be the one that this was made of.
    fn complete(&mut self, model: &Llama<B>) -> Result<()> {
        let windows: Vec<Vec<u32>> = self.missing.values().cloned().collect();
        let lengths: Vec<usize> = windows.iter().map(Vec::len).collect();
        for batch in batches(&lengths, BATCH_TOKENS) {
            let batch: Vec<&[u32]> = batch.into_iter().map(|window| windows[window].as_slice()).collect();
            self.remember(&batch, states::<B, K>(model, &batch)?)?;
        }
        Ok(())
    }
}

/// What the states of `documents` take, in bytes.
pub fn bytes_of_states<'a>(documents: impl IntoIterator<Item = &'a [u32]>, config: &LlamaConfig) -> u64 {
    let tokens: u64 = documents.into_iter().map(|document| document.len().saturating_sub(1) as u64).sum();
    tokens * 4 * config.hidden_size as u64
}

/// A digest of a model as it computes: its shape, and its weights in the precision that they were loaded in.
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
