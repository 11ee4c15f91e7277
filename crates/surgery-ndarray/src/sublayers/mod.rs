//! The two sublayers of a block on contiguous floats, forward and backward. Each has three kinds of passes: products
//! and row operations over tiles of rows; attention over heads; and the gradients of matrices, which sum over all
//! rows, over tiles of the matrix. Tiles have fixed sizes, so results do not depend on the number of threads.

mod attention;
mod mlp;

use std::ops::Range;

use rayon::prelude::*;

use crate::buffer::Buffer;
use crate::gemm::{Into, Matrix, Panels, Tile, block_rows, multiply};
use crate::rows::{add, rms_norm, rms_norm_vjp};

pub(crate) use attention::{Attended, Attention, WEIGHTS as ATTENTION_WEIGHTS};
pub(crate) use mlp::{Gated, Mlp, WEIGHTS as MLP_WEIGHTS};

/// Rows of a tile: a multiple of every block height of matrix products, and few enough for a core's own cache.
pub(crate) const TILE: usize = 42;
/// Rows that the backward pass processes at a time, first for the gradient of the input, then for those of the
/// matrices. They are few enough for the results of the first part to remain in the cache for the second.
const CHUNK: usize = 12 * TILE;
/// Approximate number of rows of a matrix whose gradient is computed at a time.
const GRADIENT_ROWS: usize = 84;

/// The weight and epsilon of a norm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) epsilon: f32,
}

impl Norm<'_> {
    fn size(&self) -> usize {
        self.weight.len()
    }

    /// Applies the norm to every row of `x`, into `y`.
    pub(crate) fn forward(&self, x: &[f32], y: &mut [f32]) {
        for (x, y) in x.chunks_exact(self.size()).zip(y.chunks_exact_mut(self.size())) {
            rms_norm(x, self.weight, self.epsilon, y);
        }
    }

    /// The gradient of the rows plus `base`, into `gx`; the gradient of the weight is added to `gw`.
    fn backward(&self, x: &[f32], gy: &[f32], base: &[f32], gx: &mut [f32], gw: &mut [f32]) {
        let size = self.size();
        let rows = x.chunks_exact(size).zip(gy.chunks_exact(size)).zip(base.chunks_exact(size));
        for (((x, gy), base), gx) in rows.zip(gx.chunks_exact_mut(size)) {
            rms_norm_vjp(x, self.weight, self.epsilon, gy, base, gx, gw);
        }
    }

    /// The end of the backward pass of a tile through a sublayer: the gradient `gx` is `gy` plus the norm's part.
    /// The gradient of the weight is added to `gw`. `normed` receives the normed rows; `g_normed` is working memory.
    fn backward_tile(
        self,
        x: &[f32],
        gy: &[f32],
        g_normed: &mut [f32],
        gx: &mut [f32],
        gw: &mut [f32],
        normed: &mut Tile,
    ) {
        self.backward(x, g_normed, gy, gx, gw);
        self.forward(x, g_normed);
        normed.write(g_normed);
    }
}

/// Applies the norm to every row of `x`.
pub(crate) fn norm(x: &[f32], norm: Norm) -> Buffer {
    let mut y = Buffer::new(x.len());
    let tile = TILE * norm.size();
    y.par_chunks_mut(tile).zip(x.par_chunks(tile)).for_each(|(y, x)| norm.forward(x, y));
    y
}

/// The gradients of [`norm`]'s input and weight.
pub(crate) fn norm_vjp(x: &[f32], norm: Norm, gy: &[f32]) -> (Buffer, Vec<f32>) {
    let tile = TILE * norm.size();
    let mut gx = Buffer::new(x.len());
    let nothing = vec![0.0; tile];
    let parts: Vec<Vec<f32>> = gx
        .par_chunks_mut(tile)
        .zip(x.par_chunks(tile).zip(gy.par_chunks(tile)))
        .map(|(gx, (x, gy))| {
            let mut gw = vec![0.0; norm.size()];
            norm.backward(x, gy, &nothing, gx, &mut gw);
            gw
        })
        .collect();
    (gx, sum(parts, norm.size()))
}

/// The sum of the tiles' parts, in order.
fn sum(parts: Vec<Vec<f32>>, size: usize) -> Vec<f32> {
    let mut sum = vec![0.0; size];
    for part in parts {
        add(&mut sum, &part, 1.0);
    }
    sum
}

