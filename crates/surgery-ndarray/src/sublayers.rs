//! The two halves of a block on contiguous floats, forward and backward, each in three kinds of passes: products
//! and row operations over tiles of rows, attention over heads, and the gradients of matrices, which sum over
//! all rows, over tiles of the matrix. Tiles are of fixed size, so that the number of threads changes nothing.

use rayon::prelude::*;
use surgery_core::placement::Layout;

use crate::attention::{self, Forward, Heads};
use crate::buffer::Buffer;
use crate::gemm::{Into, Matrix, Panels, multiply};
use crate::rows::{rms_norm, rms_norm_vjp, rope, swiglu, swiglu_vjp};

/// Rows of a tile: a whole number of the blocks that matrix products work in, few enough for a core's own cache.
const TILE: usize = 126;
/// Rows of a matrix whose gradient is computed at once.
const GRADIENT_ROWS: usize = 56;

/// A norm and the hidden size it works on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) epsilon: f32,
}

impl Norm<'_> {
    fn size(&self) -> usize {
        self.weight.len()
    }

    /// Norms every row of `x` into `y`.
    pub(crate) fn forward(&self, x: &[f32], y: &mut [f32]) {
        for (x, y) in x.chunks_exact(self.size()).zip(y.chunks_exact_mut(self.size())) {
            rms_norm(x, self.weight, self.epsilon, y);
        }
    }

    /// Adds the gradient of the rows to `gx`, and that of the weight to `gw`.
    fn backward(&self, x: &[f32], gy: &[f32], gx: &mut [f32], gw: &mut [f32]) {
        let rows = x.chunks_exact(self.size()).zip(gy.chunks_exact(self.size()));
        for ((x, gy), gx) in rows.zip(gx.chunks_exact_mut(self.size())) {
            rms_norm_vjp(x, self.weight, self.epsilon, gy, gx, gw);
        }
    }
}

/// Norms every row of `x`.
pub(crate) fn norm(x: &[f32], norm: Norm) -> Buffer {
    let mut y = Buffer::new(x.len());
    let tile = TILE * norm.size();
    y.par_chunks_mut(tile).zip(x.par_chunks(tile)).for_each(|(y, x)| norm.forward(x, y));
    y
}

/// The gradients of [`norm`]'s input and weight.
pub(crate) fn norm_vjp(x: &[f32], norm: Norm, gy: &[f32]) -> (Buffer, Vec<f32>) {
    let tile = TILE * norm.size();
    let mut gx = Buffer::zeros(x.len());
    let parts: Vec<Vec<f32>> = gx
        .par_chunks_mut(tile)
        .zip(x.par_chunks(tile).zip(gy.par_chunks(tile)))
        .map(|(gx, (x, gy))| {
            let mut gw = vec![0.0; norm.size()];
            norm.backward(x, gy, gx, &mut gw);
            gw
        })
        .collect();
    (gx, sum(parts, norm.size()))
}

/// The sum of the tiles' parts, in their order.
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
        // Too few to pay for packing the matrix.
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

/// The gradient of [`project`]'s input: `gy W`.
pub(crate) fn project_vjp(gy: &[f32], weight: &[f32], [out, inner]: [usize; 2]) -> Buffer {
    let panels = Panels::new(Matrix::new(weight, [out, inner]));
    let mut gx = Buffer::new(gy.len() / out * inner);
    gx.par_chunks_mut(TILE * inner).zip(gy.par_chunks(TILE * out)).for_each(|(gx, gy)| {
        multiply(Matrix::new(gy, [gy.len() / out, out]), &panels, gx, inner, inner, Into::Set);
    });
    gx
}

