//! Causal attention inside each span of a batch, forward and backward. Each span and key-value head is a task, which
//! processes a few queries at a time, so that scores are never stored for a whole text.
#![allow(unsafe_code)] // Tasks write different columns of the same rows; see `Shared`.

use std::ops::Range;

use rayon::prelude::*;
use surgery_core::placement::{Layout, Span};

use crate::buffer::{Buffer, copy};
use crate::gemm::{Into, Matrix, Panels, block_rows, multiply};
use crate::rows::{dot, exponentials, softmax_again, softmax_vjp};

/// Maximum number of queries processed at once. More would compute more masked scores.
const QUERIES: usize = 30;

/// The number of queries at once that products process without waste.
fn queries_at_once() -> usize {
    QUERIES / block_rows() * block_rows()
}

/// Number and size of heads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) size: usize,
}

impl Heads {
    /// Size of a row of queries.
    pub(crate) fn width(self) -> usize {
        self.queries * self.size
    }

    /// Size of a row of keys, or of values.
    pub(crate) fn key_width(self) -> usize {
        self.keys * self.size
    }

    /// Size of a row of queries, keys and values.
    pub(crate) fn row(self) -> usize {
        self.width() + 2 * self.key_width()
    }

    /// The column in such a row at which head `head` of keys (part 0) or values (part 1) starts.
    fn column(self, part: usize, head: usize) -> usize {
        self.width() + part * self.key_width() + head * self.size
    }

    /// The query heads that share key-value head `head`.
    fn group(self, head: usize) -> Range<usize> {
        let group = self.queries / self.keys;
        head * group..(head + 1) * group
    }
}

/// Rows that several tasks write in parallel, each in its own rows and columns.
struct Shared {
    values: *mut f32,
    length: usize,
    width: usize,
}

// SAFETY: tasks write only values that no other task reads or writes.
unsafe impl Sync for Shared {}

impl Shared {
    fn new(values: &mut [f32], width: usize) -> Self {
        Self { values: values.as_mut_ptr(), length: values.len(), width }
    }

    /// # Safety
    /// No other task accesses these values.
    unsafe fn write(&self, row: usize, columns: Range<usize>, values: &[f32]) {
        let start = row * self.width + columns.start;
        assert!(columns.end <= self.width && start + values.len() <= self.length);
        assert_eq!(columns.len(), values.len());
        // SAFETY: inside the original slice, which outlives the tasks; exclusive access is promised by the caller.
        let to = unsafe { std::slice::from_raw_parts_mut(self.values.add(start), values.len()) };
        copy(values, to);
    }
}

/// Every span with every key-value head. The longest come first, so that no thread finishes last with a long one.
fn tasks(layout: &Layout, heads: Heads) -> Vec<(&Span, usize)> {
    let mut spans: Vec<&Span> = layout.spans.iter().collect();
    spans.sort_by_key(|span| std::cmp::Reverse(span.queries.len()));
    spans.into_iter().flat_map(|span| (0..heads.keys).map(move |head| (span, head))).collect()
}

/// Sets rows of `width` values outside all spans to 0.
fn clear_padding(layout: &Layout, values: &mut [f32], width: usize) {
    let mut spans: Vec<Range<usize>> = layout.spans.iter().map(|span| span.queries.clone()).collect();
    spans.sort_by_key(|span| span.start);
    let mut end = 0;
    for span in spans.into_iter().chain(std::iter::once(values.len() / width..0)) {
        values[end * width..span.start * width].fill(0.0);
        end = span.end;
    }
}

/// The keys (part 0) or values (part 1) of head `head` that `span` attends to.
fn gather<'a>(
    qkv: &'a [f32],
    span: &Span,
    part: usize,
    head: usize,
    heads: Heads,
    copy: &'a mut Vec<f32>,
) -> Matrix<'a> {
    let (row, size, column) = (heads.row(), heads.size, heads.column(part, head));
    if span.past.is_empty() {
        return Matrix::strided(&qkv[span.keys.start * row + column..], [span.keys.len(), size], row);
    }
    copy.clear();
    for at in span.past.clone().chain(span.keys.clone()) {
        copy.extend_from_slice(&qkv[at * row + column..][..size]);
    }
    Matrix::new(copy, [span.past.len() + span.keys.len(), size])
}

