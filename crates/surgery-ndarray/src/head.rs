//! The head on contiguous floats: losses of predictions, and their gradient in closed form. Memory holds the logits of one
//! chunk of positions, or without a gradient of one tile of a chunk.

use rayon::prelude::*;
use surgery_core::kernels::{TokenLoss, TokenLosses};

use crate::buffer::Buffer;
use crate::gemm::{Into, Matrix, Panels, multiply};
use crate::rows::{add, exponentials, scale};
use crate::simd::{LANES, exp, fma, total, vectorised};
use crate::sublayers::{TILE, chunks, matrix_gradients};

#[inline(always)]
fn log_sum_body<const FMA: bool>(x: &[f32], most: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += exp::<FMA>(*x - most);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += exp::<FMA>(*x - most);
    }
    most + total(lanes).ln()
}
vectorised!(
    /// `ln Σ e^x`; `most` is the maximum of `x`.
    fn log_sum_from(x: &[f32], most: f32) -> f32 = log_sum_body
);

/// `ln Σ e^x`
fn log_sum(x: &[f32]) -> f32 {
    log_sum_from(x, crate::rows::most(x))
}

#[inline(always)]
fn kl_body<const FMA: bool>(z: &mut [f32], reference: &[f32], log_sums: [f32; 2], coefficient: f32) -> f32 {
    let [log_sum, reference_log_sum] = log_sums;
    let mut lanes = [0.0; LANES];
    let step = |z: &mut f32, reference: f32, lane: &mut f32| {
        let (log_q, log_p) = (*z - log_sum, reference - reference_log_sum);
        let (q, p) = (exp::<FMA>(log_q), exp::<FMA>(log_p));
        *lane += fma::<FMA>(p, log_p - log_q, q - p);
        *z = coefficient * (q - p);
    };
    let ((whole, rest), (reference_whole, reference_rest)) =
        (z.as_chunks_mut::<LANES>(), reference.as_chunks::<LANES>());
    for (z, reference) in whole.iter_mut().zip(reference_whole) {
        for (lane, (z, reference)) in lanes.iter_mut().zip(z.iter_mut().zip(reference)) {
            step(z, *reference, lane);
        }
    }
    for (lane, (z, reference)) in lanes.iter_mut().zip(rest.iter_mut().zip(reference_rest)) {
        step(z, *reference, lane);
    }
    total(lanes)
}
vectorised!(
    /// `Σ p (log p - log q) + q - p` of two rows of logits with their log-sums; `z` becomes `coefficient (q - p)`,
    /// its gradient.
    fn kl_of_row(z: &mut [f32], reference: &[f32], log_sums: [f32; 2], coefficient: f32) -> f32 = kl_body
);

/// Predictions of one kind, with one value for each position.
#[derive(Clone, Copy)]
pub(crate) struct Predicted<'a> {
    /// The kind of loss.
    pub(crate) loss: TokenLoss,
    /// The predicted tokens; unused if the target is the reference's unshifted distribution.
    pub(crate) tokens: &'a [u32],
    /// The coefficient of each loss.
    pub(crate) coefficients: &'a [f32],
    /// Whether to measure the NLL of each token, too.
    pub(crate) is_nll_wanted: bool,
    /// The reference's hidden states, `[positions, width]`, and its head, `[vocab, width]`.
    pub(crate) reference: Option<(&'a [f32], &'a [f32])>,
}

#[inline(always)]
fn entropy_body<const FMA: bool>(z: &[f32], log_sum: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (whole, rest) = z.as_chunks::<LANES>();
    let step = |z: f32, lane: &mut f32| *lane = fma::<FMA>(exp::<FMA>(z - log_sum), log_sum - z, *lane);
    for chunk in whole {
        lanes.iter_mut().zip(chunk).for_each(|(lane, z)| step(*z, lane));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, z)| step(*z, lane));
    total(lanes)
}
vectorised!(
    /// The entropy of a row of logits, from the logarithm of the sum of their exponentials.
    fn entropy(z: &[f32], log_sum: f32) -> f32 = entropy_body
);

/// `(max z − mean z)²`; `z` becomes its gradient times `coefficient`.
fn spread(z: &mut [f32], coefficient: f32) -> f32 {
    let most = crate::rows::most(z);
    let at = z.iter().position(|value| *value == most).unwrap_or(0);
    let mean = z.iter().map(|&z| f64::from(z)).sum::<f64>() / z.len() as f64;
    let spread = (f64::from(z[at]) - mean) as f32;
    let slope = 2.0 * spread * coefficient;
    z.fill(-slope / z.len() as f32);
    z[at] += slope;
    spread * spread
}

/// The head's matrix `[vocab, hidden]`.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) matrix: &'a [f32],
    pub(crate) vocab: usize,
    pub(crate) size: usize,
}