/// The gradient of a matrix `[out, in]` that made `gy`'s rows of `x`'s: `gyᵀ x`, added to `sum`.
pub(crate) fn add_matrix_gradient(gy: &[f32], x: &Panels, [out, inner]: [usize; 2], sum: &mut [f32]) {
    let gy = Matrix::new(gy, [gy.len() / out, out]).transposed();
    sum.par_chunks_mut(GRADIENT_ROWS * inner).enumerate().for_each(|(tile, sum)| {
        let rows = gy.rows(tile * GRADIENT_ROWS, sum.len() / inner);
        multiply(rows, x, sum, inner, inner, Into::Add);
    });
}

fn matrix_gradient(gy: &[f32], x: &Panels, shape: [usize; 2]) -> Vec<f32> {
    let mut gradient = Buffer::zeros(shape[0] * shape[1]);
    add_matrix_gradient(gy, x, shape, &mut gradient);
    gradient.into_vec()
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

/// What the way back needs of an attention sublayer, besides its input.
#[derive(Debug, Clone)]
pub(crate) struct Attended {
    q: Buffer,
    k: Buffer,
    v: Buffer,
    out: Buffer,
    log_sums: Buffer,
}

impl Attention<'_> {
    /// `x + W_o attention(rope(W_q n), rope(W_k n), W_v n)`, `n = norm(x)`. Queries are scaled when they are turned.
    pub(crate) fn forward(&self, x: &[f32], layout: &Layout) -> (Buffer, Attended) {
        let Self { norm, heads, .. } = *self;
        let (size, width, key_width) = (norm.size(), heads.width(), heads.key_width());
        let rows = x.len() / size;
        let panels = |weight, out| Panels::new(Matrix::new(weight, [out, size]).transposed());
        let matrices =
            [panels(self.query, width), panels(self.key, key_width), panels(self.value, key_width)];
        let (mut q, mut k, mut v) =
            (Buffer::new(rows * width), Buffer::new(rows * key_width), Buffer::new(rows * key_width));
        let tiles = q
            .par_chunks_mut(TILE * width)
            .zip(k.par_chunks_mut(TILE * key_width).zip(v.par_chunks_mut(TILE * key_width)))
            .zip(x.par_chunks(TILE * size))
            .enumerate();
        tiles.for_each(|(tile, ((q, (k, v)), x))| {
            let mut normed = Buffer::new(x.len());
            norm.forward(x, &mut normed);
            let normed = Matrix::new(&normed, [x.len() / size, size]);
            for (panels, to, out) in [
                (&matrices[0], &mut *q, width),
                (&matrices[1], &mut *k, key_width),
                (&matrices[2], &mut *v, key_width),
            ] {
                multiply(normed, panels, to, out, out, Into::Set);
            }
            turn(q, k, tile * TILE, heads, layout, 1.0);
        });
        drop(matrices);

        let mut out = Buffer::zeros(rows * width);
        let mut log_sums = Buffer::zeros(rows * heads.queries);
        attention::forward([&q, &k, &v], heads, layout, &mut out, &mut log_sums);

        let output = Panels::new(Matrix::new(self.output, [size, width]).transposed());
        let mut y = Buffer::new(x.len());
        let tiles = y.par_chunks_mut(TILE * size).zip(x.par_chunks(TILE * size));
        tiles.zip(out.par_chunks(TILE * width)).for_each(|((y, x), out)| {
            y.copy_from_slice(x);
            multiply(Matrix::new(out, [out.len() / width, width]), &output, y, size, size, Into::Add);
        });
        (y, Attended { q, k, v, out, log_sums })
    }

    /// The gradients of the input and of norm, query, key, value and output.
    pub(crate) fn backward(
        &self,
        x: &[f32],
        attended: Attended,
        gy: &[f32],
        layout: &Layout,
    ) -> (Buffer, [Vec<f32>; 5]) {
        let Self { norm, heads, .. } = *self;
        let (size, width, key_width) = (norm.size(), heads.width(), heads.key_width());
        let Attended { q, k, v, out, log_sums } = &attended;
        let g_out = project_vjp(gy, self.output, [size, width]);
        let g_output =
            matrix_gradient(gy, &Panels::new(Matrix::new(out, [x.len() / size, width])), [size, width]);
        let forward = Forward { q, k, v, out, log_sums };
        let (mut gq, mut gk, gv) = attention::backward(forward, &g_out, heads, layout);
        drop((attended, g_out));

        let panels = |weight, out| Panels::new(Matrix::new(weight, [out, size]));
        let matrices =
            [panels(self.query, width), panels(self.key, key_width), panels(self.value, key_width)];
        let (mut gx, mut normed) = (Buffer::new(x.len()), Buffer::new(x.len()));
        let parts: Vec<Vec<f32>> = gx
            .par_chunks_mut(TILE * size)
            .zip(normed.par_chunks_mut(TILE * size))
            .zip(gq.par_chunks_mut(TILE * width).zip(gk.par_chunks_mut(TILE * key_width)))
            .enumerate()
            .map(|(tile, ((gx, normed), (gq, gk)))| {
                let rows = gx.len() / size;
                let here = tile * TILE * size..tile * TILE * size + gx.len();
                turn(gq, gk, tile * TILE, heads, layout, -1.0);
                let gv = &gv[tile * TILE * key_width..][..rows * key_width];
                let mut g_normed = Buffer::new(gx.len());
                for (panels, from, out, into) in [
                    (&matrices[0], &*gq, width, Into::Set),
                    (&matrices[1], &*gk, key_width, Into::Add),
                    (&matrices[2], gv, key_width, Into::Add),
                ] {
                    multiply(Matrix::new(from, [rows, out]), panels, &mut g_normed, size, size, into);
                }
                let x = &x[here.clone()];
                norm.forward(x, normed);
                gx.copy_from_slice(&gy[here]);
                let mut g_norm = vec![0.0; size];
                norm.backward(x, &g_normed, gx, &mut g_norm);
                g_norm
            })
            .collect();
        let normed = Panels::new(Matrix::new(&normed, [x.len() / size, size]));
        let weights = [
            sum(parts, size),
            matrix_gradient(&gq, &normed, [width, size]),
            matrix_gradient(&gk, &normed, [key_width, size]),
            matrix_gradient(&gv, &normed, [key_width, size]),
            g_output,
        ];
        (gx, weights)
    }
}

