//! The head's operations: logits, the losses, and their gradients in closed form.

use std::ops::Range;

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, FloatDType, IndexingUpdateOp, Tensor};

use crate::tensors::{column, dtype, replace, rounded, select};

/// The loss of a predicted token: a function of the logits z that predict it, with q = softmax(z).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TokenLoss {
    /// −log q(token). Its gradient is q − onehot(token).
    Nll,
    /// A divergence of q from a target distribution p. Its gradient is q − p.
    Distribution(Distribution),
    /// (max z − mean z)². Its gradient is 2(max z − mean z)(onehot(argmax) − 1/vocab).
    Spread,
}

/// A target distribution p, and the kind of divergence from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distribution {
    /// Whether p comes from the reference's logits; otherwise from the model's own, without a gradient through them.
    pub of_reference: bool,
    /// A value added to the token's logit in p.
    pub shift: f32,
    /// Whether the loss is CE(p, q) = KL(p ‖ q) + H(p); otherwise it is KL(p ‖ q).
    pub is_entropy_counted: bool,
}

/// A shift that removes a token from a distribution: its probability becomes exactly 0 in every dtype with f32's exponent.
/// It is finite, so that it cannot cause a NaN.
pub const REMOVED: f32 = -1e30;

/// Predictions of one kind. Their loss is `Σ_i coefficients_i loss_i`.
#[derive(Debug, Clone)]
pub struct Predictions<B: Backend> {
    /// The kind of loss.
    pub loss: TokenLoss,
    /// The positions that predict, in the flattened rows. No position occurs twice, here or in other predictions.
    pub positions: Vec<usize>,
    /// The token that each position predicts.
    pub tokens: Vec<u32>,
    /// The coefficient of each loss.
    pub coefficients: Vec<f32>,
    /// Whether to measure the NLL of each token, too.
    pub is_nll_wanted: bool,
    /// The reference's hidden states at `positions`, `[positions, hidden]`, and its head, `[vocab, hidden]`; `None` if the
    /// loss does not use the reference's distribution.
    pub reference: Option<(Tensor<B, 2>, Tensor<B, 2>)>,
}

/// The losses of some predictions, and the gradient of their weighted sum.
#[derive(Debug, Clone)]
pub struct HeadGradient<B: Backend> {
    /// The losses, in the order of the predictions.
    pub losses: Vec<TokenLosses>,
    /// The gradient with respect to the hidden states, `[positions, hidden]`.
    pub hidden: Tensor<B, 2>,
    /// The gradient with respect to the head's matrix, `[vocab, hidden]`.
    pub head: Tensor<B, 2>,
}

/// The losses of predictions of one kind, in the order of their positions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenLosses {
    /// The losses.
    pub loss: Vec<f32>,
    /// The NLLs in nats; empty if they were not wanted.
    pub nll: Vec<f32>,
}

/// Number of positions that pass through the head at once. Memory holds only the logits of these positions.
pub const HEAD_CHUNK: usize = 1024;

