//! Matrix products in f32, `C ← A B` or `C ← C + A B`.
//!
//! `B` is packed once into panels as wide as two registers ([`Panels`]) and shared by every thread. A few rows of
//! `A` at a time are copied to where steps along rows and columns are constants, so that the innermost loop
//! computes no address; `C` is held in registers while it grows. The scheme is BLIS's (Van Zee and van de
//! Geijn, 2015).
//!
//! Each element is the sum of the same products in the same order whatever block it falls into and
//! whichever thread computes it: results do not depend on tiling or on the number of threads.
#![allow(unsafe_code)] // Registers are filled through pointers; every function says what it relies on.

use std::cell::RefCell;

use rayon::prelude::*;

use crate::simd::{Isa, isa};

/// Columns of a panel.
pub(crate) const PANEL: usize = 32;
/// Rows of a panel that are asked for before they are needed.
const AHEAD: usize = 12;
/// Columns of `A` and rows of `B` of one pass: a panel of that many stays in the first-level cache.
const DEPTH: usize = 256;
/// Rows of `A` that are copied at once: they stay in the second-level cache.
const COPIED_ROWS: usize = 126;

/// A matrix that is read: element (i, j) at `i · rows + j · columns` of the slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Rows that lie `stride` apart.
    pub(crate) fn strided(values: &'a [f32], shape: [usize; 2], stride: usize) -> Self {
        let [rows, columns] = shape;
        assert!(columns <= stride || rows <= 1);
        assert!(rows == 0 || columns == 0 || (rows - 1) * stride + columns <= values.len());
        Self { values, shape, strides: [stride, 1] }
    }

    /// Rows that lie beside one another.
    pub(crate) fn new(values: &'a [f32], shape: [usize; 2]) -> Self {
        Self::strided(values, shape, shape[1])
    }

    /// The transposed matrix, in place.
    pub(crate) fn transposed(self) -> Self {
        let ([rows, columns], [down, across]) = (self.shape, self.strides);
        Self { values: self.values, shape: [columns, rows], strides: [across, down] }
    }

    /// Some of its rows.
    pub(crate) fn rows(self, start: usize, count: usize) -> Self {
        assert!(start + count <= self.shape[0]);
        let values = if count == 0 { &[] } else { &self.values[start * self.strides[0]..] };
        Self { values, shape: [count, self.shape[1]], strides: self.strides }
    }

    /// Some of its columns.
    pub(crate) fn columns(self, start: usize, count: usize) -> Self {
        self.transposed().rows(start, count).transposed()
    }
}

/// One line of the cache.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// The right operand `[depth, columns]` in panels of [`PANEL`] columns, filled up with zeros: element
/// (k, c) of panel p at `(p · depth + k) · PANEL + c`.
#[derive(Debug, Clone)]
pub(crate) struct Panels {
    lines: Vec<Line>,
    depth: usize,
    columns: usize,
}

impl Panels {
    /// Packs `b`, panel by panel on all threads.
    pub(crate) fn new(b: Matrix) -> Self {
        Self::beside(&[b])
    }

    /// Packs matrices of one depth beside one another.
    pub(crate) fn beside(parts: &[Matrix]) -> Self {
        let columns = parts.iter().map(|part| part.shape[1]).sum();
        Self::packed(parts, [parts[0].shape[0], columns], [0, 1])
    }

    /// Packs matrices of one width beneath one another.
    pub(crate) fn stacked(parts: &[Matrix]) -> Self {
        let depth = parts.iter().map(|part| part.shape[0]).sum();
        Self::packed(parts, [depth, parts[0].shape[1]], [1, 0])
    }

    fn packed(parts: &[Matrix], [depth, columns]: [usize; 2], step: [usize; 2]) -> Self {
        let lines = columns.div_ceil(PANEL) * depth * (PANEL / 16);
        let mut panels = Self { lines: vec![Line([0.0; 16]); lines], depth, columns };
        let panel_lines = (depth * (PANEL / 16)).max(1);
        panels.lines.par_chunks_mut(panel_lines).enumerate().for_each(|(p, panel)| {
            let mut corner = [0, 0];
            for part in parts {
                pack(*part, corner, p, panel);
                corner = [0, 1].map(|axis| corner[axis] + step[axis] * part.shape[axis]);
            }
        });
        panels
    }

