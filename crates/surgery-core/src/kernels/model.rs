//! The model's operations: embedding, norm, projections, rope, attention, SwiGLU, and the two sublayers of a block.

use burn::tensor::activation::{silu, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor};

use crate::placement::Placement;
use crate::tensors::{column, dtype};

/// The score of a key that a query may not see: low enough that its softmax is exactly 0 in every dtype with f32's
/// exponent, and finite, so that no NaN can arise from it.
const MASKED: f32 = -1e30;

/// A block's attention with the norm before it: matrices `[out, in]`.
#[derive(Debug, Clone)]
pub struct AttentionWeights<B: Backend> {
    /// `[hidden]`
    pub norm: Tensor<B, 1>,
    /// `[heads * head_dim, hidden]`
    pub query: Tensor<B, 2>,
    /// `[kv_heads * head_dim, hidden]`
    pub key: Tensor<B, 2>,
    /// `[kv_heads * head_dim, hidden]`
    pub value: Tensor<B, 2>,
    /// `[hidden, heads * head_dim]`
    pub output: Tensor<B, 2>,
    /// The norm's ε.
    pub epsilon: f64,
}

/// A block's feed-forward network with the norm before it: matrices `[out, in]`.
#[derive(Debug, Clone)]
pub struct MlpWeights<B: Backend> {
    /// `[hidden]`
    pub norm: Tensor<B, 1>,
    /// `[intermediate, hidden]`
    pub gate: Tensor<B, 2>,
    /// `[intermediate, hidden]`
    pub up: Tensor<B, 2>,
    /// `[hidden, intermediate]`
    pub down: Tensor<B, 2>,
    /// The norm's ε.
    pub epsilon: f64,
}

/// The keys and values of some texts so far, `[past, texts, kv_heads, head_dim]` each: in this order new ones are added
/// at the end.
pub type Memory<B> = Option<(Tensor<B, 4>, Tensor<B, 4>)>;