/// Turns queries and keys of rows from `first` on by their places' angles, and scales the queries.
fn turn(q: &mut [f32], k: &mut [f32], first: usize, heads: Heads, layout: &Layout, way: f32) {
    let half = heads.size / 2;
    let scale = (heads.size as f32).powf(-0.5);
    let rows = q.chunks_exact_mut(heads.width()).zip(k.chunks_exact_mut(heads.key_width()));
    for ((q, k), place) in rows.zip(&layout.positions[first..]) {
        let angles = place * half..(place + 1) * half;
        let (cos, sin) = (&layout.cos[angles.clone()], &layout.sin[angles]);
        rope(q, cos, sin, way, scale);
        rope(k, cos, sin, way, 1.0);
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

/// What the way back needs of a feed-forward sublayer, besides its input.
#[derive(Debug, Clone)]
pub(crate) struct Gated {
    gate: Buffer,
    up: Buffer,
}

impl Mlp<'_> {
    /// `x + W_d (silu(W_g n) · W_u n)`, `n = norm(x)`; gate and up are kept where `keep` asks for them.
    pub(crate) fn forward(&self, x: &[f32], keep: bool) -> (Buffer, Option<Gated>) {
        let norm = self.norm;
        let size = norm.size();
        let wide = self.gate.len() / size;
        let rows = x.len() / size;
        let panels = |weight, out, inner| Panels::new(Matrix::new(weight, [out, inner]).transposed());
        let (gates, ups) = (panels(self.gate, wide, size), panels(self.up, wide, size));
        let downs = panels(self.down, size, wide);
        let mut y = Buffer::new(x.len());
        let work = |y: &mut [f32], x: &[f32], gate: &mut [f32], up: &mut [f32]| {
            let rows = x.len() / size;
            let (mut normed, mut mixed) = (Buffer::new(x.len()), Buffer::new(rows * wide));
            norm.forward(x, &mut normed);
            let normed = Matrix::new(&normed, [rows, size]);
            multiply(normed, &gates, gate, wide, wide, Into::Set);
            multiply(normed, &ups, up, wide, wide, Into::Set);
            swiglu(gate, up, &mut mixed);
            y.copy_from_slice(x);
            multiply(Matrix::new(&mixed, [rows, wide]), &downs, y, size, size, Into::Add);
        };
        let tiles = y.par_chunks_mut(TILE * size).zip(x.par_chunks(TILE * size));
        if keep {
            let (mut gate, mut up) = (Buffer::new(rows * wide), Buffer::new(rows * wide));
            let kept = gate.par_chunks_mut(TILE * wide).zip(up.par_chunks_mut(TILE * wide));
            tiles.zip(kept).for_each(|((y, x), (gate, up))| work(y, x, gate, up));
            return (y, Some(Gated { gate, up }));
        }
        tiles.for_each(|(y, x)| {
            let wide = x.len() / size * wide;
            work(y, x, &mut Buffer::new(wide), &mut Buffer::new(wide));
        });
        (y, None)
    }

    /// The gradients of the input and of norm, gate, up and down.
    pub(crate) fn backward(&self, x: &[f32], gated: Gated, gy: &[f32]) -> (Buffer, [Vec<f32>; 4]) {
        let norm = self.norm;
        let size = norm.size();
        let wide = self.gate.len() / size;
        let rows = x.len() / size;
        let Gated { mut gate, mut up } = gated;
        let (gates, ups) = (
            Panels::new(Matrix::new(self.gate, [wide, size])),
            Panels::new(Matrix::new(self.up, [wide, size])),
        );
        let downs = Panels::new(Matrix::new(self.down, [size, wide]));
        let (mut gx, mut normed) = (Buffer::new(x.len()), Buffer::new(x.len()));
        let mut mixed = Buffer::new(rows * wide);
        let parts: Vec<Vec<f32>> = gx
            .par_chunks_mut(TILE * size)
            .zip(normed.par_chunks_mut(TILE * size))
            .zip(gate.par_chunks_mut(TILE * wide).zip(up.par_chunks_mut(TILE * wide)))
            .zip(mixed.par_chunks_mut(TILE * wide))
            .enumerate()
            .map(|(tile, (((gx, normed), (gate, up)), mixed))| {
                let rows = gx.len() / size;
                let here = tile * TILE * size..tile * TILE * size + gx.len();
                let (x, gy) = (&x[here.clone()], &gy[here]);
                multiply(Matrix::new(gy, [rows, size]), &downs, mixed, wide, wide, Into::Set);
                swiglu_vjp(gate, up, mixed);
                let mut g_normed = Buffer::new(gx.len());
                multiply(Matrix::new(gate, [rows, wide]), &gates, &mut g_normed, size, size, Into::Set);
                multiply(Matrix::new(up, [rows, wide]), &ups, &mut g_normed, size, size, Into::Add);
                norm.forward(x, normed);
                gx.copy_from_slice(gy);
                let mut g_norm = vec![0.0; size];
                norm.backward(x, &g_normed, gx, &mut g_norm);
                g_norm
            })
            .collect();
        let g_down = matrix_gradient(gy, &Panels::new(Matrix::new(&mixed, [rows, wide])), [size, wide]);
        drop(mixed);
        let normed = Panels::new(Matrix::new(&normed, [rows, size]));
        let weights = [
            sum(parts, size),
            matrix_gradient(&gate, &normed, [wide, size]),
            matrix_gradient(&up, &normed, [wide, size]),
            g_down,
        ];
        (gx, weights)
    }
}
