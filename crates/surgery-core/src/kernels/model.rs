//! The model's operations: embedding, norm, projections, rope, attention, SwiGLU, and the two sublayers of a block.

use burn::tensor::activation::{silu, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor};

use crate::placement::Placement;
use crate::tensors::{column, dtype};

/// The score of a masked key. Its softmax is exactly 0 in every dtype with f32's exponent. It is finite, so that it cannot
/// cause a NaN.
const MASKED: f32 = -1e30;

/// The weights of a linear layer.
#[derive(Debug, Clone)]
pub struct LinearWeights<B: Backend> {
    /// `[out, in]`
    pub matrix: Tensor<B, 2>,
    /// `[out]`
    pub bias: Option<Tensor<B, 1>>,
}

/// The weights of a block's attention and of the norm before it. The shapes are those of matrices.
#[derive(Debug, Clone)]
pub struct AttentionWeights<B: Backend> {
    /// `[hidden]`
    pub norm: Tensor<B, 1>,
    /// `[heads * head_dim, hidden]`
    pub query: LinearWeights<B>,
    /// `[kv_heads * head_dim, hidden]`
    pub key: LinearWeights<B>,
    /// `[kv_heads * head_dim, hidden]`
    pub value: LinearWeights<B>,
    /// `[hidden, heads * head_dim]`
    pub output: LinearWeights<B>,
    /// The norm of each query head, `[head_dim]`, if the model has one.
    pub query_norm: Option<Tensor<B, 1>>,
    /// The norm of each key head, `[head_dim]`, if the model has one.
    pub key_norm: Option<Tensor<B, 1>>,
    /// The norms' ε.
    pub epsilon: f64,
}

/// The weights of a block's feed-forward network and of the norm before it. The shapes are those of matrices.
#[derive(Debug, Clone)]
pub struct MlpWeights<B: Backend> {
    /// `[hidden]`
    pub norm: Tensor<B, 1>,
    /// `[intermediate, hidden]`
    pub gate: LinearWeights<B>,
    /// `[intermediate, hidden]`
    pub up: LinearWeights<B>,
    /// `[hidden, intermediate]`
    pub down: LinearWeights<B>,
    /// The norm's ε.
    pub epsilon: f64,
}

impl<B: Backend> LinearWeights<B> {
    /// The dtype of the product.
    pub fn dtype(&self) -> FloatDType {
        dtype(&self.matrix)
    }
}

/// The cached keys and values of some texts, `[past, texts, kv_heads, head_dim]` each. In this layout new ones are appended
/// at the end.
pub type Memory<B> = Option<(Tensor<B, 4>, Tensor<B, 4>)>;

