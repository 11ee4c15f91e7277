//! Estimates of the time of a run. Its parts are timed on a stand-in for the model, a small Llama of the same kind with
//! random weights, and scaled by the operations and bytes of the run and of the stand-in. So an estimate takes about as
//! long for a large model as for a small one.

mod amounts;
mod bench;

use std::time::Instant;

use surgery_core::Result;
use surgery_core::config::LlamaConfig;
use surgery_core::folders::DataFolder;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::Recipe;

use self::amounts::Amounts;
use self::bench::Bench;
use crate::fit;

/// The estimated time of a run in seconds.
pub struct Estimate {
    /// Time of the training, with the generation of replay documents.
    pub train: f64,
    /// Time of the evaluations.
    pub evaluate: f64,
    /// The timed model and the method, for the user.
    pub basis: String,
}

/// The sizes of stand-ins, the smallest first, in values of all matrices. A fast device reaches its speed on a large one
/// only.
const SIZES: [usize; 2] = [12_000_000, 100_000_000];
/// Tokens of a stand-in's step. With fewer tokens, the fixed costs of a step weigh more: with 432, the estimate for the
/// gradients of a model with 135M parameters was twice too high.
const TOKENS: usize = 1024;
/// Minimum time of a round in seconds. If a round takes less, a larger stand-in is timed if there is one.
const SHORTEST_ROUND: f64 = 0.15;
/// Rounds are repeated for this time in seconds, or until there are `MOST_ROUNDS`. The median counts.
const REPEATED_FOR: f64 = 1.0;
const MOST_ROUNDS: usize = 3;

/// Estimates the time of a run of `recipe`; `None` if no stand-in fits in memory.
pub fn estimate<P: Platform>(
    recipe: &Recipe,
    config: &LlamaConfig,
    data: &DataFolder,
    device: &DeviceOf<P>,
) -> Result<Option<Estimate>> {
    // Without end tokens, a generated text has as many tokens as were asked for.
    let config = &LlamaConfig { eos_token_ids: Vec::new(), ..config.clone() };
    let whole = Amounts::of_run(recipe, config, data);
    let mut found = None;
    for most_values in SIZES {
        let stand_in = shrunk(config, most_values);
        if fit::stand_in::<P>(recipe, &stand_in, TOKENS, device).is_err() {
            break;
        }
        let mut bench = Bench::<P>::new(recipe, stand_in, TOKENS, data, device)?;
        // The first round warms up.
        bench.round()?;
        let started = Instant::now();
        let mut rounds = vec![bench.round()?];
        let is_short = started.elapsed().as_secs_f64() < SHORTEST_ROUND;
        while rounds.len() < MOST_ROUNDS && started.elapsed().as_secs_f64() < REPEATED_FOR {
            rounds.push(bench.round()?);
        }
        found = Some(bench.scaled(&rounds, &whole, config));
        if !is_short || bench.config == *config {
            break;
        }
    }
    Ok(found)
}

/// A shape with at most about `most` values in matrices. It has fewer blocks and a smaller vocabulary, in the same
/// proportion, because a head costs more than its products. If one block is too large, blocks are narrower.
fn shrunk(config: &LlamaConfig, most: usize) -> LlamaConfig {
    let mut shape = config.clone();
    let [blocks, head, _] = values(config);
    let of_blocks = most as f64 * blocks / (blocks + head);
    let narrower = (block_values(config) / of_blocks).sqrt().max(1.0).ceil() as usize;
    if narrower > 1 {
        let part = |size: usize| (size / narrower).max(1);
        // The number of query heads stays a multiple of the number of key heads.
        let group = config.num_attention_heads / config.num_key_value_heads;
        shape.num_key_value_heads = part(config.num_key_value_heads);
        shape.num_attention_heads = shape.num_key_value_heads * group;
        (shape.hidden_size, shape.intermediate_size) =
            (part(config.hidden_size), part(config.intermediate_size));
    }
    let fitting = (of_blocks / block_values(&shape)) as usize;
    shape.num_hidden_layers = config.num_hidden_layers.min(fitting.max(1));
    let of_head = values(&shape)[0] * head / blocks;
    shape.vocab_size = config.vocab_size.min((of_head as usize / shape.hidden_size).max(2));
    shape
}

/// Number of values of a block's matrices.
fn block_values(config: &LlamaConfig) -> f64 {
    values(config)[0] / config.num_hidden_layers as f64
}

/// Number of values of all blocks' matrices, of the head, and of the model.
fn values(config: &LlamaConfig) -> [f64; 3] {
    let parameters = config.parameters();
    [parameters.block_matrices(), parameters.head().size(), parameters.values()].map(|count| count as f64)
}
