//! The interface between the method and a backend: operations that a backend can make faster than plain tensor ops.
//!
//! There are four traits: [`ModelKernels`] (the blocks), [`HeadKernels`] (logits and losses), [`OptimizerKernels`] (norm
//! and update), and [`Footprint`] (their memory). A type that implements all four is [`Kernels`], which the rest of the
//! program uses.
//!
//! Every operation has a portable form here, in plain tensor ops that burn can differentiate. A backend crate may override
//! an operation for a type of its own. Tests compare it with the portable form.

mod head;
mod memory;
mod model;
mod optimizer;

use burn::tensor::backend::Backend;

pub use head::{
    Distribution, HEAD_CHUNK, HeadGradient, HeadKernels, Predictions, REMOVED, TokenLoss, TokenLosses,
};
pub use memory::Footprint;
pub use model::{AttentionWeights, LinearWeights, Memory, MlpWeights, ModelKernels};
pub use optimizer::{AdamWStep, OptimizerKernels};

/// All operations of a model, its head and its optimizer, and the memory that they take.
pub trait Kernels<B: Backend>: ModelKernels<B> + HeadKernels<B> + OptimizerKernels<B> + Footprint<B> {}

impl<B: Backend, K> Kernels<B> for K where
    K: ModelKernels<B> + HeadKernels<B> + OptimizerKernels<B> + Footprint<B>
{
}

/// The portable form of every operation, for every backend.
#[derive(Debug, Clone, Copy, Default)]
pub struct Portable;

impl<B: Backend> ModelKernels<B> for Portable {}
impl<B: Backend> HeadKernels<B> for Portable {}
impl<B: Backend> OptimizerKernels<B> for Portable {}
impl<B: Backend> Footprint<B> for Portable {}