/// The operations of a Llama's head.
///
/// Shapes: `hidden` is the residual stream's size, `vocab` the number of tokens.
pub trait HeadKernels<B: Backend>: Copy + Send + Sync + 'static {
    /// The logits of hidden states, in f32 from products in the head's dtype: `[n, hidden]` and
    /// `[vocab, hidden]` to `[n, vocab]`.
    fn logits(hidden: Tensor<B, 2>, head: Tensor<B, 2>) -> Tensor<B, 2> {
        let dtype = dtype(&head);
        rounded(hidden, dtype).matmul(rounded(head, dtype).transpose())
    }

    /// `a b` of values rounded to `dtype`, in f32: `[n, k]` and `[k, m]` to `[n, m]`. It has no gradient.
    fn product(a: Tensor<B, 2>, b: Tensor<B, 2>, dtype: FloatDType) -> Tensor<B, 2> {
        rounded(a, dtype).matmul(rounded(b, dtype))
    }

    /// The negative log-likelihood of each target in nats: hidden states `[n, hidden]`, head
    /// `[vocab, hidden]` and n token ids to `[n]`.
    fn nll(hidden: Tensor<B, 2>, head: Tensor<B, 2>, targets: &[u32]) -> Tensor<B, 1> {
        let targets = column(targets, &hidden.device());
        log_softmax(Self::logits(hidden, head), 1).gather(1, targets).reshape([-1]).neg()
    }

    /// `KL(p ‖ q)` in nats for each position, with the reference's distribution p and the model's distribution q: hidden
    /// states `[n, hidden]` and head `[vocab, hidden]` of both to `[n]`. The reference has no gradient if its tensors have
    /// no graph.
    ///
    /// Computed as `Σ_v p_v (log p_v - log q_v) + q_v - p_v`. The last two terms sum to 0 and cancel the rounding errors of
    /// the two normalisers in the first. In f32 that reduces the error from 1e-6 to 1e-7, and the gradient of two equal
    /// distributions is exactly 0.
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
        let gradient = log_q.exp().scatter(1, tokens, minus, IndexingUpdateOp::Add);
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

    /// The NLL of each token in nats from logits `[n, vocab]`: `[n]`.
    fn nll_of_logits(logits: Tensor<B, 2>, tokens: &[u32]) -> Tensor<B, 1> {
        let tokens = column(tokens, &logits.device());
        log_softmax(logits, 1).gather(1, tokens).reshape([-1]).neg()
    }

    /// [`TokenLoss::Spread`] of logits `[n, vocab]`, and the gradient of its weighted sum with respect to them.
    fn spread_gradient(logits: Tensor<B, 2>, coefficients: &[f32]) -> (Tensor<B, 1>, Tensor<B, 2>) {
        let vocab = logits.dims()[1];
        let coefficients = Tensor::<B, 1>::from_data(coefficients, &logits.device()).reshape([-1, 1]);
        let (most, at) = logits.clone().max_dim_with_indices(1);
        let spread = most - logits.clone().mean_dim(1);
        let slope = coefficients * spread.clone().mul_scalar(2.0);
        let gradient = slope.clone().mul_scalar(-1.0 / vocab as f64).expand(logits.dims());
        let gradient = gradient.scatter(1, at, slope, IndexingUpdateOp::Add);
        ((spread.clone() * spread).reshape([-1]), gradient)
    }

    /// The losses of all `predictions` and their gradient in closed form, [`HEAD_CHUNK`] positions at a time: with logits
    /// `z = h Wᵀ` and their gradient `∂z`, `∂h = ∂z W` and `∂W = ∂zᵀ h`, in f32. `hidden` is `[positions, hidden]`,
    /// `head` is `[vocab, hidden]`.
    fn head_gradient(
        hidden: Tensor<B, 2>,
        head: Tensor<B, 2>,
        predictions: &[Predictions<B>],
    ) -> HeadGradient<B> {
        let device = hidden.device();
        let dtype = dtype(&head);
        let mut of_head = Tensor::zeros(head.dims(), (&device, DType::F32));
        let mut of_states = Vec::new();
        // All losses, and all NLLs, are read from the device at once. There may be no NLLs.
        let (mut losses, mut nll) = (Vec::new(), Vec::new());
        for predictions in predictions {
            for start in (0..predictions.positions.len()).step_by(HEAD_CHUNK) {
                let chunk = start..(start + HEAD_CHUNK).min(predictions.positions.len());
                let states = select(hidden.clone(), predictions.positions[chunk.clone()].iter().copied());
                let logits = Self::logits(states.clone(), head.clone());
                if predictions.is_nll_wanted {
                    nll.push(Self::nll_of_logits(logits.clone(), &predictions.tokens[chunk.clone()]));
                }
                let (loss, gradient) = logits_gradient::<B, Self>(logits, predictions, chunk);
                losses.push(loss);
                of_states.push(Self::product(gradient.clone(), head.clone(), dtype));
                let here = Self::product(gradient.transpose(), states, dtype);
                replace(&mut of_head, |head| head + here);
            }
        }
        let values = |chunks: Vec<Tensor<B, 1>>| match chunks.is_empty() {
            true => Vec::new(),
            false => {
                let data = Tensor::cat(chunks, 0).into_data();
                data.convert::<f32>().to_vec::<f32>().expect("converted to f32")
            }
        };
        let (mut loss, mut nll) = (values(losses).into_iter(), values(nll).into_iter());
        let losses = predictions.iter().map(|predictions| {
            let count = predictions.positions.len();
            let wanted = if predictions.is_nll_wanted { count } else { 0 };
            TokenLosses {
                loss: loss.by_ref().take(count).collect(),
                nll: nll.by_ref().take(wanted).collect(),
            }
        });
        let losses: Vec<TokenLosses> = losses.collect();
        // Positions that predict nothing take the last row, which is zeros: a gather is faster on a GPU than a scatter.
        let predicted = losses.iter().map(|losses| losses.loss.len()).sum();
        of_states.push(Tensor::zeros([1, hidden.dims()[1]], (&device, DType::F32)));
        let mut places = vec![predicted; hidden.dims()[0]];
        let positions = predictions.iter().flat_map(|predictions| &predictions.positions);
        for (place, &position) in positions.enumerate() {
            let before = std::mem::replace(&mut places[position], place);
            assert_eq!(before, predicted, "position {position} predicts two tokens");
        }
        let of_hidden = select(Tensor::cat(of_states, 0), places.into_iter());
        HeadGradient { losses, hidden: of_hidden, head: of_head }
    }
}