/// A thread's working memory.
struct Scratch {
    first: Panels,
    second: Panels,
    third: Panels,
    copy: Vec<f32>,
    scores: Vec<f32>,
    more: Vec<f32>,
    out: Vec<f32>,
    gk: Vec<f32>,
    gv: Vec<f32>,
}

impl Scratch {
    fn new() -> Self {
        let empty = Panels::empty;
        Self {
            first: empty(),
            second: empty(),
            third: empty(),
            copy: Vec::new(),
            scores: Vec::new(),
            more: Vec::new(),
            out: Vec::new(),
            gk: Vec::new(),
            gv: Vec::new(),
        }
    }
}

/// Scaled queries of one text, for the heads that share one key-value head.
struct Queries<'a> {
    /// All heads of all queries of the text.
    values: &'a [f32],
    /// Distance between queries.
    row: usize,
    /// Number of queries.
    count: usize,
    /// Number of keys before those of the queries.
    past: usize,
    /// The heads.
    heads: Range<usize>,
    /// Size of a head.
    size: usize,
}

/// Attention of `queries` to keys (transposed) and values. Calls `give` with each query's number, its head, the
/// output `[size]`, and the logarithm of the sum of exponentials. `scores` and `mixed` are working memory.
fn attend(
    queries: &Queries,
    [keys, values]: [&Panels; 2],
    [scores, mixed]: [&mut Vec<f32>; 2],
    mut give: impl FnMut(usize, usize, &[f32], f32),
) {
    let &Queries { row, past, size, .. } = queries;
    let at_once = queries_at_once();
    for head in queries.heads.clone() {
        for start in (0..queries.count).step_by(at_once) {
            let count = at_once.min(queries.count - start);
            let seen = past + start + count;
            // Whole panels: columns beyond the keys are ignored.
            let across = keys.whole(seen);
            scores.resize(QUERIES * across, 0.0);
            mixed.resize(QUERIES * size, 0.0);
            let from = &queries.values[start * row + head * size..];
            multiply(Matrix::strided(from, [count, size], row), keys, scores, across, across, Into::Set);
            let mut sums = [(0.0, 0.0); QUERIES];
            for (i, scores) in scores.chunks_exact_mut(across).take(count).enumerate() {
                let (visible, hidden) = scores[..seen].split_at_mut(past + start + i + 1);
                sums[i] = exponentials(visible);
                hidden.fill(0.0);
            }
            let weights = Matrix::strided(scores, [count, seen], across);
            multiply(weights, values, mixed, size, size, Into::Set);
            for (i, mixed) in mixed.chunks_exact_mut(size).take(count).enumerate() {
                let (most, sum) = sums[i];
                crate::rows::scale(mixed, 1.0 / sum);
                give(start + i, head, mixed, most + sum.ln());
            }
        }
    }
}

/// `out = softmax(q kᵀ, causal) v` with scaled `q`; also returns the logarithm of each query's sum of exponentials,
/// `[rows, heads]`. A row of `qkv` consists of queries `[heads · size]`, keys and values `[kv_heads · size]`; a row
/// of `out` has `[heads · size]`. Rows outside all spans are 0.
pub(crate) fn forward(qkv: &[f32], heads: Heads, layout: &Layout) -> (Buffer, Buffer) {
    let (width, size, rows) = (heads.width(), heads.size, qkv.len() / heads.row());
    let (mut all_out, mut all_log_sums) = (Buffer::new(rows * width), Buffer::new(rows * heads.queries));
    clear_padding(layout, &mut all_out, width);
    clear_padding(layout, &mut all_log_sums, heads.queries);
    let (out, log_sums) = (Shared::new(&mut all_out, width), Shared::new(&mut all_log_sums, heads.queries));
    tasks(layout, heads).into_par_iter().for_each_init(Scratch::new, |scratch, (span, key_head)| {
        let Scratch { first: keys, second: values, copy, scores, out: mixed, .. } = scratch;
        keys.fill(gather(qkv, span, 0, key_head, heads, copy).transposed());
        values.fill(gather(qkv, span, 1, key_head, heads, copy));
        let first = span.queries.start;
        let queries = Queries {
            values: &qkv[first * heads.row()..],
            row: heads.row(),
            count: span.queries.len(),
            past: span.past.len(),
            heads: heads.group(key_head),
            size,
        };
        attend(&queries, [keys, values], [scores, mixed], |query, head, mixed, log_sum| {
            // SAFETY: only this task writes these rows of this head.
            unsafe {
                out.write(first + query, head * size..(head + 1) * size, mixed);
                log_sums.write(first + query, head..head + 1, &[log_sum]);
            }
        });
    });
    (all_out, all_log_sums)
}

