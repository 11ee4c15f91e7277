//! The seam between the method and a backend: the operations worth doing faster than by plain tensor ops.
//!
//! Every operation has a portable form here, in plain tensor ops that burn can differentiate. That form is
//! the oracle: a backend crate may override an operation for a type of its own, and is tested against this.

use burn::tensor::activation::{log_softmax, silu, softmax};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, FloatDType, Int, Tensor, Transaction};

use crate::config::LlamaConfig;
use crate::placement::Placement;
use crate::tensors::select;

/// What hides a key from a query: large enough that its softmax is exactly 0 in every dtype with f32's
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

/// What the head is to predict, and how much each prediction counts. The loss is
/// `Σ_i nll_coefficients_i NLL_i + Σ_j kl_coefficients_j KL_j`.
#[derive(Debug, Clone)]
pub struct Predictions<B: Backend> {
    /// The positions whose next token's NLL counts, among the flattened rows. Here and in `kl_positions`, no position
    /// stands twice.
    pub nll_positions: Vec<usize>,
    /// The tokens that should follow them.
    pub nll_tokens: Vec<u32>,
    /// By how much the loss grows with each of these NLLs.
    pub nll_coefficients: Vec<f32>,
    /// The positions whose divergence from the reference counts.
    pub kl_positions: Vec<usize>,
    /// By how much the loss grows with each of these divergences.
    pub kl_coefficients: Vec<f32>,
    /// The reference's hidden states at `kl_positions`, `[kl_positions, hidden]`, and its head,
    /// `[vocab, hidden]`; only where there are such positions.
    pub reference: Option<(Tensor<B, 2>, Tensor<B, 2>)>,
}

/// The losses of some predictions, and the gradient of their weighted sum.
#[derive(Debug, Clone)]
pub struct HeadGradient<B: Backend> {
    /// In nats, in the order of `nll_positions`.
    pub nll: Vec<f32>,
    /// In nats, in the order of `kl_positions`.
    pub kl: Vec<f32>,
    /// With respect to the hidden states, `[positions, hidden]`.
    pub hidden: Tensor<B, 2>,
    /// With respect to the head's matrix, `[vocab, hidden]`.
    pub head: Tensor<B, 2>,
}

/// One parameter's update by AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// What the gradient is multiplied by first: clipping.
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

/// Positions that pass through the head at once: their logits are all that exist of the `[tokens, vocab]`.
pub const HEAD_CHUNK: usize = 1024;