/// The operations of a Llama, from its embedding to its last norm.
///
/// Shapes: `hidden` is the residual stream's size, `heads` and `kv_heads` count heads of size `head_dim`.
pub trait ModelKernels<B: Backend>: Copy + Send + Sync + 'static {
    /// Whether a batch is packed into one long row, without padding. That is best if the cost of attention depends on the
    /// lengths of segments, not on the length of a row.
    const ONE_ROW: bool = false;

    /// The rows of `weight` at row-major token ids: `[vocab, hidden]` and `[rows, columns]` ids to `[rows, columns, hidden]`.
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

    /// `x W^T + b`, with shapes and dtype as in [`project`](Self::project).
    fn linear(x: Tensor<B, 3>, weights: LinearWeights<B>) -> Tensor<B, 3> {
        let y = Self::project(x, weights.matrix);
        match weights.bias {
            Some(bias) => y.clone() + bias.cast(dtype(&y)).reshape([1, 1, -1]),
            None => y,
        }
    }

    /// `x / sqrt(mean(x²) + ε) · weight` over the last dimension (arXiv 1910.07467), computed in f32 and cast to `into`:
    /// `[rows, columns, hidden]` and `[hidden]` to `[rows, columns, hidden]`.
    fn rms_norm(x: Tensor<B, 3>, weight: Tensor<B, 1>, epsilon: f64, into: FloatDType) -> Tensor<B, 3> {
        let (x, weight) = (x.cast(FloatDType::F32), weight.cast(FloatDType::F32));
        let mean_square = (x.clone() * x.clone()).mean_dim(2);
        (x / (mean_square + epsilon).sqrt() * weight.reshape([1, 1, -1])).cast(into)
    }

    /// As [`rms_norm`](Self::rms_norm), over each head, `[rows, columns, heads, head_dim]`, if there is a weight.
    fn head_norm(x: Tensor<B, 4>, weight: Option<Tensor<B, 1>>, epsilon: f64) -> Tensor<B, 4> {
        let Some(weight) = weight else { return x };
        let (shape, dtype) = (x.dims(), dtype(&x));
        let [rows, columns, heads, size] = shape;
        Self::rms_norm(x.reshape([rows, columns * heads, size]), weight, epsilon, dtype).reshape(shape)
    }

    /// Rotates each pair (i, i + head_dim / 2) of every head by the angles of its position (arXiv 2104.09864, in the
    /// half-split order of Hugging Face checkpoints): `[rows, columns, heads, head_dim]` to the same.
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
    /// `[rows, keys, kv_heads, head_dim]` to `[rows, columns, heads, head_dim]`. Query head h reads key-value head
    /// h / (heads / kv_heads). Computed in f32 and cast to the dtype of the queries.
    fn attention(
        queries: Tensor<B, 4>,
        keys: Tensor<B, 4>,
        values: Tensor<B, 4>,
        placement: &Placement<B>,
    ) -> Tensor<B, 4> {
        let [rows, columns, heads, head_dim] = queries.dims();
        let [_, length, kv_heads, _] = keys.dims();
        let group = heads / kv_heads;
        // Stack the query heads that share keys, so that one product computes them all.
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

    /// As [`attention`](Self::attention), for the next tokens of texts: the keys and values in `memory` precede `keys` and
    /// `values`, which are then appended to `memory`.
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

    /// `x + W_o attention(rope(W_q n), rope(W_k n), W_v n)` with `n = rms_norm(x)`: `[rows, columns, hidden]` to the same.
    /// Biases are added after the products, and heads are normed before their rotation, if the model has these weights.
    /// The keys and values in `memory` come first, and the new ones are appended to it.
    fn attention_sublayer(
        x: Tensor<B, 3>,
        weights: AttentionWeights<B>,
        placement: &Placement<B>,
        memory: Option<&mut Memory<B>>,
    ) -> Tensor<B, 3> {
        let [rows, columns, _] = x.dims();
        let heads =
            |x: Tensor<B, 3>| x.reshape([rows as i32, columns as i32, -1, placement.head_dim() as i32]);
        let normed = Self::rms_norm(x.clone(), weights.norm, weights.epsilon, weights.query.dtype());
        let queries = heads(Self::linear(normed.clone(), weights.query));
        let keys = heads(Self::linear(normed.clone(), weights.key));
        let values = heads(Self::linear(normed, weights.value));
        let queries = Self::head_norm(queries, weights.query_norm, weights.epsilon);
        let keys = Self::head_norm(keys, weights.key_norm, weights.epsilon);
        let queries = Self::rope(queries, placement);
        let keys = Self::rope(keys, placement);
        let mixed = match memory {
            Some(memory) => Self::remembering_attention(queries, keys, values, placement, memory),
            None => Self::attention(queries, keys, values, placement),
        };
        let mixed = mixed.reshape([rows as i32, columns as i32, -1]);
        x.clone() + Self::linear(mixed, weights.output).cast(dtype(&x))
    }

    /// `x + W_d (silu(W_g n) · W_u n)` with `n = rms_norm(x)`: `[rows, columns, hidden]` to the same. Biases are added after
    /// the products, if the model has them.
    fn mlp_sublayer(x: Tensor<B, 3>, weights: MlpWeights<B>) -> Tensor<B, 3> {
        let normed = Self::rms_norm(x.clone(), weights.norm, weights.epsilon, weights.gate.dtype());
        let gate = Self::linear(normed.clone(), weights.gate);
        let up = Self::linear(normed, weights.up);
        x.clone() + Self::linear(Self::swiglu(gate, up), weights.down).cast(dtype(&x))
    }
}