/// Causal attention of the last queries of texts to all keys of each text: scaled queries `[texts, count, heads ·
/// size]`, keys and values `[length, texts, kv_heads · size]`, output `[texts, count, heads · size]`. Scores are
/// stored for a few queries at a time.
pub(crate) fn last(queries: &[f32], keys: &[f32], values: &[f32], texts: usize, heads: Heads) -> Buffer {
    let (width, key_width, size) = (heads.width(), heads.key_width(), heads.size);
    let (count, length) = (queries.len() / (texts * width), keys.len() / (texts * key_width));
    let mut all_out = Buffer::new(queries.len());
    let out = Shared::new(&mut all_out, width);
    let tasks = (0..texts * heads.keys).into_par_iter();
    tasks.for_each_init(Scratch::new, |scratch, task| {
        let (text, key_head) = (task / heads.keys, task % heads.keys);
        let Scratch { first: key_panels, second: value_panels, scores, out: mixed, .. } = scratch;
        let start = text * key_width + key_head * size;
        key_panels.fill(Matrix::strided(&keys[start..], [length, size], texts * key_width).transposed());
        value_panels.fill(Matrix::strided(&values[start..], [length, size], texts * key_width));
        let queries = Queries {
            values: &queries[text * count * width..],
            row: width,
            count,
            past: length - count,
            heads: heads.group(key_head),
            size,
        };
        attend(&queries, [key_panels, value_panels], [scores, mixed], |query, head, mixed, _| {
            // SAFETY: only this task writes this text's rows of this head.
            unsafe { out.write(text * count + query, head * size..(head + 1) * size, mixed) }
        });
    });
    all_out
}

/// Attention of one query of each text to all keys of the text: queries `[texts, heads · size]`, keys and values
/// `[past, texts, kv_heads · size]`, output `[texts, heads · size]`.
pub(crate) fn next(queries: &[f32], keys: &[f32], values: &[f32], heads: Heads) -> Buffer {
    let (width, key_width, size) = (heads.width(), heads.key_width(), heads.size);
    let texts = queries.len() / width;
    let past = keys.len() / (texts * key_width);
    let scale = (size as f32).powf(-0.5);
    let mut all_out = Buffer::zeros(queries.len());
    let of_texts = all_out.par_chunks_mut(width).zip(queries.par_chunks(width)).enumerate();
    of_texts.for_each_init(Vec::new, |scores, (text, (out, query))| {
        let row = |at: usize| (at * texts + text) * key_width..(at * texts + text + 1) * key_width;
        let of_heads =
            || (0..heads.keys).flat_map(|key| heads.group(key).map(move |query| (query, key * size)));
        scores.resize(heads.queries * past, 0.0);
        for at in 0..past {
            let keys = &keys[row(at)];
            for (head, column) in of_heads() {
                let query = &query[head * size..(head + 1) * size];
                scores[head * past + at] = scale * dot(query, &keys[column..column + size]);
            }
        }
        for scores in scores.chunks_exact_mut(past) {
            let (_, sum) = exponentials(scores);
            crate::rows::scale(scores, 1.0 / sum);
        }
        for at in 0..past {
            let values = &values[row(at)];
            for (head, column) in of_heads() {
                let out = &mut out[head * size..(head + 1) * size];
                crate::rows::add(out, &values[column..column + size], scores[head * past + at]);
            }
        }
    });
    all_out
}

/// Input and outputs of [`forward`].
#[derive(Clone, Copy)]
pub(crate) struct Forward<'a> {
    pub(crate) qkv: &'a [f32],
    pub(crate) out: &'a [f32],
    pub(crate) log_sums: &'a [f32],
}