/// The operations of a Llama, from its embedding to its last norm.
///
/// Shapes: `hidden` is the residual stream's size, `heads` and `kv_heads` count heads of size `head_dim`.
pub trait ModelKernels<B: Backend>: Copy + Send + Sync + 'static {
    /// Whether a batch is best laid out as one long row, without padding: so where attention costs by
    /// segments, and not by the length of a row.
    const ONE_ROW: bool = false;

    /// The rows of `weight` that row-major token ids name: `[vocab, hidden]` and `[rows, columns]` ids to
    /// `[rows, columns, hidden]`.
    fn embed(weight: Tensor<B, 2>, tokens: &[u32], shape: [usize; 2]) -> Tensor<B, 3> {
        let ids = column(tokens, &weight.device()).reshape(shape);
        burn::tensor::module::embedding(weight, ids)
    }

    /// `x W^T`: `[rows, columns, in]` and `[out, in]` to `[rows, columns, out]`, in the weight's dtype.
    fn project(x: Tensor<B, 3>, weight: Tensor<B, 2>) -> Tensor<B, 3> {
        let [rows, columns, inner] = x.dims();
        let outer = weight.dims()[0];
        let x = x.cast(dtype(&weight)).reshape([rows * columns, inner]);
        x.matmul(weight.transpose()).reshape([rows, columns, outer])
    }

    /// `x / sqrt(mean(x²) + ε) · weight` over the last dimension (arXiv 1910.07467), computed in f32 and given in `into`:
    /// `[rows, columns, hidden]` and `[hidden]` to `[rows, columns, hidden]`.
    fn rms_norm(x: Tensor<B, 3>, weight: Tensor<B, 1>, epsilon: f64, into: FloatDType) -> Tensor<B, 3> {
        let (x, weight) = (x.cast(FloatDType::F32), weight.cast(FloatDType::F32));
        let mean_square = (x.clone() * x.clone()).mean_dim(2);
        (x / (mean_square + epsilon).sqrt() * weight.reshape([1, 1, -1])).cast(into)
    }

    /// Turns each pair (i, i + head_dim / 2) of every head by its position's angles (arXiv 2104.09864, in
    /// the half-split order of Hugging Face checkpoints): `[rows, columns, heads, head_dim]` to the same.
    fn rope(x: Tensor<B, 4>, placement: &Placement<B>) -> Tensor<B, 4> {
        let (half, dtype) = (x.dims()[3] / 2, dtype(&x));
        let x = x.cast(FloatDType::F32);
        let first = x.clone().narrow(3, 0, half);
        let second = x.narrow(3, half, half);
        let (cos, sin) = (placement.cos(), placement.sin());
        let turned =
            vec![first.clone() * cos.clone() - second.clone() * sin.clone(), second * cos + first * sin];
        Tensor::cat(turned, 3).cast(dtype)
    }

    /// Causal attention inside each segment: queries `[rows, columns, heads, head_dim]`, keys and values
    /// `[rows, keys, kv_heads, head_dim]` to `[rows, columns, heads, head_dim]`. Query head h reads
    /// key-value head h / (heads / kv_heads). Computed in f32, and given in the dtype of the queries.
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
        let dtype = dtype(&queries);
        let [queries, keys, values] = [queries, keys, values].map(|x| x.cast(FloatDType::F32));
        let queries = queries.swap_dims(1, 2).reshape([rows, kv_heads, group * columns, head_dim]);
        let keys = keys.permute([0, 2, 3, 1]);
        let values = values.swap_dims(1, 2);
        let scores = queries.matmul(keys).mul_scalar((head_dim as f64).powf(-0.5));
        let scores = scores
            .reshape([rows, heads, columns, length])
            .mask_fill(placement.mask().expand([rows, heads, columns, length]), MASKED);
        let weights = softmax(scores, 3).reshape([rows, kv_heads, group * columns, length]);
        weights.matmul(values).reshape([rows, heads, columns, head_dim]).swap_dims(1, 2).cast(dtype)
    }

    /// As [`attention`](Self::attention), of texts that go on: what `memory` holds of them comes before `keys` and
    /// `values`, which are added to it.
    fn remembering_attention(
        queries: Tensor<B, 4>,
        keys: Tensor<B, 4>,
        values: Tensor<B, 4>,
        placement: &Placement<B>,
        memory: &mut Memory<B>,
    ) -> Tensor<B, 4> {
        let (mut keys, mut values) = (keys.swap_dims(0, 1), values.swap_dims(0, 1));
        if let Some((past_keys, past_values)) = memory.take() {
            keys = Tensor::cat(vec![past_keys, keys], 0);
            values = Tensor::cat(vec![past_values, values], 0);
        }
        *memory = Some((keys.clone(), values.clone()));
        Self::attention(queries, keys.swap_dims(0, 1), values.swap_dims(0, 1), placement)
    }

    /// `silu(gate) · up` (arXiv 2002.05202): `[rows, columns, intermediate]` each.
    fn swiglu(gate: Tensor<B, 3>, up: Tensor<B, 3>) -> Tensor<B, 3> {
        let dtype = dtype(&gate);
        (silu(gate.cast(FloatDType::F32)) * up.cast(FloatDType::F32)).cast(dtype)
    }

    /// `x + W_o attention(rope(W_q n), rope(W_k n), W_v n)` with `n = rms_norm(x)`: `[rows, columns, hidden]`
    /// to the same. With a memory, its keys and values come first, and the new ones are added to it.
    fn attention_sublayer(
        x: Tensor<B, 3>,
        weights: AttentionWeights<B>,
        placement: &Placement<B>,
        memory: Option<&mut Memory<B>>,
    ) -> Tensor<B, 3> {
        let [rows, columns, _] = x.dims();
        let heads =
            |x: Tensor<B, 3>| x.reshape([rows as i32, columns as i32, -1, placement.head_dim() as i32]);
        let normed = Self::rms_norm(x.clone(), weights.norm, weights.epsilon, dtype(&weights.query));
        let queries = heads(Self::project(normed.clone(), weights.query));
        let keys = heads(Self::project(normed.clone(), weights.key));
        let values = heads(Self::project(normed, weights.value));
        let queries = Self::rope(queries, placement);
        let keys = Self::rope(keys, placement);
        let mixed = match memory {
            Some(memory) => Self::remembering_attention(queries, keys, values, placement, memory),
            None => Self::attention(queries, keys, values, placement),
        };
        let mixed = mixed.reshape([rows as i32, columns as i32, -1]);
        x.clone() + Self::project(mixed, weights.output).cast(dtype(&x))
    }

    /// `x + W_d (silu(W_g n) · W_u n)` with `n = rms_norm(x)`: `[rows, columns, hidden]` to the same.
    fn mlp_sublayer(x: Tensor<B, 3>, weights: MlpWeights<B>) -> Tensor<B, 3> {
        let normed = Self::rms_norm(x.clone(), weights.norm, weights.epsilon, dtype(&weights.gate));
        let gate = Self::project(normed.clone(), weights.gate);
        let up = Self::project(normed, weights.up);
        x.clone() + Self::project(Self::swiglu(gate, up), weights.down).cast(dtype(&x))
    }
}
