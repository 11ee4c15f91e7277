//! The head's operations: logits, the losses, and their gradients in closed form.

use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, FloatDType, Tensor, Transaction};

use crate::tensors::{column, dtype, replace, rounded, select};

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

/// Positions that pass through the head at once: their logits are all that exist of the `[tokens, vocab]`.
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

    /// `a b` of values rounded to `dtype`, in f32: `[n, k]` and `[k, m]` to `[n, m]`. Nothing is differentiated through
    /// it.
    fn product(a: Tensor<B, 2>, b: Tensor<B, 2>, dtype: FloatDType) -> Tensor<B, 2> {
        rounded(a, dtype).matmul(rounded(b, dtype))
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
}