/// The gradient of `qkv` from that of `out`. With `P` the softmax,
///
/// ```text
/// ∂V = Pᵀ ∂O    ∂P = ∂O Vᵀ    ∂S = P (∂P - Σ ∂O O)    ∂Q = ∂S K    ∂K = ∂Sᵀ Q
/// ```
///
/// `P` is recomputed from the scores and their log-sums (arXiv 2205.14135). Spans must have no past: shared keys
/// cannot be trained through. Rows outside all spans are 0.
pub(crate) fn backward(forward: Forward, g_out: &[f32], heads: Heads, layout: &Layout) -> Buffer {
    let Forward { qkv, out, log_sums } = forward;
    let (width, size) = (heads.width(), heads.size);
    let mut gradient = Buffer::new(qkv.len());
    clear_padding(layout, &mut gradient, heads.row());
    let at_once = queries_at_once();
    let to = Shared::new(&mut gradient, heads.row());
    tasks(layout, heads).into_par_iter().for_each_init(Scratch::new, |scratch, (span, key_head)| {
        assert!(span.past.is_empty(), "a batch that shares keys cannot be trained on");
        let length = span.queries.len();
        let Scratch { first: keys_t, second: values_t, third, copy, scores: p, more: ds, out: rows, gk, gv } =
            scratch;
        let keys = gather(qkv, span, 0, key_head, heads, copy);
        keys_t.fill(keys.transposed());
        third.fill(keys);
        let mut keys = std::mem::replace(third, Panels::empty());
        values_t.fill(gather(qkv, span, 1, key_head, heads, copy).transposed());
        for sum in [&mut *gk, &mut *gv] {
            sum.clear();
            sum.resize(length * size, 0.0);
        }
        for head in heads.group(key_head) {
            let columns = head * size..(head + 1) * size;
            for start in (0..length).step_by(at_once) {
                let count = at_once.min(length - start);
                let seen = start + count;
                let across = keys_t.whole(seen);
                let row = span.queries.start + start;
                let at = |width: usize| row * width + columns.start..;
                let q = Matrix::strided(&qkv[at(heads.row())], [count, size], heads.row());
                let go = Matrix::strided(&g_out[at(width)], [count, size], width);
                p.resize(QUERIES * across, 0.0);
                ds.resize(QUERIES * across, 0.0);
                rows.resize(QUERIES * size, 0.0);
                multiply(q, &*keys_t, p, across, across, Into::Set);
                multiply(go, &*values_t, ds, across, across, Into::Set);
                let both = p.chunks_exact_mut(across).zip(ds.chunks_exact_mut(across)).take(count);
                for (i, (p, ds)) in both.enumerate() {
                    let visible = start + i + 1;
                    let at = (row + i) * width + columns.start;
                    let along = dot(&g_out[at..at + size], &out[at..at + size]);
                    softmax_again(&mut p[..visible], log_sums[(row + i) * heads.queries + head]);
                    softmax_vjp(&p[..visible], &mut ds[..visible], along);
                    p[visible..seen].fill(0.0);
                    ds[visible..seen].fill(0.0);
                }
                let [p, ds] = [&*p, &*ds].map(|values| Matrix::strided(values, [count, seen], across));
                multiply(ds, &keys, rows, size, size, Into::Set);
                for (i, row_of_q) in rows.chunks_exact(size).take(count).enumerate() {
                    // SAFETY: only this task writes these rows of this head.
                    unsafe { to.write(row + i, columns.clone(), row_of_q) }
                }
                third.fill(q);
                multiply(ds.transposed(), third, gk, size, size, Into::Add);
                third.fill(go);
                multiply(p.transposed(), third, gv, size, size, Into::Add);
            }
        }
        for (part, gradient) in [&*gk, &*gv].into_iter().enumerate() {
            let column = heads.column(part, key_head);
            for (i, row) in gradient.chunks_exact(size).enumerate() {
                // SAFETY: only this task writes these rows of this key-value head.
                unsafe { to.write(span.keys.start + i, column..column + size, row) }
            }
        }
        std::mem::swap(third, &mut keys);
    });
    gradient
}
