//! Text generation, token by token, with a cache of keys and values.

use burn::tensor::backend::Backend;
use rand::distr::{Distribution, StandardUniform};

use crate::data::seeded;
use crate::error::{Error, Result};
use crate::event::{Observer, Silent, stop_if_interrupted};
use crate::kernels::Kernels;
use crate::model::Llama;

/// Settings for choosing the next token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token; otherwise tokens are sampled from softmax(logits / temperature).
    pub temperature: f64,
    /// The seed, which fixes the text.
    pub seed: u64,
}

/// The tokens after `prompt`: at most `most`, up to and including one that ends the text. Generation also stops at
/// the end of the model's context.
pub fn generate<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    prompt: &[u32],
    most: usize,
    sampling: Sampling,
) -> Result<Vec<u32>> {
    Ok(generate_several::<B, K>(model, &[(0, prompt)], most, sampling, &Silent)?.remove(0))
}

/// Like [`generate`], for several independent texts at once. Prompts have the same length; the number beside each
/// selects its random stream of the seed. `observer` may interrupt between two tokens.
pub fn generate_several<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    prompts: &[(usize, &[u32])],
    most: usize,
    sampling: Sampling,
    observer: &dyn Observer,
) -> Result<Vec<Vec<u32>>> {
    const STREAM: u64 = 2 << 32;
    let config = model.config();
    let context = config.context(config.sliding_window.unwrap_or(usize::MAX));
    let length = prompts.first().map_or(0, |(_, prompt)| prompt.len());
    assert!(prompts.iter().all(|(_, prompt)| prompt.len() == length), "prompts of one length");
    if length == 0 || length > context {
        return Err(Error::Data {
            path: "the prompt".into(),
            problem: format!("has {length} tokens, but the model takes 1 to {context}"),
            remedy: "give another prompt".into(),
        });
    }
    let mut generators: Vec<_> =
        prompts.iter().map(|&(number, _)| seeded(sampling.seed, STREAM + number as u64)).collect();
    let mut cache = model.cache();
    let mut new = vec![Vec::new(); prompts.len()];
    let mut input = prompts.iter().flat_map(|(_, prompt)| *prompt).copied().collect::<Vec<u32>>();
    let is_last = |token: &u32| config.eos_token_ids.contains(token);
    for _ in 0..most.min(context - length) {
        stop_if_interrupted(observer)?;
        let logits = model.advance::<K>(&input, prompts.len(), &mut cache)?;
        let logits: Vec<f32> = logits.into_data().convert::<f32>().to_vec().expect("converted to f32");
        if let Some(&logit) = logits.iter().find(|logit| logit.is_nan()) {
            return Err(Error::not_computable("a logit", f64::from(logit)));
        }
        input.clear();
        let of_texts = logits.chunks_exact(config.vocab_size).zip(&mut generators).zip(&mut new);
        for ((logits, generator), new) in of_texts {
            // A finished text stays in the batch until all texts are finished.
            let ended = new.last().filter(|token| is_last(token)).copied();
            input.push(ended.unwrap_or_else(|| match sampling.temperature > 0.0 {
                true => draw(logits, sampling.temperature, StandardUniform.sample(generator)),
                false => likeliest(logits),
            }));
            new.extend(ended.is_none().then(|| input[input.len() - 1]));
        }
        if new.iter().all(|new| new.last().is_some_and(is_last)) {
            break;
        }
    }
    Ok(new)
}

/// The index of the largest logit; the first one on ties.
fn likeliest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (index, &logit)| {
        if logit > best.1 { (index, logit) } else { best }
    });
    best.0 as u32
}

/// The index at which the cumulative softmax(logits / temperature) exceeds `uniform`, which is in [0, 1).
fn draw(logits: &[f32], temperature: f64, uniform: f64) -> u32 {
    let largest = f64::from(logits[likeliest(logits) as usize]);
    let weights: Vec<f64> =
        logits.iter().map(|&logit| ((f64::from(logit) - largest) / temperature).exp()).collect();
    let mut left = uniform * weights.iter().sum::<f64>();
    for (index, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return index as u32;
        }
    }
    likeliest(logits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_distribution() {
        let logits = [0.0f32, (3.0f32).ln(), f32::NEG_INFINITY];
        let drawn: Vec<u32> = (0..100).map(|i| draw(&logits, 1.0, f64::from(i) / 100.0)).collect();
        assert_eq!(drawn.iter().filter(|&&token| token == 0).count(), 25);
        assert_eq!(drawn.iter().filter(|&&token| token == 1).count(), 75);
        assert_eq!(draw(&logits, 0.01, 0.5), likeliest(&logits));
    }
}
