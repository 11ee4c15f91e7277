//! The optimizer's operations: the norm of the gradient, and the update of a parameter.

use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor};

/// The settings of one step of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// The clipping factor, by which the gradient is multiplied first.
    pub clip: f64,
    /// η
    pub rate: f64,
    /// β₁
    pub beta_1: f64,
    /// β₂
    pub beta_2: f64,
    /// ε
    pub epsilon: f64,
    /// λ
    pub weight_decay: f64,
    /// t, from 1.
    pub step: i32,
}

/// The operations of the optimizer.
pub trait OptimizerKernels<B: Backend>: Copy + Send + Sync + 'static {
    /// `Σ x²`, `[1]`, in f32.
    fn squared_norm(x: Tensor<B, 1>) -> Tensor<B, 1> {
        let x = x.cast(FloatDType::F32);
        (x.clone() * x).sum()
    }

    /// One step of AdamW (arXiv 1711.05101) on a flattened parameter `p` with gradient `g` and f32 moments `m` and `v`.
    /// Returns `(p, m, v)`:
    ///
    /// ```text
    /// g ← clip g; m ← β₁m + (1-β₁)g; v ← β₂v + (1-β₂)g²
    /// p ← (1-ηλ)p - η/(1-β₁ᵗ) · m / (√(v/(1-β₂ᵗ)) + ε)
    /// ```
    fn adamw(
        value: Tensor<B, 1>,
        first: Tensor<B, 1>,
        second: Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        step: &AdamWStep,
    ) -> (Tensor<B, 1>, Tensor<B, 1>, Tensor<B, 1>) {
        let AdamWStep { clip, rate, beta_1, beta_2, epsilon, weight_decay, step } = *step;
        let gradient = gradient.cast(FloatDType::F32).mul_scalar(clip);
        let first = first.mul_scalar(beta_1) + gradient.clone().mul_scalar(1.0 - beta_1);
        let second = second.mul_scalar(beta_2) + (gradient.clone() * gradient).mul_scalar(1.0 - beta_2);
        let root = second.clone().div_scalar(1.0 - beta_2.powi(step)).sqrt() + epsilon;
        let change = (first.clone() / root).mul_scalar(rate / (1.0 - beta_1.powi(step)));
        let dtype: FloatDType = value.dtype().into();
        let value = value.mul_scalar(1.0 - rate * weight_decay).cast(FloatDType::F32) - change;
        (value.cast(dtype), first, second)
    }
}
