//! The attention sublayer of a block, forward and backward.

use rayon::prelude::*;
use surgery_core::placement::Layout;

use super::{Linear, Norm, TILE, add_bias, add_rows, biases, chunks, matrix_gradients, split, sum, wanted};
use crate::attention::{self, Forward, Heads};
use crate::buffer::Buffer;
use crate::gemm::{Into, Matrix, Panels, multiply};
use crate::rows::rope;

/// Number of weights: the norm; the matrices of queries, keys, values and output; their biases; the norms of query heads
/// and of key heads.
pub(crate) const WEIGHTS: usize = 11;

/// The weights of an attention sublayer.
#[derive(Clone, Copy)]
pub(crate) struct Attention<'a> {
    pub(crate) norm: Norm<'a>,
    pub(crate) query: Linear<'a>,
    pub(crate) key: Linear<'a>,
    pub(crate) value: Linear<'a>,
    pub(crate) output: Linear<'a>,
    /// The norms of each query head and each key head.
    pub(crate) head_norms: Option<[Norm<'a>; 2]>,
    pub(crate) heads: Heads,
}

/// Activations of an attention sublayer stored for the backward pass, besides its input.
#[derive(Debug, Clone)]
pub(crate) struct Attended {
    /// Queries, keys and values side by side; rotated, queries scaled.
    qkv: Buffer,
    /// Queries and keys before their norms, side by side; empty without norms.
    raw: Buffer,
    out: Buffer,
    log_sums: Buffer,
}

