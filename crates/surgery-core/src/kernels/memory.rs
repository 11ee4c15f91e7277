//! The memory that the operations take, for the memory account before a step.

use burn::tensor::backend::Backend;

use crate::config::LlamaConfig;

/// The memory that the operations take.
pub trait Footprint<B: Backend>: Copy + Send + Sync + 'static {
    /// Memory that is allocated but not in use, as a share of the maximum in use at once.
    const RESERVE: f64 = 0.0;

    /// The approximate number of values that a block stores per token for the backward pass, its input excluded. No text
    /// is longer than `longest`. The default counts the values that autodiff stores for the portable forms, attention
    /// scores included.
    fn kept_values(config: &LlamaConfig, longest: usize) -> usize {
        let heads = config.num_attention_heads;
        12 * config.hidden_size
            + 10 * heads * config.head_dim
            + 6 * config.intermediate_size
            + 5 * heads * longest
    }

    /// The approximate number of values of working memory per token in the backward pass of a block. The default counts
    /// the gradients of the block's input and of the results of its products, and the operands of these products.
    fn work_values(config: &LlamaConfig) -> usize {
        5 * config.hidden_size + 2 * config.intermediate_size
    }
}
