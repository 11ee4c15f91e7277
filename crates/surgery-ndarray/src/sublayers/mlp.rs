//! The feed-forward sublayer of a block, forward and backward.

use rayon::prelude::*;

use super::{Linear, Norm, TILE, add_bias, add_rows, biases, chunks, matrix_gradients, split, sum, wanted};
use crate::buffer::Buffer;
use crate::gemm::{Into, Matrix, Panels, multiply};
use crate::rows::{swiglu, swiglu_vjp};

/// Number of weights: the norm; the matrices of gate, up and down; their biases.
pub(crate) const WEIGHTS: usize = 7;

/// The weights of a feed-forward sublayer.
#[derive(Clone, Copy)]
pub(crate) struct Mlp<'a> {
    pub(crate) norm: Norm<'a>,
    pub(crate) gate: Linear<'a>,
    pub(crate) up: Linear<'a>,
    pub(crate) down: Linear<'a>,
}

/// Activations of a feed-forward sublayer stored for the backward pass, besides its input.
#[derive(Debug, Clone)]
pub(crate) struct Gated {
    /// Gate and up side by side.
    gated: Buffer,
}

impl Mlp<'_> {
    /// Hidden and intermediate size.
    fn sizes(&self) -> (usize, usize) {
        (self.norm.size(), self.gate.matrix.len() / self.norm.size())
    }

    /// Gate and up matrices, `[intermediate, hidden]`.
    fn inputs(&self) -> [Matrix<'_>; 2] {
        let (size, wide) = self.sizes();
        [self.gate, self.up].map(|layer| Matrix::new(layer.matrix, [wide, size]))
    }

    /// The biases of gate and up side by side.
    fn input_biases(&self) -> Vec<f32> {
        let (_, wide) = self.sizes();
        biases([(self.gate, wide), (self.up, wide)])
    }

    /// `x + W_d (silu(W_g n) · W_u n)`, `n = norm(x)`, with biases after the products, if there are any. Returns gate and up
    /// if `keep` is set.
    pub(crate) fn forward(&self, x: &[f32], keep: bool) -> (Buffer, Option<Gated>) {
        let (size, wide) = self.sizes();
        let inputs = Panels::beside(&self.inputs().map(Matrix::transposed));
        let down = Panels::new(Matrix::new(self.down.matrix, [size, wide]).transposed());
        let (biases, down_bias) = (self.input_biases(), self.down.bias.unwrap_or_default());
        let mut y = Buffer::new(x.len());
        let work = |y: &mut [f32], x: &[f32], gated: &mut [f32]| {
            let rows = x.len() / size;
            let (mut normed, mut mixed) = (Buffer::new(x.len()), Buffer::new(rows * wide));
            self.norm.forward(x, &mut normed);
            multiply(Matrix::new(&normed, [rows, size]), &inputs, gated, 2 * wide, 2 * wide, Into::Set);
            add_bias(gated, &biases);
            for (gated, mixed) in gated.chunks_exact(2 * wide).zip(mixed.chunks_exact_mut(wide)) {
                swiglu(&gated[..wide], &gated[wide..], mixed);
            }
            multiply(Matrix::new(&mixed, [rows, wide]), &down, y, size, size, Into::Onto(x));
            add_bias(y, down_bias);
        };
        let tiles = y.par_chunks_mut(TILE * size).zip(x.par_chunks(TILE * size));
        if keep {
            let mut gated = Buffer::new(x.len() / size * 2 * wide);
            tiles.zip(gated.par_chunks_mut(TILE * 2 * wide)).for_each(|((y, x), gated)| work(y, x, gated));
            return (y, Some(Gated { gated }));
        }
        tiles.for_each(|(y, x)| work(y, x, &mut Buffer::new(x.len() / size * 2 * wide)));
        (y, None)
    }

    /// The gradients of the input and of the weights, in the order of [`WEIGHTS`]. Those of matrices only if wanted.
    pub(crate) fn backward(
        &self,
        x: &[f32],
        gated: Gated,
        gy: &[f32],
        is_wanted: [bool; WEIGHTS],
    ) -> (Buffer, [Option<Vec<f32>>; WEIGHTS]) {
        let norm = self.norm;
        let (size, wide) = self.sizes();
        let rows = x.len() / size;
        let Gated { gated } = gated;
        let inputs = Panels::stacked(&self.inputs());
        let down = Panels::new(Matrix::new(self.down.matrix, [size, wide]));
        let mut gx = Buffer::new(x.len());
        let [_, gate, up, down_wanted, ..] = is_wanted;
        let mut sums = [gate, up, down_wanted].map(|wanted| wanted.then(|| Buffer::new(size * wide)));
        // The norm, the biases of gate and up, and that of down.
        let vectors = [size, self.input_biases().len(), self.down.bias.unwrap_or_default().len()];
        let mut parts = Vec::new();
        for chunk in chunks(rows) {
            let (states, count) = (chunk.start * size..chunk.end * size, chunk.len());
            let (mut normed, mut mixed) = (Panels::for_rows(count, size), Panels::for_rows(count, wide));
            let mut g_gated = Buffer::new(count * 2 * wide);
            let tiles = gx[states.clone()]
                .par_chunks_mut(TILE * size)
                .zip(
                    x[states.clone()].par_chunks(TILE * size).zip(gy[states.clone()].par_chunks(TILE * size)),
                )
                .zip(normed.tiles(TILE).zip(mixed.tiles(TILE)))
                .zip(gated[chunk.start * 2 * wide..].par_chunks(TILE * 2 * wide))
                .zip(g_gated.par_chunks_mut(TILE * 2 * wide));
            let of_tiles = tiles.map(|((((gx, (x, gy)), (mut normed, mut to_mixed)), gated), g_gated)| {
                let rows = gx.len() / size;
                let mut mixed = Buffer::new(rows * wide);
                multiply(Matrix::new(gy, [rows, size]), &down, &mut mixed, wide, wide, Into::Set);
                let gradients = g_gated.chunks_exact_mut(2 * wide).zip(mixed.chunks_exact_mut(wide));
                for (gated, (g_gated, mixed)) in gated.chunks_exact(2 * wide).zip(gradients) {
                    let ((gate, up), (g_gate, g_up)) = (gated.split_at(wide), g_gated.split_at_mut(wide));
                    swiglu_vjp(gate, up, mixed, g_gate, g_up);
                }
                to_mixed.write(&mixed);
                let mut g_normed = Buffer::new(gx.len());
                multiply(
                    Matrix::new(g_gated, [rows, 2 * wide]),
                    &inputs,
                    &mut g_normed,
                    size,
                    size,
                    Into::Set,
                );
                let mut part = vec![0.0; vectors.iter().sum()];
                let [g_norm, g_inputs, g_down] = split(&mut part, vectors);
                add_rows(g_inputs, g_gated);
                add_rows(g_down, gy);
                norm.backward_tile(x, gy, &mut g_normed, gx, g_norm, &mut normed);
                part
            });
            parts.extend(of_tiles.collect::<Vec<_>>());
            let g_gated = Matrix::new(&g_gated, [count, 2 * wide]);
            let products = [
                (g_gated.columns(0, wide), &normed, [wide, size]),
                (g_gated.columns(wide, wide), &normed, [wide, size]),
                (Matrix::new(&gy[states], [count, size]), &mixed, [size, wide]),
            ];
            matrix_gradients(wanted(products, &mut sums), Into::after(chunk.start));
        }
        let [gate, up, down] = sums.map(|sum| sum.map(Buffer::into_vec));
        let mut part = sum(parts, vectors.iter().sum());
        let [g_norm, g_inputs, g_down] = split(&mut part, vectors);
        let [g_gate, g_up] = split(g_inputs, if g_inputs.is_empty() { [0; 2] } else { [wide; 2] });
        let [norm, gate_bias, up_bias, down_bias] =
            [g_norm, g_gate, g_up, g_down].map(|gradient| (!gradient.is_empty()).then(|| gradient.to_vec()));
        (gx, [norm, gate, up, down, gate_bias, up_bias, down_bias])
    }
}
