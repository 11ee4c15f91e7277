//! How far an ascent may go, token by token: to the NLL that a model gives which has never seen the text.
//!
//! A reverse gradient without a bound goes on where there is nothing left to forget. One bound for a document's mean
//! stops it too early and too late: the tokens that anybody would have guessed wrong are pushed first, and those
//! that only someone who knows the subject gets right are pushed last. The NLL under a model that never learnt the
//! texts says of every token how much of it is knowledge, and at that NLL the token is forgotten.

use std::collections::HashMap;

use burn::tensor::backend::Backend;

use crate::error::Result;
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::reference::{states, windows_of};

/// The NLL of every predicted token of some documents under one model, in nats, found by the documents' tokens.
#[derive(Debug, Clone, Default)]
pub struct Bounds(HashMap<Vec<u32>, Vec<f32>>);

impl Bounds {
    /// The bounds that `model` sets to `documents`, in windows of at most `context`.
    pub fn of<'a, B: Backend, K: Kernels<B>>(
        model: &Llama<B>,
        documents: impl IntoIterator<Item = &'a [u32]>,
        context: usize,
    ) -> Result<Self> {
        let mut bounds = HashMap::new();
        for document in documents {
            let windows = windows_of(&[document], context);
            if windows.is_empty() {
                continue;
            }
            let targets: Vec<u32> = windows.iter().flat_map(|window| &window[1..]).copied().collect();
            let nll = K::nll(states::<B, K>(model, &windows)?, model.head(), &targets);
            let nll = nll.into_data().convert::<f32>().to_vec().expect("converted to f32");
            bounds.insert(document.to_vec(), nll);
        }
        Ok(Self(bounds))
    }

    /// The bounds of a document's tokens from the second on; none of one that was not asked for.
    pub(crate) fn of_document(&self, tokens: &[u32]) -> Option<&[f32]> {
        self.0.get(tokens).map(Vec::as_slice)
    }
}
