//! The seam between the method and a backend: the operations worth doing faster than by plain tensor ops.
//!
//! There is one trait for each part that a backend author implements together: [`ModelKernels`] (the blocks),
//! [`HeadKernels`] (logits and losses), [`OptimizerKernels`] (norm and update), and [`Footprint`] (the memory that these
//! take). A type that implements all four is [`Kernels`], which is what the rest of the program asks for.
//!
//! Every operation has a portable form here, in plain tensor ops that burn can differentiate. That form is
//! the oracle: a backend crate may override an operation for a type of its own, and is tested against this.

mod head;
mod memory;
mod model;
mod optimizer;

use burn::tensor::backend::Backend;

pub use head::{
    Distribution, HEAD_CHUNK, HeadGradient, HeadKernels, Predictions, REMOVED, TokenLoss, TokenLosses,
};
pub use memory::Footprint;
pub use model::{AttentionWeights, Memory, MlpWeights, ModelKernels};
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
