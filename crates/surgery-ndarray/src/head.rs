//! The head on contiguous floats: losses of predictions, and their gradient in closed form. Logits exist for one
//! chunk of positions, or without a gradient for one tile of it.

use rayon::prelude::*;

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
    /// `ln Σ e^x`, `most` being the largest of `x`.
    fn log_sum_from(x: &[f32], most: f32) -> f32 = log_sum_body
);

/// `ln Σ e^x`
fn log_sum(x: &[f32]) -> f32 {
    log_sum_from(x, crate::rows::most(x))
}

#[inline(always)]
fn kl_body<const FMA: bool>(z: &mut [f32], was: &[f32], log_sums: [f32; 2], coefficient: f32) -> f32 {
    let [log_sum, log_sum_was] = log_sums;
    let mut lanes = [0.0; LANES];
    let step = |z: &mut f32, was: f32, lane: &mut f32| {
        let (log_q, log_p) = (*z - log_sum, was - log_sum_was);
        let (q, p) = (exp::<FMA>(log_q), exp::<FMA>(log_p));
        *lane += fma::<FMA>(p, log_p - log_q, q - p);
        *z = coefficient * (q - p);
    };
    let ((whole, rest), (whole_was, rest_was)) = (z.as_chunks_mut::<LANES>(), was.as_chunks::<LANES>());
    for (z, was) in whole.iter_mut().zip(whole_was) {
        for (lane, (z, was)) in lanes.iter_mut().zip(z.iter_mut().zip(was)) {
            step(z, *was, lane);
        }
    }
    for (lane, (z, was)) in lanes.iter_mut().zip(rest.iter_mut().zip(rest_was)) {
        step(z, *was, lane);
    }
    total(lanes)
}
vectorised!(
    /// `Σ p (log p - log q) + q - p` of two rows of logits with their log-sums; `z` becomes `coefficient (q - p)`,
    /// its gradient.
    fn kl_of_row(z: &mut [f32], was: &[f32], log_sums: [f32; 2], coefficient: f32) -> f32 = kl_body
);

/// What a position's logits are held against.
#[derive(Clone, Copy)]
pub(crate) enum Held<'a> {
    /// The tokens that follow, one a position.
    Tokens(&'a [u32]),
    /// The reference's hidden states, `[positions, width]`, and its head, `[vocab, width]`.
    Reference(&'a [f32], &'a [f32]),
}

/// The head's matrix `[vocab, hidden]`.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) matrix: &'a [f32],
    pub(crate) vocab: usize,
    pub(crate) size: usize,
}

impl Head<'_> {
    /// A head's matrix, packed; the reference's may be of another width than the model's.
    fn logits(&self, matrix: &[f32]) -> Panels {
        Panels::new(Matrix::new(matrix, [self.vocab, matrix.len() / self.vocab]).transposed())
    }

    /// The losses of some positions (`states`, `[positions, hidden]`), without a gradient.
    pub(crate) fn losses(&self, states: &[f32], held: Held) -> Vec<f32> {
        let panels = self.logits(self.matrix);
        let panels_was = self.panels_was(held);
        let mut losses = vec![0.0; states.len() / self.size];
        let tiles = losses.par_chunks_mut(TILE).zip(states.par_chunks(TILE * self.size)).enumerate();
        tiles.for_each(|(tile, (losses, states))| {
            let mut z = Buffer::new(losses.len() * self.vocab);
            let ones = [1.0; TILE];
            self.rows(&panels, panels_was.as_ref(), held, tile * TILE, states, &ones, &mut z, losses);
        });
        losses
    }

    /// Adds the gradients of `Σ coefficient · loss` over some positions: to `g_hidden` at `positions`, and to
    /// `g_matrix`. `hidden` is `[rows, hidden]`. Gives the losses.
    pub(crate) fn gradient(
        &self,
        hidden: &[f32],
        positions: &[usize],
        held: Held,
        coefficients: &[f32],
        g_hidden: &mut [f32],
        g_matrix: &mut [f32],
    ) -> Vec<f32> {
        let Self { vocab, size, .. } = *self;
        let panels = self.logits(self.matrix);
        let panels_was = self.panels_was(held);
        let back = Panels::new(Matrix::new(self.matrix, [vocab, size]));
        let mut losses = vec![0.0; positions.len()];
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
                .zip(losses[first..first + count].par_chunks_mut(TILE))
                .zip(coefficients[first..first + count].par_chunks(TILE))
                .enumerate();
            tiles.for_each(|(tile, (((z, (states, g_states)), losses), coefficients))| {
                let at = first + tile * TILE;
                self.rows(&panels, panels_was.as_ref(), held, at, states, coefficients, z, losses);
                multiply(Matrix::new(z, [losses.len(), vocab]), &back, g_states, size, size, Into::Set);
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
        losses
    }

    fn panels_was(&self, held: Held) -> Option<Panels> {
        match held {
            Held::Tokens(_) => None,
            Held::Reference(_, matrix) => Some(self.logits(matrix)),
        }
    }

    /// The losses of positions from `first` on, and in `z` the gradients of their logits, times coefficients.
    #[allow(clippy::too_many_arguments)]
    fn rows(
        &self,
        panels: &Panels,
        panels_was: Option<&Panels>,
        held: Held,
        first: usize,
        states: &[f32],
        coefficients: &[f32],
        z: &mut [f32],
        losses: &mut [f32],
    ) {
        let Self { vocab, size, .. } = *self;
        let shape = [losses.len(), size];
        multiply(Matrix::new(states, shape), panels, z, vocab, vocab, Into::Set);
        match held {
            Held::Tokens(tokens) => {
                let rows = z.chunks_exact_mut(vocab).zip(coefficients).zip(&tokens[first..]);
                for (((z, coefficient), &token), loss) in rows.zip(losses) {
                    let logit = z[token as usize];
                    let (most, sum) = exponentials(z);
                    *loss = most - logit + sum.ln();
                    scale(z, coefficient / sum);
                    z[token as usize] -= coefficient;
                }
            }
            Held::Reference(hidden, matrix) => {
                let panels = panels_was.expect("packed for a reference");
                let size = matrix.len() / vocab;
                let hidden = &hidden[first * size..(first + losses.len()) * size];
                let mut was = Buffer::new(z.len());
                multiply(
                    Matrix::new(hidden, [losses.len(), size]),
                    panels,
                    &mut was,
                    vocab,
                    vocab,
                    Into::Set,
                );
                let rows = z.chunks_exact_mut(vocab).zip(was.chunks_exact(vocab)).zip(coefficients);
                for (((z, was), coefficient), loss) in rows.zip(losses) {
                    *loss = kl_of_row(z, was, [log_sum(z), log_sum(was)], *coefficient);
                }
            }
        }
    }
}
