//! The seam between the method and a backend: the operations worth doing faster than by plain tensor ops.
//!
//! Every operation has a portable form here, in plain tensor ops that burn can differentiate. That form is
//! the oracle: a backend crate may override an operation for a type of its own, and is tested against this.

use burn::tensor::activation::{log_softmax, silu, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};

use crate::placement::Placement;

/// What hides a key from a query: large enough that its softmax is exactly 0 in every dtype with f32's
/// exponent, and finite, so that no NaN can arise from it.
const MASKED: f32 = -1e30;

/// The operations of a Llama and of its head.
///
/// Shapes: `hidden` is the residual stream's size, `heads` and `kv_heads` count heads of size `head_dim`.
pub trait Kernels<B: Backend>: Copy + Send + Sync + 'static {
    /// `x W^T`: `[rows, columns, in]` and `[out, in]` to `[rows, columns, out]`.
    fn project(x: Tensor<B, 3>, weight: Tensor<B, 2>) -> Tensor<B, 3> {
        let [rows, columns, inner] = x.dims();
        let outer = weight.dims()[0];
        x.reshape([rows * columns, inner]).matmul(weight.transpose()).reshape([rows, columns, outer])
    }

    /// `x / sqrt(mean(x²) + ε) · weight` over the last dimension (arXiv 1910.07467): `[rows, columns,
    /// hidden]` and `[hidden]` to `[rows, columns, hidden]`.
    fn rms_norm(x: Tensor<B, 3>, weight: Tensor<B, 1>, epsilon: f64) -> Tensor<B, 3> {
        let mean_square = (x.clone() * x.clone()).mean_dim(2);
        x / (mean_square + epsilon).sqrt() * weight.reshape([1, 1, -1])
    }

    /// Turns each pair (i, i + head_dim / 2) of every head by its position's angles (arXiv 2104.09864, in
    /// the half-split order of Hugging Face checkpoints): `[rows, columns, heads, head_dim]` to the same.
    fn rope(x: Tensor<B, 4>, placement: &Placement<B>) -> Tensor<B, 4> {
        let half = x.dims()[3] / 2;
        let first = x.clone().narrow(3, 0, half);
        let second = x.narrow(3, half, half);
        let (cos, sin) = (placement.cos(), placement.sin());
        Tensor::cat(
            vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos + first * sin],
            3,
        )
    }

    /// Causal attention inside each segment: queries `[rows, columns, heads, head_dim]`, keys and values
    /// `[rows, keys, kv_heads, head_dim]` to `[rows, columns, heads, head_dim]`. Query head h reads
    /// key-value head h / (heads / kv_heads).
    fn attention(
        queries: Tensor<B, 4>,
        keys: Tensor<B, 4>,
        values: Tensor<B, 4>,
        placement: &Placement<B>,
    ) -> Tensor<B, 4> {
        let [rows, columns, heads, head_dim] = queries.dims();
        let [_, length, kv_heads, _] = keys.dims();
        let group = heads / kv_heads;
        // The heads that share keys stand beneath one another, so that one product serves them all.
        let queries = queries.swap_dims(1, 2).reshape([rows, kv_heads, group * columns, head_dim]);
        let keys = keys.permute([0, 2, 3, 1]);
        let values = values.swap_dims(1, 2);
        let scores = queries.matmul(keys).mul_scalar((head_dim as f64).powf(-0.5));
        let scores = scores
            .reshape([rows, heads, columns, length])
            .mask_fill(placement.mask().expand([rows, heads, columns, length]), MASKED);
        let weights = softmax(scores, 3).reshape([rows, kv_heads, group * columns, length]);
        weights.matmul(values).reshape([rows, heads, columns, head_dim]).swap_dims(1, 2)
    }

    /// `silu(gate) · up` (arXiv 2002.05202): `[rows, columns, intermediate]` each.
    fn swiglu(gate: Tensor<B, 3>, up: Tensor<B, 3>) -> Tensor<B, 3> {
        silu(gate) * up
    }

    /// The negative log-likelihood of each target in nats: hidden states `[n, hidden]`, head
    /// `[vocab, hidden]` and n token ids to `[n]`.
    fn nll(hidden: Tensor<B, 2>, head: Tensor<B, 2>, targets: &[u32]) -> Tensor<B, 1> {
        let count = targets.len();
        let targets: Vec<i32> = targets.iter().map(|&token| token as i32).collect();
        let device = hidden.device();
        let targets = Tensor::<B, 2, Int>::from_data(TensorData::new(targets, [count, 1]), &device);
        log_softmax(hidden.matmul(head.transpose()), 1).gather(1, targets).reshape([count]).neg()
    }

    /// `KL(p ‖ q)` in nats for each position, p being the reference's distribution and q the model's: hidden
    /// states `[n, hidden]` and head `[vocab, hidden]` of both to `[n]`. Nothing is differentiated through
    /// the reference where it comes without a graph.
    ///
    /// Computed as `Σ_v p_v (log p_v - log q_v) + q_v - p_v`. The last two sum to 0, and cancel what
    /// rounding the two normalisers does to the first: in f32 that is the difference between an error of
    /// 1e-6 and one of 1e-7, and the gradient of two equal distributions is exactly 0.
    fn kl(
        hidden: Tensor<B, 2>,
        head: Tensor<B, 2>,
        reference_hidden: Tensor<B, 2>,
        reference_head: Tensor<B, 2>,
    ) -> Tensor<B, 1> {
        let count = hidden.dims()[0];
        let log_q = log_softmax(hidden.matmul(head.transpose()), 1);
        let log_p = log_softmax(reference_hidden.matmul(reference_head.transpose()), 1);
        let (p, q) = (log_p.clone().exp(), log_q.clone().exp());
        (p.clone() * (log_p - log_q) + (q - p)).sum_dim(1).reshape([count])
    }
}

/// The portable form of every operation, for every backend.
#[derive(Debug, Clone, Copy, Default)]
pub struct Portable;

impl<B: Backend> Kernels<B> for Portable {}