    /// Holds nothing yet.
    pub(crate) fn empty() -> Self {
        Self { lines: Vec::new(), depth: 0, columns: 0 }
    }

    /// Packs `b` in place of what was held, on this thread.
    pub(crate) fn fill(&mut self, b: Matrix) {
        [self.depth, self.columns] = b.shape;
        let lines = self.depth * (PANEL / 16);
        self.lines.resize(self.columns.div_ceil(PANEL) * lines, Line([0.0; 16]));
        self.lines.chunks_mut(lines.max(1)).enumerate().for_each(|(p, panel)| {
            if (p + 1) * PANEL > b.shape[1] {
                // Columns that fill the last panel up.
                panel.fill(Line([0.0; 16]));
            }
            pack(b, [0, 0], p, panel);
        });
    }

    /// Where row `k` of panel `p` begins.
    fn at(&self, p: usize, k: usize) -> *const f32 {
        self.lines[(p * self.depth + k) * (PANEL / 16)..].as_ptr().cast()
    }
}

/// Writes what panel `p` holds of `b`, whose first element stands at `corner` of the whole.
fn pack(b: Matrix, corner: [usize; 2], p: usize, panel: &mut [Line]) {
    let ([depth, columns], [down, across]) = (b.shape, b.strides);
    let (first, last) = ((p * PANEL).max(corner[1]), ((p + 1) * PANEL).min(corner[1] + columns));
    if first >= last {
        return;
    }
    let (width, place) = (last - first, first - p * PANEL);
    let from = first - corner[1];
    let values = &mut panel.as_flattened_mut()[corner[0] * PANEL..];
    if across == 1 {
        for (k, row) in values.chunks_exact_mut(PANEL).take(depth).enumerate() {
            let start = k * down + from;
            row[place..place + width].copy_from_slice(&b.values[start..start + width]);
        }
        return;
    }
    // A few values of each column at a time, so that what is written stays in the cache.
    const RUN: usize = 16;
    for start in (0..depth).step_by(RUN) {
        let run = RUN.min(depth - start);
        for c in 0..width {
            let column = &b.values[(from + c) * across + start * down..];
            for k in 0..run {
                values[(start + k) * PANEL + place + c] = column[k * down];
            }
        }
    }
}

/// A slice of lines as one of floats.
trait Flattened {
    fn as_flattened_mut(&mut self) -> &mut [f32];
}

impl Flattened for [Line] {
    fn as_flattened_mut(&mut self) -> &mut [f32] {
        // SAFETY: a line is 16 floats and nothing else.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), self.len() * 16) }
    }
}

/// What becomes of what `C` held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Into {
    /// `C ← A B`
    Set,
    /// `C ← C + A B`
    Add,
}

/// `C ← A B` or `C ← C + A B` on this thread: the first `A.columns` rows and the first `columns` columns of
/// `b`, into rows of `c` that lie `stride` apart.
pub(crate) fn multiply(a: Matrix, b: &Panels, c: &mut [f32], columns: usize, stride: usize, into: Into) {
    let [rows, depth] = a.shape;
    assert!(depth <= b.depth && columns <= b.columns && columns <= stride);
    if rows == 0 || columns == 0 {
        return;
    }
    assert!((rows - 1) * stride + columns <= c.len());
    if depth == 0 {
        if into == Into::Set {
            (0..rows).for_each(|row| c[row * stride..row * stride + columns].fill(0.0));
        }
        return;
    }
    let tile = Tile { a, b, columns, stride };
    let c = c.as_mut_ptr();
    match isa() {
        // SAFETY: the bounds were checked above, and the processor has these instructions.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512(tile, c, into) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2(tile, c, into) },
        // SAFETY: as above.
        Isa::Baseline => unsafe { blocks::<[f32; 4], 2, 4>(tile, c, into) },
    }
}

