//! The NLL of every predicted token of some documents under one model, computed once and stored. It is the bound of an
//! ascent, or the reference's NLL for NPO and DPO.
//!
//! An ascent without a bound continues after the knowledge is gone. A single bound on the mean NLL of a document stops too
//! early for some tokens and too late for others: the ascent first raises the NLL of tokens that any model predicts badly,
//! and last that of tokens that need knowledge of the subject. A model that never learnt the documents gives a bound for
//! each token: at that NLL, the token is unlearned.

use std::collections::HashMap;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::batch::{BATCH_TOKENS, Rows, Window, batches};
use crate::data::Example;
use crate::error::Result;
use crate::kernels::{HEAD_CHUNK, Kernels};
use crate::model::{At, Llama};

/// The NLL of every predicted token of some documents under one model, in nats.
#[derive(Debug, Clone, Default)]
pub struct NllTable(HashMap<Example, Vec<f32>>);

impl NllTable {
    /// The NLL of `examples` under `model`, in windows of at most `context` tokens.
    pub fn of<'a, B: Backend, K: Kernels<B>>(
        model: &Llama<B>,
        examples: impl IntoIterator<Item = &'a Example>,
        context: usize,
    ) -> Result<Self> {
        let examples: Vec<&Example> = examples.into_iter().collect();
        let nll = token_nll::<B, K>(model, &examples, context, BATCH_TOKENS)?;
        Ok(Self(examples.into_iter().cloned().zip(nll).collect()))
    }

    /// The NLL of each predicted token of `example`, in order; `None` if `example` was not measured.
    pub fn get(&self, example: &Example) -> Option<&[f32]> {
        self.0.get(example).map(Vec::as_slice)
    }
}

/// The NLL of each predicted token in nats, document by document. A forward pass has at most `batch_tokens` tokens, unless
/// a single window has more.
pub(crate) fn token_nll<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    examples: &[&Example],
    context: usize,
    batch_tokens: usize,
) -> Result<Vec<Vec<f32>>> {
    let mut nll: Vec<Vec<f32>> = Vec::with_capacity(examples.len());
    let mut windows = Vec::new();
    for (number, &example) in examples.iter().enumerate() {
        nll.push(vec![0.0; example.num_predicted()]);
        let mut first = 0;
        for window in Window::of(example, context) {
            windows.push((number, first, window));
            first += window.predicted().count();
        }
    }
    let lengths: Vec<usize> = windows.iter().map(|(.., window)| window.len()).collect();
    for batch in batches(&lengths, batch_tokens) {
        let batch: Vec<_> = batch.into_iter().map(|index| windows[index]).collect();
        let packed: Vec<Window> = batch.iter().map(|(.., window)| *window).collect();
        let rows = Rows::pack(&packed, K::ONE_ROW);
        let hidden = model.states::<K>(&rows, At::Final)?;
        let tokens: Vec<u32> = rows.targets.iter().map(|target| target.token).collect();
        let mut values = nll_of_states::<B, K>(&hidden, &model.head(), &tokens).into_iter();
        for (number, first, window) in batch {
            let count = window.predicted().count();
            nll[number][first..first + count].iter_mut().zip(&mut values).for_each(|(to, value)| *to = value);
        }
    }
    Ok(nll)
}

/// The NLL of each of `tokens`, in nats, predicted from hidden states `[tokens, hidden]`, a chunk at a time.
pub(crate) fn nll_of_states<B: Backend, K: Kernels<B>>(
    hidden: &Tensor<B, 2>,
    head: &Tensor<B, 2>,
    tokens: &[u32],
) -> Vec<f32> {
    in_chunks(tokens.len(), |chunk| {
        let states = hidden.clone().narrow(0, chunk.start, chunk.len());
        K::nll(states, head.clone(), &tokens[chunk])
    })
}

/// `values` of `count` positions, computed [`HEAD_CHUNK`] at a time.
pub(crate) fn in_chunks<B: Backend>(
    count: usize,
    values: impl Fn(std::ops::Range<usize>) -> Tensor<B, 1>,
) -> Vec<f32> {
    let starts = (0..count).step_by(HEAD_CHUNK);
    let chunk = |start: usize| {
        let values = values(start..(start + HEAD_CHUNK).min(count)).into_data().convert::<f32>();
        values.to_vec::<f32>().expect("converted to f32")
    };
    starts.flat_map(chunk).collect()
}