/// `x Wᵀ`: `[rows, in]` and `[out, in]` to `[rows, out]`.
pub(crate) fn project(x: &[f32], weight: &[f32], [out, inner]: [usize; 2]) -> Buffer {
    let rows = x.len() / inner;
    let mut y = Buffer::new(rows * out);
    if rows < 8 {
        // Too few rows to pay for packing the matrix.
        for (x, y) in x.chunks_exact(inner).zip(y.chunks_exact_mut(out)) {
            y.par_iter_mut().zip(weight.par_chunks_exact(inner)).with_min_len(64).for_each(|(y, w)| {
                *y = crate::rows::dot(x, w);
            });
        }
        return y;
    }
    let panels = Panels::new(Matrix::new(weight, [out, inner]).transposed());
    y.par_chunks_mut(TILE * out).zip(x.par_chunks(TILE * inner)).for_each(|(y, x)| {
        multiply(Matrix::new(x, [x.len() / inner, inner]), &panels, y, out, out, Into::Set);
    });
    y
}

/// The weights of a linear layer: its matrix, `[out, in]`, and its bias, `[out]`, if it has one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Linear<'a> {
    pub(crate) matrix: &'a [f32],
    pub(crate) bias: Option<&'a [f32]>,
}

/// The biases of layers with these widths side by side, zeros for a layer without one; empty if no layer has one.
fn biases<const N: usize>(layers: [(Linear, usize); N]) -> Vec<f32> {
    if layers.iter().all(|(layer, _)| layer.bias.is_none()) {
        return Vec::new();
    }
    let bias = |(layer, out): (Linear, usize)| layer.bias.map_or_else(|| vec![0.0; out], <[f32]>::to_vec);
    layers.into_iter().flat_map(bias).collect()
}

/// Adds `bias` to every row of `y`, if there is one.
fn add_bias(y: &mut [f32], bias: &[f32]) {
    if !bias.is_empty() {
        y.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias, 1.0));
    }
}

/// Adds every row of `gy` to `bias`, the gradient of a bias, if there is one.
fn add_rows(bias: &mut [f32], gy: &[f32]) {
    if !bias.is_empty() {
        gy.chunks_exact(bias.len()).for_each(|row| add(bias, row, 1.0));
    }
}

/// Parts of `values` with these lengths, in order.
fn split<const N: usize>(mut values: &mut [f32], lengths: [usize; N]) -> [&mut [f32]; N] {
    lengths.map(|length| {
        let (part, rest) = std::mem::take(&mut values).split_at_mut(length);
        values = rest;
        part
    })
}

/// Ranges of [`CHUNK`] rows.
pub(crate) fn chunks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(CHUNK).map(move |start| start..(start + CHUNK).min(rows))
}

/// The rows of `gy` and `x` of a product, and the shape of its matrix, `[out, in]`.
type Product<'a> = (Matrix<'a>, &'a Panels, [usize; 2]);

/// The products whose matrices' gradients are wanted, with where these go.
fn wanted<'a, const N: usize>(
    products: [Product<'a>; N],
    sums: &'a mut [Option<Buffer>; N],
) -> impl Iterator<Item = (Matrix<'a>, &'a Panels, [usize; 2], &'a mut [f32])> {
    let products = products.into_iter().zip(sums);
    products.filter_map(|((gy, x, shape), sum)| Some((gy, x, shape, &mut **sum.as_mut()?)))
}

/// The gradients `gyᵀ x` of matrices `[out, in]` that map rows of `x` to rows of `gy`. Several matrices are processed
/// together, so that no thread idles at the last tile of each.
pub(crate) fn matrix_gradients<'a>(
    products: impl IntoIterator<Item = (Matrix<'a>, &'a Panels, [usize; 2], &'a mut [f32])>,
    into: Into,
) {
    let tiles: Vec<(Matrix, &Panels, usize, &mut [f32])> = products
        .into_iter()
        .flat_map(|(gy, x, [out, inner], sum)| {
            // Equal shares in whole blocks.
            let rows = out.div_ceil(out.div_ceil(GRADIENT_ROWS)).next_multiple_of(block_rows());
            sum.chunks_mut(rows * inner)
                .enumerate()
                .map(move |(tile, sum)| (gy.columns(tile * rows, sum.len() / inner), x, inner, sum))
        })
        .collect();
    tiles.into_par_iter().for_each(|(gy, x, inner, sum)| {
        multiply(gy.transposed(), x, sum, inner, inner, into);
    });
}
