//! The memory that the operations take, for the account of a step before it is run.

use burn::tensor::backend::Backend;

use crate::config::LlamaConfig;

/// The memory that the operations take.
pub trait Footprint<B: Backend>: Copy + Send + Sync + 'static {
    /// Working memory that is held but not in use, as a share of the most that is in use at once.
    const RESERVE: f64 = 0.0;

    /// The activations that are stored per token of a block for the backward pass, besides the block's input, in values
    /// and about. No text is longer than `longest`. Here: what autodiff stores of the portable forms, scores included.
    fn kept_values(config: &LlamaConfig, longest: usize) -> usize {
        let heads = config.num_attention_heads;
        12 * config.hidden_size
            + 10 * heads * config.head_dim
            + 6 * config.intermediate_size
            + 5 * heads * longest
    }

    /// The working memory of a block's backward pass per token, in values and about. Here: the gradients of its input and
    /// of the results of its products, and the operands of these products.
    fn work_values(config: &LlamaConfig) -> usize {
        5 * config.hidden_size + 2 * config.intermediate_size
    }
}
