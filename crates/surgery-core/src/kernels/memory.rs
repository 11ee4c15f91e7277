//! The memory that the operations take, for the account of a step before it is run.

use burn::tensor::backend::Backend;

use crate::config::LlamaConfig;

/// What the operations hold in memory.
pub trait Footprint<B: Backend>: Copy + Send + Sync + 'static {
    /// What is held of working memory beyond what is in use at once, as a share of that.
    const RESERVE: f64 = 0.0;

    /// About how many values the way back keeps of a token in a block, besides the block's input, where no text is
    /// longer than `longest`. Here: what autodiff keeps of the compositions below, scores included.
    fn kept_values(config: &LlamaConfig, longest: usize) -> usize {
        let heads = config.num_attention_heads;
        12 * config.hidden_size
            + 10 * heads * config.head_dim
            + 6 * config.intermediate_size
            + 5 * heads * longest
    }

    /// About how many values the way back of a block works in, of each token: here the gradients of its input and of
    /// what its products made, and these products' operands.
    fn work_values(config: &LlamaConfig) -> usize {
        5 * config.hidden_size + 2 * config.intermediate_size
    }
}
