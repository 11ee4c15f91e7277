//! Recognises generated texts that reveal documents to unlearn by their likelihood.
//!
//! The model that [bounds the ascent](crate::token_nll) has never seen the documents to unlearn. Such a text is much less
//! likely under it than under the model that generated the text; other texts are almost equally likely under both. The
//! text need not contain a word of the data. On the embedded benchmark, with 640 freely generated texts, this refuses all
//! 104 that name a person to unlearn or to edit, 1 of 164 about people of the retain set and none of 22 about held-out
//! people.
//!
//! Without such a model, likelihood refuses nothing. An alternative was measured: the drop in likelihood after one step of
//! ascent. At the same threshold it finds only 71 of the 104, and refuses 65 of the 164.

use burn::tensor::backend::Backend;

use crate::data::{Benchmark, Example, Set};
use crate::error::Result;
use crate::evaluate::score;
use crate::event::Silent;
use crate::kernels::Kernels;
use crate::model::Llama;

/// Maximum number of documents measured, of those to unlearn and of those to retain.
const MEASURED: usize = 128;
/// A text is refused if the models' difference on it is at least this share of their median difference on the
/// documents to unlearn.
const SHARE: f64 = 0.5;
/// Share of retain documents, in thousandths, that may exceed the threshold.
const MISTAKEN: usize = 10;

/// Compares the likelihood of texts under two models.
#[derive(Debug, Clone)]
pub struct Likelihood<B: Backend> {
    /// The model that never saw the documents to unlearn.
    other: Llama<B>,
    /// The maximum difference of an accepted text, in nats a token.
    most: f64,
}

impl<B: Backend> Likelihood<B> {
    /// Derives the threshold from the documents of both kinds. `None` if `other` does not find the documents to
    /// unlearn less likely than retain documents, so that the two kinds cannot be separated.
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

    /// The texts whose difference is below the threshold.
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

/// How much higher the mean NLL of each text is under `other`, in nats a token.
fn differences<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    other: &Llama<B>,
    texts: &[Example],
) -> Result<Vec<f64>> {
    let [known, unknown] = [model, other].map(|model| score::<B, K>(model, texts, &mut Silent));
    let pairs = known?.into_iter().zip(unknown?);
    Ok(pairs.map(|(known, unknown)| (unknown.sum - known.sum) / known.tokens.max(1) as f64).collect())
}
