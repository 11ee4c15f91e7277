//! Texts that tell what is to be forgotten, recognised by how likely they are.
//!
//! A model that has never seen what is to be forgotten, which is the one that [bounds the ascent](crate::token_nll), finds
//! such a text much less likely than the model that wrote it; of other texts the two think nearly alike. No word of the
//! data needs to be in the text. On the embedded benchmark, of 640 texts that the model wrote freely this refuses all 104
//! that name somebody to forget or to edit, 1 of 164 about people of the retain set and none of 22 about held-out people.
//!
//! Where there is no such model, nothing is refused by likelihood. How much less likely a text becomes by one step of
//! the ascent was measured in its place, and tells too little: at the same share it finds 71 of the 104, and refuses
//! 65 of the 164.

use burn::tensor::backend::Backend;

use crate::data::{Benchmark, Example, Set};
use crate::error::Result;
use crate::evaluate::score;
use crate::event::Silent;
use crate::kernels::Kernels;
use crate::model::Llama;

/// Documents that are measured, of those to be forgotten and of those to be kept, at most.
const MEASURED: usize = 128;
/// A text tells what is to be forgotten where the models differ on it by so much of what they differ by, at the median,
/// on the documents to be forgotten.
const SHARE: f64 = 0.5;
/// So many in a thousand retain documents may look as if they did.
const MISTAKEN: usize = 10;

/// Compares what two models think of a text.
#[derive(Debug, Clone)]
pub struct Likelihood<B: Backend> {
    /// The one that does not know what is to be forgotten.
    other: Llama<B>,
    /// What the two may differ by, in nats a token.
    most: f64,
}

impl<B: Backend> Likelihood<B> {
    /// By what `other` makes less likely of the documents that `model` is to forget. None where it makes them no less
    /// likely than those to be kept, so that nothing can be told.
    pub fn new<K: Kernels<B>>(
        model: &Llama<B>,
        other: Llama<B>,
        benchmark: &Benchmark,
    ) -> Result<Option<Self>> {
        let of = |sets: &[Set]| -> Result<Vec<f64>> {
            let all: Vec<&Example> = sets.iter().flat_map(|&set| benchmark.documents(set)).collect();
            let some = all.iter().step_by(all.len().div_ceil(MEASURED).max(1));
            let mut differences = differences::<B, K>(
                model,
                &other,
                &some.map(|&text| text.clone()).collect::<Vec<Example>>(),
            )?;
            differences.sort_by(f64::total_cmp);
            Ok(differences)
        };
        let (forgotten, kept) = (of(&[Set::Unlearn, Set::EditUnlearn])?, of(&[Set::Retain])?);
        let Some(&median) = forgotten.get(forgotten.len() / 2) else { return Ok(None) };
        let kept = kept.iter().rev().nth(kept.len() * MISTAKEN / 1000).copied().unwrap_or(0.0);
        let most = kept.max(SHARE * median);
        Ok((most < median).then_some(Self { other, most }))
    }

    /// Those of `texts` that `model` does not find much likelier.
    pub(super) fn passed<K: Kernels<B>>(
        &self,
        model: &Llama<B>,
        texts: Vec<Example>,
    ) -> Result<Vec<Example>> {
        let differences = differences::<B, K>(model, &self.other, &texts)?;
        let passed = texts.into_iter().zip(differences).filter(|(_, difference)| *difference < self.most);
        Ok(passed.map(|(text, _)| text).collect())
    }
}

/// By how much the mean NLL of each text is higher under `other`, in nats a token.
fn differences<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    other: &Llama<B>,
    texts: &[Example],
) -> Result<Vec<f64>> {
    let [known, unknown] = [model, other].map(|model| score::<B, K>(model, texts, &mut Silent));
    let pairs = known?.into_iter().zip(unknown?);
    Ok(pairs.map(|(known, unknown)| (unknown.sum - known.sum) / known.tokens.max(1) as f64).collect())
}
