//! Text from a model, token by token, with a cache of keys and values.

use burn::tensor::backend::Backend;
use rand::distr::{Distribution, StandardUniform};

use crate::data::seeded;
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::model::Llama;

/// How to choose the next token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token; above, tokens are drawn from softmax(logits / temperature).
    pub temperature: f64,
    /// One seed, one text.
    pub seed: u64,
}

/// The tokens that follow `prompt`: at most `most`, and none after one that ends a text, which is included.
/// Generation also ends where the model's context does.
pub fn generate<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    prompt: &[u32],
    most: usize,
    sampling: Sampling,
) -> Result<Vec<u32>> {
    const STREAM: u64 = 2 << 32;
    let config = model.config();
    let context = config.context(config.sliding_window.unwrap_or(usize::MAX));
    if prompt.is_empty() || prompt.len() > context {
        return Err(Error::Data {
            path: "the prompt".into(),
            problem: format!("has {} tokens, and the model takes 1 to {context}", prompt.len()),
            remedy: "give another prompt".into(),
        });
    }
    let mut generator = seeded(sampling.seed, STREAM);
    let mut cache = model.cache();
    let mut new = Vec::new();
    let mut input = prompt.to_vec();
    while new.len() < most.min(context - prompt.len()) {
        let logits = model.advance::<K>(&input, &mut cache)?;
        let logits: Vec<f32> = logits.into_data().convert::<f32>().to_vec().expect("converted to f32");
        if let Some(&logit) = logits.iter().find(|logit| logit.is_nan()) {
            return Err(Error::not_computable("a logit", f64::from(logit)));
        }
        let token = match sampling.temperature > 0.0 {
            true => draw(&logits, sampling.temperature, StandardUniform.sample(&mut generator)),
            false => likeliest(&logits),
        };
        new.push(token);
        if model.config().eos_token_ids.contains(&token) {
            break;
        }
        input = vec![token];
    }
    Ok(new)
}

/// The index of the largest logit, the first of equals.
fn likeliest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (index, &logit)| {
        if logit > best.1 { (index, logit) } else { best }
    });
    best.0 as u32
}

/// The index at which the cumulated softmax(logits / temperature) passes `uniform`, which is in [0, 1).
fn draw(logits: &[f32], temperature: f64, uniform: f64) -> u32 {
    let largest = f64::from(logits[likeliest(logits) as usize]);
    let weight = |&logit: &f32| ((f64::from(logit) - largest) / temperature).exp();
    let mut left = uniform * logits.iter().map(weight).sum::<f64>();
    for (index, logit) in logits.iter().enumerate() {
        left -= weight(logit);
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
