//! The NLL of documents, and their divergence from a reference.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::{Against, Progress, TextLoss, context};
use crate::batch::{BATCH_TOKENS, Rows, Window, batches};
use crate::data::Example;
use crate::error::Result;
use crate::kernels::Kernels;
use crate::model::{At, Llama};
use crate::token_nll::{in_chunks, nll_of_states};

/// The losses of each document.
pub(super) struct Losses {
    pub(super) nll: Vec<TextLoss>,
    /// The divergence; without tokens if it is not measured.
    pub(super) kl: Vec<TextLoss>,
}

/// Measures every document. A document longer than the context is split into windows.
pub(super) fn measure<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    documents: &[Example],
    against: &mut Against<B>,
    progress: &mut Progress,
) -> Result<Losses> {
    let context = context(model.config());
    let mut windows: Vec<(usize, Window)> = Vec::new();
    // For each document, the number of windows that are not measured yet.
    let mut left = vec![0; documents.len()];
    for (number, document) in documents.iter().enumerate() {
        windows.extend(Window::of(document, context).map(|window| (number, window)));
    }
    windows.iter().for_each(|(number, _)| left[*number] += 1);
    progress.advance(left.iter().filter(|left| **left == 0).count())?;

    let nothing = vec![TextLoss::default(); documents.len()];
    let mut losses = Losses { nll: nothing.clone(), kl: nothing };
    let lengths: Vec<usize> = windows.iter().map(|(_, window)| window.len()).collect();
    for batch in batches(&lengths, BATCH_TOKENS) {
        let (numbers, batch): (Vec<usize>, Vec<Window>) =
            batch.into_iter().map(|window| windows[window]).unzip();
        let rows = Rows::pack(&batch, K::ONE_ROW);
        let hidden = model.states::<K>(&rows, At::Final)?;
        let tokens: Vec<u32> = rows.targets.iter().map(|target| target.token).collect();
        let nll = nll_of_states::<B, K>(&hidden, &model.head(), &tokens);
        let kl = against.divergence::<K>(model, hidden, &batch)?;
        for (losses, values) in [(&mut losses.nll, nll), (&mut losses.kl, kl)] {
            for (target, value) in rows.targets.iter().zip(values) {
                losses[numbers[target.text]].add(value);
            }
        }
        numbers.iter().for_each(|&number| left[number] -= 1);
        let mut finished = numbers;
        finished.retain(|&number| left[number] == 0);
        finished.dedup();
        progress.advance(finished.len())?;
    }
    Ok(losses)
}

impl<B: Backend> Against<'_, B> {
    /// The divergence of `model` at each predicted token of `windows`, whose states are `hidden`; empty if it is not
    /// measured.
    fn divergence<K: Kernels<B>>(
        &mut self,
        model: &Llama<B>,
        hidden: Tensor<B, 2>,
        windows: &[Window],
    ) -> Result<Vec<f32>> {
        let count = hidden.dims()[0];
        match self {
            Against::Nothing => Ok(Vec::new()),
            Against::Itself(reference) => {
                reference.remember(windows, hidden)?;
                Ok(vec![0.0; count])
            }
            Against::Reference(reference) => {
                let reference_states = reference.states(windows, At::Final)?;
                Ok(in_chunks(count, |chunk| {
                    let part = |states: &Tensor<B, 2>| states.clone().narrow(0, chunk.start, chunk.len());
                    K::kl(part(&hidden), model.head(), part(&reference_states), reference.head())
                }))
            }
        }
    }
}
