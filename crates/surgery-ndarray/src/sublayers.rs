//! The two sublayers of a block on contiguous floats, forward and backward. Each has three kinds of passes: products
//! and row operations over tiles of rows; attention over heads; and the gradients of matrices, which sum over all
//! rows, over tiles of the matrix. Tiles have fixed sizes, so results do not depend on the number of threads.

use std::ops::Range;

use rayon::prelude::*;
use surgery_core::placement::Layout;

use crate::attention::{self, Forward, Heads};
use crate::buffer::Buffer;
use crate::gemm::{Into, Matrix, Panels, Tile, block_rows, multiply};
use crate::rows::{rms_norm, rms_norm_vjp, rope, swiglu, swiglu_vjp};

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
    /// Returns the gradient of the norm's weight. `normed` receives the normed rows; `g_normed` is working memory.
    fn backward_tile(
        self,
        x: &[f32],
        gy: &[f32],
        g_normed: &mut [f32],
        gx: &mut [f32],
        normed: &mut Tile,
    ) -> Vec<f32> {
        let mut g_norm = vec![0.0; self.size()];
        self.backward(x, g_normed, gy, gx, &mut g_norm);
        self.forward(x, g_normed);
        normed.write(g_normed);
        g_norm
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
        crate::rows::add(&mut sum, &part, 1.0);
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

/// The weights of an attention sublayer: matrices `[out, in]`.
#[derive(Clone, Copy)]
pub(crate) struct Attention<'a> {
    pub(crate) norm: Norm<'a>,
    pub(crate) query: &'a [f32],
    pub(crate) key: &'a [f32],
    pub(crate) value: &'a [f32],
    pub(crate) output: &'a [f32],
    pub(crate) heads: Heads,
}

/// Activations of an attention sublayer stored for the backward pass, besides its input.
#[derive(Debug, Clone)]
pub(crate) struct Attended {
    /// Queries, keys and values side by side; rotated, queries scaled.
    qkv: Buffer,
    out: Buffer,
    log_sums: Buffer,
}

impl Attention<'_> {
    /// Query, key and value matrices, `[out, in]`.
    fn inputs(&self) -> [Matrix<'_>; 3] {
        let (size, heads) = (self.norm.size(), self.heads);
        [(self.query, heads.width()), (self.key, heads.key_width()), (self.value, heads.key_width())]
            .map(|(weight, out)| Matrix::new(weight, [out, size]))
    }

    /// `x + W_o attention(rope(W_q n), rope(W_k n), W_v n)`, `n = norm(x)`. The rotation also scales the queries.
    pub(crate) fn forward(&self, x: &[f32], layout: &Layout) -> (Buffer, Attended) {
        let Self { norm, heads, .. } = *self;
        let (size, width, row) = (norm.size(), heads.width(), heads.row());
        let rows = x.len() / size;
        let inputs = Panels::beside(&self.inputs().map(Matrix::transposed));
        let mut qkv = Buffer::new(rows * row);
        let tiles = qkv.par_chunks_mut(TILE * row).zip(x.par_chunks(TILE * size)).enumerate();
        tiles.for_each(|(tile, (qkv, x))| {
            let mut normed = Buffer::new(x.len());
            norm.forward(x, &mut normed);
            multiply(Matrix::new(&normed, [x.len() / size, size]), &inputs, qkv, row, row, Into::Set);
            turn(qkv, tile * TILE, heads, layout, 1.0);
        });
        drop(inputs);

        let (out, log_sums) = attention::forward(&qkv, heads, layout);

        let output = Panels::new(Matrix::new(self.output, [size, width]).transposed());
        let mut y = Buffer::new(x.len());
        let tiles = y.par_chunks_mut(TILE * size).zip(x.par_chunks(TILE * size));
        tiles.zip(out.par_chunks(TILE * width)).for_each(|((y, x), out)| {
            multiply(Matrix::new(out, [out.len() / width, width]), &output, y, size, size, Into::Onto(x));
        });
        (y, Attended { qkv, out, log_sums })
    }

    /// The gradients of the input and of norm, query, key, value and output: of those that `weights` asks for.
    pub(crate) fn backward(
        &self,
        x: &[f32],
        attended: Attended,
        gy: &[f32],
        layout: &Layout,
        weights: [bool; 5],
    ) -> (Buffer, [Option<Vec<f32>>; 5]) {
        let Self { norm, heads, .. } = *self;
        let (size, width, key_width, row) = (norm.size(), heads.width(), heads.key_width(), heads.row());
        let rows = x.len() / size;
        let Attended { qkv, out, log_sums } = attended;
        let output = Panels::new(Matrix::new(self.output, [size, width]));
        let mut g_out = Buffer::new(rows * width);
        g_out.par_chunks_mut(TILE * width).zip(gy.par_chunks(TILE * size)).for_each(|(g_out, gy)| {
            multiply(Matrix::new(gy, [gy.len() / size, size]), &output, g_out, width, width, Into::Set);
        });
        let forward = Forward { qkv: &qkv, out: &out, log_sums: &log_sums };
        let mut g_qkv = attention::backward(forward, &g_out, heads, layout);
        drop((qkv, log_sums, g_out, output));

        let inputs = Panels::stacked(&self.inputs());
        let mut gx = Buffer::new(x.len());
        let [norm_wanted, query, key, value, output] = weights;
        let matrices = [(query, width), (key, key_width), (value, key_width), (output, width)];
        let mut sums = matrices.map(|(wanted, out)| wanted.then(|| Buffer::new(out * size)));
        let mut parts = Vec::new();
        for chunk in chunks(rows) {
            let (states, count) = (chunk.start * size..chunk.end * size, chunk.len());
            let g_qkv = &mut g_qkv[chunk.start * row..chunk.end * row];
            let mut normed = Panels::for_rows(count, size);
            let tiles = gx[states.clone()]
                .par_chunks_mut(TILE * size)
                .zip(
                    x[states.clone()].par_chunks(TILE * size).zip(gy[states.clone()].par_chunks(TILE * size)),
                )
                .zip(normed.tiles(TILE))
                .zip(g_qkv.par_chunks_mut(TILE * row))
                .enumerate();
            let of_tiles = tiles.map(|(tile, (((gx, (x, gy)), mut normed), g_qkv))| {
                turn(g_qkv, chunk.start + tile * TILE, heads, layout, -1.0);
                let mut g_normed = Buffer::new(gx.len());
                let g_qkv = Matrix::new(g_qkv, [gx.len() / size, row]);
                multiply(g_qkv, &inputs, &mut g_normed, size, size, Into::Set);
                norm.backward_tile(x, gy, &mut g_normed, gx, &mut normed)
            });
            parts.extend(of_tiles.collect::<Vec<_>>());
            let out = Panels::of_rows(&out[chunk.start * width..chunk.end * width], width);
            let g_qkv = Matrix::new(g_qkv, [count, row]);
            let products = [
                (g_qkv.columns(0, width), &normed, [width, size]),
                (g_qkv.columns(width, key_width), &normed, [key_width, size]),
                (g_qkv.columns(width + key_width, key_width), &normed, [key_width, size]),
                (Matrix::new(&gy[states], [count, size]), &out, [size, width]),
            ];
            matrix_gradients(wanted(products, &mut sums), Into::after(chunk.start));
        }
        let [query, key, value, output] = sums.map(|sum| sum.map(Buffer::into_vec));
        (gx, [norm_wanted.then(|| sum(parts, size)), query, key, value, output])
    }
}