/// The losses of a chunk of predictions, `[n]`, and the gradient of their weighted sum with respect to logits `[n, vocab]`.
fn logits_gradient<B: Backend, K: HeadKernels<B>>(
    logits: Tensor<B, 2>,
    predictions: &Predictions<B>,
    chunk: Range<usize>,
) -> (Tensor<B, 1>, Tensor<B, 2>) {
    let tokens = &predictions.tokens[chunk.clone()];
    let coefficients = &predictions.coefficients[chunk.clone()];
    match predictions.loss {
        TokenLoss::Nll => K::nll_gradient(logits, tokens, coefficients),
        TokenLoss::Spread => K::spread_gradient(logits, coefficients),
        TokenLoss::Distribution(distribution) => {
            let target = match distribution.of_reference {
                false => logits.clone(),
                true => {
                    let (states, head) = predictions.reference.clone().expect("the reference's distribution");
                    K::logits(states.narrow(0, chunk.start, chunk.len()), head)
                }
            };
            let target = distribution.shifted(target, tokens);
            let entropy = distribution.is_entropy_counted.then(|| entropy(target.clone()));
            let (loss, gradient) = K::kl_gradient(logits, target, coefficients);
            (entropy.map_or(loss.clone(), |entropy| loss + entropy), gradient)
        }
    }
}

impl Distribution {
    /// The logits of p, from the unshifted logits: `[n, vocab]`.
    pub(crate) fn shifted<B: Backend>(&self, logits: Tensor<B, 2>, tokens: &[u32]) -> Tensor<B, 2> {
        if self.shift == 0.0 {
            return logits;
        }
        let device = logits.device();
        let shift = Tensor::full([tokens.len(), 1], self.shift, (&device, DType::F32));
        logits.scatter(1, column(tokens, &device), shift, IndexingUpdateOp::Add)
    }
}

/// H(p) of each row of logits, in nats: `[n, vocab]` to `[n]`.
fn entropy<B: Backend>(logits: Tensor<B, 2>) -> Tensor<B, 1> {
    let log_p = log_softmax(logits, 1);
    (log_p.clone().exp() * log_p).sum_dim(1).reshape([-1]).neg()
}