thread_local! {
    /// Where rows of `A` are copied to.
    static COPY: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

#[derive(Clone, Copy)]
struct Tile<'a> {
    a: Matrix<'a>,
    b: &'a Panels,
    columns: usize,
    stride: usize,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
unsafe fn avx512(tile: Tile, c: *mut f32, into: Into) {
    // SAFETY: the caller's promise.
    unsafe { blocks::<std::arch::x86_64::__m512, 2, 14>(tile, c, into) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(tile: Tile, c: *mut f32, into: Into) {
    // SAFETY: the caller's promise.
    unsafe { blocks::<std::arch::x86_64::__m256, 2, 6>(tile, c, into) }
}

/// Goes over `C` in blocks of `HEIGHT` rows and `W` registers, pass by pass over the depth.
///
/// # Safety
/// `c` can be written wherever `tile` reaches, and the processor has the instructions of `V`.
#[inline(always)]
unsafe fn blocks<V: Register, const W: usize, const HEIGHT: usize>(tile: Tile, c: *mut f32, into: Into) {
    let Tile { a, b, columns, stride } = tile;
    let [rows, depth] = a.shape;
    let passes = depth.div_ceil(DEPTH);
    // Whole multiples of 8, so that no pass is left with a few.
    let each = depth.div_ceil(passes).next_multiple_of(8);
    let by_rows = a.strides[1] == 1;
    COPY.with_borrow_mut(|copied| {
        copied.resize(COPIED_ROWS.min(rows).next_multiple_of(HEIGHT).max(copied.len() / DEPTH) * DEPTH, 0.0);
        for start in (0..depth).step_by(each) {
            let deep = each.min(depth - start);
            let adds = start > 0 || into == Into::Add;
            for first in (0..rows).step_by(COPIED_ROWS) {
                let count = COPIED_ROWS.min(rows - first);
                for row in (0..count).step_by(HEIGHT) {
                    let block = &mut copied[row * DEPTH..(row + HEIGHT) * DEPTH];
                    copy_block::<HEIGHT>(a, first + row, HEIGHT.min(count - row), start, deep, block);
                }
                for panel in 0..columns.div_ceil(PANEL) {
                    for part in (0..PANEL).step_by(W * V::LANES) {
                        let column = panel * PANEL + part;
                        if column >= columns {
                            break;
                        }
                        let width = (W * V::LANES).min(columns - column);
                        for row in (0..count).step_by(HEIGHT) {
                            let height = HEIGHT.min(count - row);
                            // SAFETY: rows and columns of the block lie inside the copy of A, the panel and C.
                            unsafe {
                                let block = Block {
                                    a: copied.as_ptr().add(row * DEPTH),
                                    b: b.at(panel, start).add(part),
                                    c: c.add((first + row) * stride + column),
                                    stride,
                                    deep,
                                    width,
                                    adds,
                                };
                                match by_rows {
                                    true => block.run::<V, W, HEIGHT, DEPTH, 1>(height),
                                    false => block.run::<V, W, HEIGHT, 1, HEIGHT>(height),
                                }
                            }
                        }
                    }
                }
            }
        }
    });
}

/// Copies `height` rows of `a` from `first` and `deep` columns from `start`: row by row [`DEPTH`] apart where the
/// rows are contiguous, else column by column `HEIGHT` apart.
#[inline(always)]
fn copy_block<const HEIGHT: usize>(
    a: Matrix,
    first: usize,
    height: usize,
    start: usize,
    deep: usize,
    copy: &mut [f32],
) {
    let [down, across] = a.strides;
    if across == 1 {
        for (i, copy) in copy.chunks_exact_mut(DEPTH).take(height).enumerate() {
            let from = (first + i) * down + start;
            copy[..deep].copy_from_slice(&a.values[from..from + deep]);
        }
        return;
    }
    for (k, copy) in copy.chunks_exact_mut(HEIGHT).take(deep).enumerate() {
        let from = &a.values[first * down + (start + k) * across..];
        if down == 1 && height == HEIGHT {
            copy.copy_from_slice(&from[..HEIGHT]);
        } else {
            copy[..height].iter_mut().enumerate().for_each(|(i, value)| *value = from[i * down]);
        }
    }
}

/// A block of `C` that fits the registers; element (i, k) of its `A` at `i · DOWN + k · ACROSS`.
struct Block {
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    stride: usize,
    deep: usize,
    width: usize,
    adds: bool,
}

impl Block {
    /// Chooses the loop compiled for `height` rows.
    ///
    /// # Safety
    /// The block lies inside its matrices, and the processor has the instructions of `V`.
    #[inline(always)]
    unsafe fn run<
        V: Register,
        const W: usize,
        const HEIGHT: usize,
        const DOWN: usize,
        const ACROSS: usize,
    >(
        self,
        height: usize,
    ) {
        macro_rules! of {
            ($($n:literal)*) => {
                match height {
                    // SAFETY: the caller's promise.
                    $($n if $n <= HEIGHT => unsafe { self.fixed::<V, W, $n, DOWN, ACROSS>() },)*
                    _ => unreachable!(),
                }
            };
        }
        of!(14 13 12 11 10 9 8 7 6 5 4 3 2 1)
    }

    /// # Safety
    /// As for [`run`](Self::run).
    #[inline(always)]
    unsafe fn fixed<V: Register, const W: usize, const H: usize, const DOWN: usize, const ACROSS: usize>(
        self,
    ) {
        let Self { a, b, c, stride, deep, width, adds } = self;
        // SAFETY: the caller's promise: H rows of A, `deep` rows of the panel, `width` columns of C.
        unsafe {
            let mut sums = [[V::zero(); W]; H];
            for i in 0..H {
                // Written at the end; asked for now.
                (0..W).for_each(|w| V::fetch(c.wrapping_add(i * stride + w * V::LANES)));
            }
            for k in 0..deep {
                (0..W).for_each(|w| V::fetch(b.wrapping_add((k + AHEAD) * PANEL + w * V::LANES)));
                let mut right = [V::zero(); W];
                for (w, right) in right.iter_mut().enumerate() {
                    *right = V::load(b.add(k * PANEL + w * V::LANES));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let left = V::splat(*a.add(i * DOWN + k * ACROSS));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = V::fma(left, right, *sum);
                    }
                }
            }
            for (i, sums) in sums.into_iter().enumerate() {
                let row = c.add(i * stride);
                if width == W * V::LANES {
                    for (w, sum) in sums.into_iter().enumerate() {
                        let to = row.add(w * V::LANES);
                        let sum = if adds { V::add(V::load(to), sum) } else { sum };
                        V::store(to, sum);
                    }
                } else {
                    let mut values = [0.0f32; PANEL];
                    for (w, sum) in sums.into_iter().enumerate() {
                        V::store(values.as_mut_ptr().add(w * V::LANES), sum);
                    }
                    for (j, value) in values[..width].iter().enumerate() {
                        let to = row.add(j);
                        *to = if adds { *to + value } else { *value };
                    }
                }
            }
        }
    }
}

/// A register of floats.
trait Register: Copy {
    /// How many it holds.
    const LANES: usize;
    unsafe fn zero() -> Self;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(to: *mut f32, value: Self);
    unsafe fn add(a: Self, b: Self) -> Self;
    /// Brings a line into the cache, if there is one.
    unsafe fn fetch(line: *const f32);
    /// `a · b + c`
    unsafe fn fma(a: Self, b: Self, c: Self) -> Self;
}

macro_rules! register {
    ($type:ident, $lanes:literal, $zero:ident, $splat:ident, $load:ident, $store:ident, $add:ident, $fma:ident) => {
        // SAFETY of all: a register's own instructions, on pointers that the caller vouches for.
        #[cfg(target_arch = "x86_64")]
        impl Register for std::arch::x86_64::$type {
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn zero() -> Self {
                unsafe { std::arch::x86_64::$zero() }
            }
            #[inline(always)]
            unsafe fn splat(value: f32) -> Self {
                unsafe { std::arch::x86_64::$splat(value) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                unsafe { std::arch::x86_64::$load(from) }
            }
            #[inline(always)]
            unsafe fn store(to: *mut f32, value: Self) {
                unsafe { std::arch::x86_64::$store(to, value) }
            }
            #[inline(always)]
            unsafe fn fetch(line: *const f32) {
                unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast()) }
            }
            #[inline(always)]
            unsafe fn add(a: Self, b: Self) -> Self {
                unsafe { std::arch::x86_64::$add(a, b) }
            }
            #[inline(always)]
            unsafe fn fma(a: Self, b: Self, c: Self) -> Self {
                unsafe { std::arch::x86_64::$fma(a, b, c) }
            }
        }
    };
}

register!(
    __m512,
    16,
    _mm512_setzero_ps,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_fmadd_ps
);
register!(
    __m256,
    8,
    _mm256_setzero_ps,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_fmadd_ps
);

/// What the compiler makes of four floats on any processor.
impl Register for [f32; 4] {
    const LANES: usize = 4;
    #[inline(always)]
    unsafe fn zero() -> Self {
        [0.0; 4]
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise; an array of floats has their alignment.
        unsafe { from.cast::<[f32; 4]>().read() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self) {
        // SAFETY: as above.
        unsafe { to.cast::<[f32; 4]>().write(value) }
    }
    #[inline(always)]
    unsafe fn fetch(_line: *const f32) {}
    #[inline(always)]
    unsafe fn add(a: Self, b: Self) -> Self {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: Self, b: Self, c: Self) -> Self {
        std::array::from_fn(|i| crate::simd::fma::<{ crate::simd::BASELINE_FMA }>(a[i], b[i], c[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that add and multiply without rounding.
    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7 + i / 11 + seed) % 9) as f32 - 4.0).collect()
    }

    #[test]
    fn products_are_right_on_every_instruction_set() {
        for (m, k, n) in [(1, 1, 1), (3, 5, 2), (14, 64, 32), (57, 300, 33), (130, 17, 65), (29, 513, 100)] {
            let (a, b, before) = (values(m * k, 1), values(k * n, 2), values(m * n, 3));
            let at: Vec<f32> = (0..m * k).map(|i| a[(i % m) * k + i / m]).collect();
            let bt: Vec<f32> = (0..k * n).map(|i| b[(i % k) * n + i / k]).collect();
            let product = |i: usize, j: usize| (0..k).map(|p| a[i * k + p] * b[p * n + j]).sum::<f32>();
            let product: Vec<f32> = (0..m * n).map(|at| product(at / n, at % n)).collect();
            for (a, b) in [
                (Matrix::new(&a, [m, k]), Matrix::new(&b, [k, n])),
                (Matrix::new(&at, [k, m]).transposed(), Matrix::new(&bt, [n, k]).transposed()),
            ] {
                let mut refilled = Panels::new(Matrix::new(&before, [m, n]));
                refilled.fill(b);
                for (panels, into) in [(&Panels::new(b), Into::Set), (&refilled, Into::Add)] {
                    let expected: Vec<f32> = match into {
                        Into::Set => product.clone(),
                        Into::Add => product.iter().zip(&before).map(|(p, c)| p + c).collect(),
                    };
                    let mut c = before.clone();
                    multiply(a, panels, &mut c, n, n, into);
                    assert!(c == expected, "{m} x {k} x {n}, {into:?}");
                    let tile = || Tile { a, b: panels, columns: n, stride: n };
                    let mut c = before.clone();
                    // SAFETY: `c` is m x n.
                    unsafe { blocks::<[f32; 4], 2, 4>(tile(), c.as_mut_ptr(), into) }
                    assert!(c == expected, "baseline: {m} x {k} x {n}, {into:?}");
                    #[cfg(target_arch = "x86_64")]
                    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                        let mut c = before.clone();
                        // SAFETY: `c` is m x n, and the processor was asked.
                        unsafe { avx2(tile(), c.as_mut_ptr(), into) }
                        assert!(c == expected, "AVX2: {m} x {k} x {n}, {into:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn panels_join_matrices() {
        let (a, b) = (values(5 * 40, 1), values(5 * 7, 2));
        let (left, right) = (Matrix::new(&a, [5, 40]), Matrix::new(&b, [5, 7]));
        let one: Vec<f32> = (0..5).map(|i| (i == 2) as u8 as f32).collect();
        let mut row = vec![0.0; 47];
        multiply(Matrix::new(&one, [1, 5]), &Panels::beside(&[left, right]), &mut row, 47, 47, Into::Set);
        assert_eq!(row[..40], a[80..120]);
        assert_eq!(row[40..], b[14..21]);
        let stacked = Panels::stacked(&[left.transposed(), right.transposed()]);
        let one: Vec<f32> = (0..47).map(|i| (i == 42) as u8 as f32).collect();
        let mut row = vec![0.0; 5];
        multiply(Matrix::new(&one, [1, 47]), &stacked, &mut row, 5, 5, Into::Set);
        assert_eq!(row, [b[2], b[9], b[16], b[23], b[30]]);
    }
}