impl Head<'_> {
    /// A packed matrix of a head. The reference's may have another width than the model's.
    fn logits(&self, matrix: &[f32]) -> Panels {
        Panels::new(Matrix::new(matrix, [self.vocab, matrix.len() / self.vocab]).transposed())
    }

    /// The losses of some positions (`states`, `[positions, hidden]`), without a gradient.
    pub(crate) fn losses(&self, states: &[f32], predicted: Predicted) -> Vec<f32> {
        let panels = self.logits(self.matrix);
        let reference = self.reference_panels(predicted);
        let mut losses = vec![0.0; states.len() / self.size];
        let tiles = losses.par_chunks_mut(TILE).zip(states.par_chunks(TILE * self.size)).enumerate();
        tiles.for_each(|(tile, (losses, states))| {
            let mut z = Buffer::new(losses.len() * self.vocab);
            self.rows(&panels, reference.as_ref(), predicted, tile * TILE, states, &mut z, (losses, &mut []));
        });
        losses
    }

    /// Adds the gradients of `Σ coefficient · loss` over some positions to `g_hidden` at `positions` and to `g_matrix`.
    /// `hidden` is `[rows, hidden]`. Returns the losses, and the NLLs if they are wanted.
    pub(crate) fn gradient(
        &self,
        hidden: &[f32],
        positions: &[usize],
        predicted: Predicted,
        g_hidden: &mut [f32],
        g_matrix: &mut [f32],
    ) -> TokenLosses {
        let Self { vocab, size, .. } = *self;
        let panels = self.logits(self.matrix);
        let reference = self.reference_panels(predicted);
        let back = Panels::new(Matrix::new(self.matrix, [vocab, size]));
        let mut loss = vec![0.0; positions.len()];
        let mut nll = vec![0.0; positions.len()];
        // The logits of a chunk stay in the cache until the matrix's gradient is computed from them.
        for chunk in chunks(positions.len()) {
            let (first, count) = (chunk.start, chunk.len());
            let positions = &positions[chunk];
            let (mut states, mut g_states) = (Buffer::new(count * size), Buffer::new(count * size));
            for (state, position) in states.chunks_exact_mut(size).zip(positions) {
                state.copy_from_slice(&hidden[position * size..(position + 1) * size]);
            }
            let mut z = Buffer::new(count * vocab);
            let tiles = z
                .par_chunks_mut(TILE * vocab)
                .zip(states.par_chunks(TILE * size).zip(g_states.par_chunks_mut(TILE * size)))
                .zip(loss[first..first + count].par_chunks_mut(TILE))
                .zip(nll[first..first + count].par_chunks_mut(TILE))
                .enumerate();
            tiles.for_each(|(tile, (((z, (states, g_states)), loss), nll))| {
                let (at, count) = (first + tile * TILE, loss.len());
                self.rows(&panels, reference.as_ref(), predicted, at, states, z, (loss, nll));
                multiply(Matrix::new(z, [count, vocab]), &back, g_states, size, size, Into::Set);
            });
            for (g_state, position) in g_states.chunks_exact(size).zip(positions) {
                add(&mut g_hidden[position * size..(position + 1) * size], g_state, 1.0);
            }
            let states = Panels::of_rows(&states, size);
            matrix_gradients(
                [(Matrix::new(&z, [count, vocab]), &states, [vocab, size], &mut *g_matrix)],
                Into::Add,
            );
        }
        if !predicted.is_nll_wanted {
            nll.clear();
        }
        TokenLosses { loss, nll }
    }

    fn reference_panels(&self, predicted: Predicted) -> Option<Panels> {
        predicted.reference.map(|(_, matrix)| self.logits(matrix))
    }

    /// The losses of positions from `first` on, and their NLLs if they are wanted. `z` becomes the gradients of their logits,
    /// times coefficients.
    #[allow(clippy::too_many_arguments)]
    fn rows(
        &self,
        panels: &Panels,
        reference_panels: Option<&Panels>,
        predicted: Predicted,
        first: usize,
        states: &[f32],
        z: &mut [f32],
        (losses, nll): (&mut [f32], &mut [f32]),
    ) {
        let Self { vocab, size, .. } = *self;
        let count = losses.len();
        multiply(Matrix::new(states, [count, size]), panels, z, vocab, vocab, Into::Set);
        let token = |row: usize| predicted.tokens[first + row] as usize;
        let coefficient = |row: usize| predicted.coefficients.get(first + row).copied().unwrap_or(1.0);
        if predicted.is_nll_wanted {
            for (row, (z, nll)) in z.chunks_exact(vocab).zip(nll).enumerate() {
                *nll = log_sum(z) - z[token(row)];
            }
        }
        let rows = z.chunks_exact_mut(vocab).zip(losses).enumerate();
        match predicted.loss {
            TokenLoss::Nll => {
                for (row, (z, loss)) in rows {
                    let (token, coefficient) = (token(row), coefficient(row));
                    let logit = z[token];
                    let (most, sum) = exponentials(z);
                    *loss = most - logit + sum.ln();
                    scale(z, coefficient / sum);
                    z[token] -= coefficient;
                }
            }
            TokenLoss::Spread => rows.for_each(|(row, (z, loss))| *loss = spread(z, coefficient(row))),
            TokenLoss::Distribution(distribution) => {
                let mut target = Buffer::new(count * vocab);
                if let (Some((hidden, matrix)), Some(panels)) = (predicted.reference, reference_panels) {
                    let size = matrix.len() / vocab;
                    let hidden = Matrix::new(&hidden[first * size..(first + count) * size], [count, size]);
                    multiply(hidden, panels, &mut target, vocab, vocab, Into::Set);
                }
                for ((row, (z, loss)), target) in rows.zip(target.chunks_exact_mut(vocab)) {
                    if !distribution.of_reference {
                        target.copy_from_slice(z);
                    }
                    if distribution.shift != 0.0 {
                        target[token(row)] += distribution.shift;
                    }
                    let log_sums = [log_sum(z), log_sum(target)];
                    *loss = kl_of_row(z, target, log_sums, coefficient(row));
                    if distribution.is_entropy_counted {
                        *loss += entropy(target, log_sums[1]);
                    }
                }
            }
        }
    }
}