impl Attention<'_> {
    /// Query, key and value matrices, `[out, in]`.
    fn inputs(&self) -> [Matrix<'_>; 3] {
        let (size, heads) = (self.norm.size(), self.heads);
        [(self.query, heads.width()), (self.key, heads.key_width()), (self.value, heads.key_width())]
            .map(|(layer, out)| Matrix::new(layer.matrix, [out, size]))
    }

    /// The biases of queries, keys and values side by side.
    fn input_biases(&self) -> Vec<f32> {
        let (width, key_width) = (self.heads.width(), self.heads.key_width());
        biases([(self.query, width), (self.key, key_width), (self.value, key_width)])
    }

    /// Number of values of queries and keys together, if their heads are normed.
    fn raw_row(&self) -> usize {
        self.head_norms.map_or(0, |_| self.heads.width() + self.heads.key_width())
    }

    /// Norms the heads of queries and keys, which are first copied to `raw`.
    fn norm_heads(&self, qkv: &mut [f32], raw: &mut [f32]) {
        let (Some([query, key]), raw_row) = (self.head_norms, self.raw_row()) else { return };
        for (qkv, raw) in qkv.chunks_exact_mut(self.heads.row()).zip(raw.chunks_exact_mut(raw_row)) {
            raw.copy_from_slice(&qkv[..raw_row]);
            let ([q, k], [raw_q, raw_k]) = (self.heads_of(qkv), self.heads_of(raw));
            query.forward(raw_q, q);
            key.forward(raw_k, k);
        }
    }

    /// The gradient of [`norm_heads`](Self::norm_heads), in place; that of the weights is added to `gw`.
    fn norm_heads_vjp(&self, g_qkv: &mut [f32], raw: &[f32], gw: [&mut [f32]; 2]) {
        let (Some([query, key]), raw_row) = (self.head_norms, self.raw_row()) else { return };
        let [g_query, g_key] = gw;
        let nothing = vec![0.0; raw_row];
        let mut upstream = vec![0.0; raw_row];
        for (g_qkv, raw) in g_qkv.chunks_exact_mut(self.heads.row()).zip(raw.chunks_exact(raw_row)) {
            upstream.copy_from_slice(&g_qkv[..raw_row]);
            let (width, [g_q, g_k]) = (self.heads.width(), self.heads_of(g_qkv));
            query.backward(&raw[..width], &upstream[..width], &nothing[..width], g_q, g_query);
            key.backward(&raw[width..], &upstream[width..], &nothing[width..], g_k, g_key);
        }
    }

    /// The queries and the keys of a row that begins with them.
    fn heads_of<'b>(&self, row: &'b mut [f32]) -> [&'b mut [f32]; 2] {
        let (queries, rest) = row.split_at_mut(self.heads.width());
        [queries, &mut rest[..self.heads.key_width()]]
    }

    /// `x + W_o attention(rope(W_q n), rope(W_k n), W_v n)`, `n = norm(x)`, with biases after the products and norms of heads
    /// before the rotation, if there are any. The rotation also scales the queries.
    pub(crate) fn forward(&self, x: &[f32], layout: &Layout) -> (Buffer, Attended) {
        let Self { norm, heads, .. } = *self;
        let (size, width, row) = (norm.size(), heads.width(), heads.row());
        let rows = x.len() / size;
        let inputs = Panels::beside(&self.inputs().map(Matrix::transposed));
        let (biases, raw_row) = (self.input_biases(), self.raw_row());
        let (mut qkv, mut raw) = (Buffer::new(rows * row), Buffer::new(rows * raw_row));
        let raws: Vec<&mut [f32]> = match raw_row {
            0 => (0..rows).step_by(TILE).map(|_| Default::default()).collect(),
            width => raw.chunks_mut(TILE * width).collect(),
        };
        let tiles = qkv.par_chunks_mut(TILE * row).zip(x.par_chunks(TILE * size)).zip(raws).enumerate();
        tiles.for_each(|(tile, ((qkv, x), raw))| {
            let mut normed = Buffer::new(x.len());
            norm.forward(x, &mut normed);
            multiply(Matrix::new(&normed, [x.len() / size, size]), &inputs, qkv, row, row, Into::Set);
            add_bias(qkv, &biases);
            self.norm_heads(qkv, raw);
            turn(qkv, tile * TILE, heads, layout, 1.0);
        });
        drop(inputs);

        let (out, log_sums) = attention::forward(&qkv, heads, layout);

        let output = Panels::new(Matrix::new(self.output.matrix, [size, width]).transposed());
        let bias = self.output.bias.unwrap_or_default();
        let mut y = Buffer::new(x.len());
        let tiles = y.par_chunks_mut(TILE * size).zip(x.par_chunks(TILE * size));
        tiles.zip(out.par_chunks(TILE * width)).for_each(|((y, x), out)| {
            multiply(Matrix::new(out, [out.len() / width, width]), &output, y, size, size, Into::Onto(x));
            add_bias(y, bias);
        });
        (y, Attended { qkv, raw, out, log_sums })
    }

    /// The gradients of the input and of the weights, in the order of [`WEIGHTS`]. Those of matrices only if `wanted`.
    pub(crate) fn backward(
        &self,
        x: &[f32],
        attended: Attended,
        gy: &[f32],
        layout: &Layout,
        is_wanted: [bool; WEIGHTS],
    ) -> (Buffer, [Option<Vec<f32>>; WEIGHTS]) {
        let Self { norm, heads, .. } = *self;
        let (size, width, key_width, row) = (norm.size(), heads.width(), heads.key_width(), heads.row());
        let rows = x.len() / size;
        let Attended { qkv, raw, out, log_sums } = attended;
        let output = Panels::new(Matrix::new(self.output.matrix, [size, width]));
        let mut g_out = Buffer::new(rows * width);
        g_out.par_chunks_mut(TILE * width).zip(gy.par_chunks(TILE * size)).for_each(|(g_out, gy)| {
            multiply(Matrix::new(gy, [gy.len() / size, size]), &output, g_out, width, width, Into::Set);
        });
        let forward = Forward { qkv: &qkv, out: &out, log_sums: &log_sums };
        let mut g_qkv = attention::backward(forward, &g_out, heads, layout);
        drop((qkv, log_sums, g_out, output));

        let inputs = Panels::stacked(&self.inputs());
        let mut gx = Buffer::new(x.len());
        let [_, query, key, value, output, ..] = is_wanted;
        let matrices = [(query, width), (key, key_width), (value, key_width), (output, width)];
        let mut sums = matrices.map(|(wanted, out)| wanted.then(|| Buffer::new(out * size)));
        let raw_row = self.raw_row();
        let head = if raw_row > 0 { heads.size } else { 0 };
        // The norm, the biases of queries, keys and values, that of the output, and the norms of heads.
        let vectors =
            [size, self.input_biases().len(), self.output.bias.unwrap_or_default().len(), head, head];
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
                let (first, count) = (chunk.start + tile * TILE, gx.len() / size);
                let mut part = vec![0.0; vectors.iter().sum()];
                let [g_norm, g_inputs, g_output, g_query_norm, g_key_norm] = split(&mut part, vectors);
                turn(g_qkv, first, heads, layout, -1.0);
                let raw = &raw[first * raw_row..(first + count) * raw_row];
                self.norm_heads_vjp(g_qkv, raw, [g_query_norm, g_key_norm]);
                add_rows(g_inputs, g_qkv);
                add_rows(g_output, gy);
                let mut g_normed = Buffer::new(gx.len());
                multiply(Matrix::new(g_qkv, [count, row]), &inputs, &mut g_normed, size, size, Into::Set);
                norm.backward_tile(x, gy, &mut g_normed, gx, g_norm, &mut normed);
                part
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
        let mut part = sum(parts, vectors.iter().sum());
        let [g_norm, g_inputs, g_output, g_query_norm, g_key_norm] = split(&mut part, vectors);
        let widths = if g_inputs.is_empty() { [0; 3] } else { [width, key_width, key_width] };
        let [g_query, g_key, g_value] = split(g_inputs, widths);
        let [norm, query_bias, key_bias, value_bias, output_bias, query_norm, key_norm] =
            [g_norm, g_query, g_key, g_value, g_output, g_query_norm, g_key_norm]
                .map(|gradient| (!gradient.is_empty()).then(|| gradient.to_vec()));
        (
            gx,
            [
                norm,
                query,
                key,
                value,
                output,
                query_bias,
                key_bias,
                value_bias,
                output_bias,
                query_norm,
                key_norm,
            ],
        )
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