/// The operations of a Llama and of its head.
///
/// Shapes: `hidden` is the residual stream's size, `heads` and `kv_heads` count heads of size `head_dim`.
pub trait Kernels<B: Backend>: Copy + Send + Sync + 'static {
    /// Whether a batch is best laid out as one long row, without padding: so where attention costs by
    /// segments, and not by the length of a row.
    const ONE_ROW: bool = false;

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

    /// `a b` of values rounded to `dtype`, in f32: `[n, k]` and `[k, m]` to `[n, m]`. Nothing is differentiated through
    /// it.
    fn product(a: Tensor<B, 2>, b: Tensor<B, 2>, dtype: FloatDType) -> Tensor<B, 2> {
        rounded(a, dtype).matmul(rounded(b, dtype))
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

    /// What the head makes of hidden states, in f32 from products in the head's dtype: `[n, hidden]` and
    /// `[vocab, hidden]` to `[n, vocab]`.
    fn logits(hidden: Tensor<B, 2>, head: Tensor<B, 2>) -> Tensor<B, 2> {
        let dtype = dtype(&head);
        rounded(hidden, dtype).matmul(rounded(head, dtype).transpose())
    }

    /// The negative log-likelihood of each target in nats: hidden states `[n, hidden]`, head
    /// `[vocab, hidden]` and n token ids to `[n]`.
    fn nll(hidden: Tensor<B, 2>, head: Tensor<B, 2>, targets: &[u32]) -> Tensor<B, 1> {
        let targets = column(targets, &hidden.device());
        log_softmax(Self::logits(hidden, head), 1).gather(1, targets).reshape([-1]).neg()
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
        let log_q = log_softmax(Self::logits(hidden, head), 1);
        let log_p = log_softmax(Self::logits(reference_hidden, reference_head), 1);
        let (p, q) = (log_p.clone().exp(), log_q.clone().exp());
        (p.clone() * (log_p - log_q) + (q - p)).sum_dim(1).reshape([-1])
    }

    /// The [`nll`](Self::nll) of logits `[n, vocab]`, and the gradient of its weighted sum with respect to them:
    /// `coefficient (softmax(logits) - onehot(token))`.
    fn nll_gradient(
        logits: Tensor<B, 2>,
        tokens: &[u32],
        coefficients: &[f32],
    ) -> (Tensor<B, 1>, Tensor<B, 2>) {
        let device = logits.device();
        let tokens = column(tokens, &device);
        let log_q = log_softmax(logits, 1);
        let nll: Tensor<B, 2> = log_q.clone().gather(1, tokens.clone()).neg();
        let minus = nll.ones_like().neg();
        let into = burn::tensor::IndexingUpdateOp::Add;
        let gradient = log_q.exp().scatter(1, tokens, minus, into);
        (nll.reshape([-1]), gradient * Tensor::<B, 1>::from_data(coefficients, &device).reshape([-1, 1]))
    }

    /// The [`kl`](Self::kl) of logits `[n, vocab]` from the reference's, and the gradient of its weighted sum with
    /// respect to them: `coefficient (q - p)`.
    fn kl_gradient(
        logits: Tensor<B, 2>,
        reference: Tensor<B, 2>,
        coefficients: &[f32],
    ) -> (Tensor<B, 1>, Tensor<B, 2>) {
        let coefficients = Tensor::<B, 1>::from_data(coefficients, &logits.device());
        let (log_q, log_p) = (log_softmax(logits, 1), log_softmax(reference, 1));
        let (p, q) = (log_p.clone().exp(), log_q.clone().exp());
        let difference = q - p.clone();
        let kl = (p * (log_p - log_q) + difference.clone()).sum_dim(1);
        (kl.reshape([-1]), difference * coefficients.reshape([-1, 1]))
    }

    /// The losses of `predictions` and their gradient in closed form, [`HEAD_CHUNK`] positions at a time: with logits
    /// `z = h Wᵀ` and their gradient `∂z`, `∂h = ∂z W` and `∂W = ∂zᵀ h`, in f32. `hidden` is `[positions, hidden]`,
    /// `head` is `[vocab, hidden]`.
    fn head_gradient(
        hidden: Tensor<B, 2>,
        head: Tensor<B, 2>,
        predictions: &Predictions<B>,
    ) -> HeadGradient<B> {
        let device = hidden.device();
        let dtype = dtype(&head);
        let mut of_head = Tensor::zeros(head.dims(), (&device, DType::F32));
        let (mut losses, mut of_states) = (Vec::new(), Vec::new());
        let mut add = |positions: &[usize], loss: &dyn Fn(Tensor<B, 2>) -> (Tensor<B, 1>, Tensor<B, 2>)| {
            let states = select(hidden.clone(), positions.iter().copied());
            let (losses_here, logits) = loss(Self::logits(states.clone(), head.clone()));
            losses.push(losses_here);
            of_states.push(Self::product(logits.clone(), head.clone(), dtype));
            let here = Self::product(logits.transpose(), states, dtype);
            replace(&mut of_head, |head| head + here);
        };
        let chunks = |count: usize| {
            (0..count).step_by(HEAD_CHUNK).map(move |start| start..(start + HEAD_CHUNK).min(count))
        };
        for chunk in chunks(predictions.nll_positions.len()) {
            let tokens = &predictions.nll_tokens[chunk.clone()];
            let coefficients = &predictions.nll_coefficients[chunk.clone()];
            let loss = |logits| Self::nll_gradient(logits, tokens, coefficients);
            add(&predictions.nll_positions[chunk], &loss);
        }
        for chunk in chunks(predictions.kl_positions.len()) {
            let (was, head_was) = predictions.reference.clone().expect("a divergence is from a reference");
            let was = Self::logits(was.narrow(0, chunk.start, chunk.len()), head_was);
            let coefficients = &predictions.kl_coefficients[chunk.clone()];
            let loss = |logits| Self::kl_gradient(logits, was.clone(), coefficients);
            add(&predictions.kl_positions[chunk], &loss);
        }
        let losses = losses.into_iter().fold(Transaction::default(), Transaction::register).execute();
        let mut losses: Vec<f32> = losses
            .into_iter()
            .flat_map(|data| data.convert::<f32>().to_vec::<f32>().expect("converted to f32"))
            .collect();
        let kl = losses.split_off(predictions.nll_positions.len());
        // Positions that predict nothing take the row of zeros after all others: to gather is faster on a GPU than to
        // scatter.
        let predicted = losses.len() + kl.len();
        of_states.push(Tensor::zeros([1, hidden.dims()[1]], (&device, DType::F32)));
        let mut places = vec![predicted; hidden.dims()[0]];
        let positions = predictions.nll_positions.iter().chain(&predictions.kl_positions);
        for (place, &position) in positions.enumerate() {
            let before = std::mem::replace(&mut places[position], place);
            assert_eq!(before, predicted, "position {position} predicts two tokens");
        }
        let of_hidden = select(Tensor::cat(of_states, 0), places.into_iter());
        HeadGradient { nll: losses, kl, hidden: of_hidden, head: of_head }
    }

    /// `Σ x²`, `[1]`, in f32.
    fn squared_norm(x: Tensor<B, 1>) -> Tensor<B, 1> {
        let x = x.cast(FloatDType::F32);
        (x.clone() * x).sum()
    }

    /// One step of AdamW (arXiv 1711.05101) on a flattened parameter `p` with gradient `g` and f32 moments `m`
    /// and `v`, which it gives back as `(p, m, v)`:
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

/// The dtype of a tensor's values.
pub(crate) fn dtype<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> FloatDType {
    tensor.dtype().into()
}

/// Values rounded to `dtype`, as f32: what is multiplied then is summed in f32, whatever a backend does in `dtype`.
fn rounded<B: Backend, const D: usize>(x: Tensor<B, D>, dtype: FloatDType) -> Tensor<B, D> {
    x.cast(dtype).cast(FloatDType::F32)
}

/// Token ids as a column, `[n, 1]`.
fn column<B: Backend>(tokens: &[u32], device: &B::Device) -> Tensor<B, 2, Int> {
    let tokens: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    Tensor::<B, 1, Int>::from_data(tokens.as_slice(), device).reshape([-1, 1])
}

/// Changes a tensor that nobody else holds meanwhile, so that a backend may do so in place.
fn replace<B: Backend>(tensor: &mut Tensor<B, 2>, change: impl FnOnce(Tensor<B, 2>) -> Tensor<B, 2>) {
    let nothing = Tensor::empty([0, 0], &tensor.device());
    *tensor = change(std::mem::replace(tensor, nothing));
}

/// The portable form of every operation, for every backend.
#[derive(Debug, Clone, Copy, Default)]
pub struct Portable;

impl<B: Backend> Kernels<B> for Portable {}