/// Rotates queries and keys of the rows from `first` on by the angles of their positions, and scales the queries.
/// `way` is 1, or -1 for the inverse.
fn turn(qkv: &mut [f32], first: usize, heads: Heads, layout: &Layout, way: f32) {
    let scale = (heads.size as f32).powf(-0.5);
    for (qkv, &position) in qkv.chunks_exact_mut(heads.row()).zip(&layout.positions[first..]) {
        let (q, kv) = qkv.split_at_mut(heads.width());
        let (cos, sin) = layout.angles(position);
        rope(q, cos, sin, way, scale);
        rope(&mut kv[..heads.key_width()], cos, sin, way, 1.0);
    }
}

/// The weights of a feed-forward sublayer: matrices `[out, in]`.
#[derive(Clone, Copy)]
pub(crate) struct Mlp<'a> {
    pub(crate) norm: Norm<'a>,
    pub(crate) gate: &'a [f32],
    pub(crate) up: &'a [f32],
    pub(crate) down: &'a [f32],
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
        (self.norm.size(), self.gate.len() / self.norm.size())
    }

    /// Gate and up matrices, `[intermediate, hidden]`.
    fn inputs(&self) -> [Matrix<'_>; 2] {
        let (size, wide) = self.sizes();
        [self.gate, self.up].map(|weight| Matrix::new(weight, [wide, size]))
    }

    /// `x + W_d (silu(W_g n) · W_u n)`, `n = norm(x)`. Returns gate and up if `keep` is set.
    pub(crate) fn forward(&self, x: &[f32], keep: bool) -> (Buffer, Option<Gated>) {
        let (size, wide) = self.sizes();
        let inputs = Panels::beside(&self.inputs().map(Matrix::transposed));
        let down = Panels::new(Matrix::new(self.down, [size, wide]).transposed());
        let mut y = Buffer::new(x.len());
        let work = |y: &mut [f32], x: &[f32], gated: &mut [f32]| {
            let rows = x.len() / size;
            let (mut normed, mut mixed) = (Buffer::new(x.len()), Buffer::new(rows * wide));
            self.norm.forward(x, &mut normed);
            multiply(Matrix::new(&normed, [rows, size]), &inputs, gated, 2 * wide, 2 * wide, Into::Set);
            for (gated, mixed) in gated.chunks_exact(2 * wide).zip(mixed.chunks_exact_mut(wide)) {
                swiglu(&gated[..wide], &gated[wide..], mixed);
            }
            multiply(Matrix::new(&mixed, [rows, wide]), &down, y, size, size, Into::Onto(x));
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

    /// The gradients of the input and of norm, gate, up and down: of those that `weights` asks for.
    pub(crate) fn backward(
        &self,
        x: &[f32],
        gated: Gated,
        gy: &[f32],
        weights: [bool; 4],
    ) -> (Buffer, [Option<Vec<f32>>; 4]) {
        let norm = self.norm;
        let (size, wide) = self.sizes();
        let rows = x.len() / size;
        let Gated { gated } = gated;
        let inputs = Panels::stacked(&self.inputs());
        let down = Panels::new(Matrix::new(self.down, [size, wide]));
        let mut gx = Buffer::new(x.len());
        let [norm_wanted, matrices @ ..] = weights;
        let mut sums = matrices.map(|wanted| wanted.then(|| Buffer::new(size * wide)));
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
                norm.backward_tile(x, gy, &mut g_normed, gx, &mut normed)
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
        (gx, [norm_wanted.then(|| sum(parts, size)), gate, up, down])
    }
}
