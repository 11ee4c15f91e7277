//! Matrix products in f32, `C ← A B` or `C ← C + A B`.
//!
//! `B` is packed once into panels a few registers wide ([`Panels`]), which all threads share. Some rows of `A` at a
//! time are copied into a layout with constant strides, so that the innermost loop ([`block`]) computes no addresses.
//! `C` accumulates in registers. The scheme is that of BLIS (Van Zee and van de Geijn, 2015).
//!
//! Each element sums the same products in the same order in any block and on any thread, so results do not depend on
//! tiling or the number of threads.
#![allow(unsafe_code)] // Registers are loaded through pointers; each function states its conditions.

mod block;
mod panels;

use std::cell::RefCell;

use block::{Block, LINE, Register};

use crate::simd::{Isa, isa};

pub(crate) use panels::{Panels, Tile};

/// Columns of `A` and rows of `B` in one pass. A panel of this depth fits into the L1 and L2 caches; `C` is read and
/// written once for each pass.
const DEPTH: usize = 512;
/// Distance between copied rows. The extra floats keep rows of a block out of the same cache sets.
const APART: usize = DEPTH + 16;
/// Rows of `A` that are copied at a time; they fit into the L2 cache.
const COPIED_ROWS: usize = 126;

/// Panel width in registers and block height in rows, by instruction set. The sums take all registers except those
/// for a row of the panel and an element of `A`.
const AVX512: [usize; 2] = [2, 14];
const AVX2: [usize; 2] = [2, 6];
const BASELINE: [usize; 2] = if cfg!(target_arch = "aarch64") { [4, 6] } else { [4, 2] };

/// Panel width in columns on this processor.
fn panel_width() -> usize {
    match isa() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => AVX512[0] * 16,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => AVX2[0] * 8,
        Isa::Baseline => BASELINE[0] * 4,
    }
}

/// Block height on this processor. Multiples of it are processed without waste.
pub(crate) fn block_rows() -> usize {
    match isa() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => AVX512[1],
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => AVX2[1],
        Isa::Baseline => BASELINE[1],
    }
}

/// A matrix view: element (i, j) is at `i · strides[0] + j · strides[1]` of the slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// A matrix with rows `stride` apart.
    pub(crate) fn strided(values: &'a [f32], shape: [usize; 2], stride: usize) -> Self {
        let [rows, columns] = shape;
        assert!(columns <= stride || rows <= 1);
        assert!(rows == 0 || columns == 0 || (rows - 1) * stride + columns <= values.len());
        Self { values, shape, strides: [stride, 1] }
    }

    /// A matrix with contiguous rows.
    pub(crate) fn new(values: &'a [f32], shape: [usize; 2]) -> Self {
        Self::strided(values, shape, shape[1])
    }

    /// The transposed view.
    pub(crate) fn transposed(self) -> Self {
        let ([rows, columns], [down, across]) = (self.shape, self.strides);
        Self { values: self.values, shape: [columns, rows], strides: [across, down] }
    }

    /// A view of some rows.
    pub(crate) fn rows(self, start: usize, count: usize) -> Self {
        assert!(start + count <= self.shape[0]);
        let values = if count == 0 { &[] } else { &self.values[start * self.strides[0]..] };
        Self { values, shape: [count, self.shape[1]], strides: self.strides }
    }

    /// A view of some columns.
    pub(crate) fn columns(self, start: usize, count: usize) -> Self {
        self.transposed().rows(start, count).transposed()
    }
}

/// The matrix that a product is added to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Into<'a> {
    /// `C ← A B`
    Set,
    /// `C ← C + A B`
    Add,
    /// `C ← X + A B`; the rows of `X` have the distance of those of `C`
    Onto(&'a [f32]),
}

impl Into<'_> {
    /// For a sum computed in parts: the part that starts at 0 sets, the others add.
    pub(crate) fn after(start: usize) -> Self {
        if start == 0 { Self::Set } else { Self::Add }
    }
}

/// Computes `C ← A B` or `C ← C + A B` on this thread, with the first `A.columns` rows and the first `columns`
/// columns of `b`, into rows of `c` that are `stride` apart.
pub(crate) fn multiply(a: Matrix, b: &Panels, c: &mut [f32], columns: usize, stride: usize, into: Into) {
    multiply_on(isa(), a, b, c, columns, stride, into);
}

fn multiply_on(isa: Isa, a: Matrix, b: &Panels, c: &mut [f32], columns: usize, stride: usize, into: Into) {
    let [rows, depth] = a.shape;
    assert!(depth <= b.depth && columns <= b.whole(b.columns) && columns <= stride);
    if rows == 0 || columns == 0 {
        return;
    }
    let reach = (rows - 1) * stride + columns;
    assert!(reach <= c.len());
    if let Into::Onto(x) = into {
        assert!(reach <= x.len());
    }
    if depth == 0 {
        for row in (0..rows).map(|row| row * stride..row * stride + columns) {
            match into {
                Into::Set => c[row].fill(0.0),
                Into::Add => {}
                Into::Onto(x) => c[row.clone()].copy_from_slice(&x[row]),
            }
        }
        return;
    }
    COPY.with_borrow_mut(|copy| {
        let copied_rows = COPIED_ROWS.min(rows).next_multiple_of(COPIED_MULTIPLE);
        if copy.len() < copied_rows * APART {
            copy.resize(copied_rows * APART, 0.0);
        }
        let product = Product { a, b, columns, c: c.as_mut_ptr(), stride, into, copy };
        match isa {
            // SAFETY: the bounds were checked above, and the processor supports these instructions.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512(product) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2(product) },
            // SAFETY: as above.
            Isa::Baseline => unsafe { product.run::<[f32; 4], { BASELINE[0] }, { BASELINE[1] }>() },
        }
    });
}

thread_local! {
    /// The copy of rows of `A`.
    static COPY: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Copies have a multiple of this many rows, a multiple of every block height.
const COPIED_MULTIPLE: usize = 42;

/// A product and its working memory.
struct Product<'a> {
    a: Matrix<'a>,
    b: &'a Panels,
    columns: usize,
    c: *mut f32,
    stride: usize,
    into: Into<'a>,
    copy: &'a mut [f32],
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
unsafe fn avx512(product: Product) {
    // SAFETY: promised by the caller.
    unsafe { product.run::<std::arch::x86_64::__m512, { AVX512[0] }, { AVX512[1] }>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(product: Product) {
    // SAFETY: promised by the caller.
    unsafe { product.run::<std::arch::x86_64::__m256, { AVX2[0] }, { AVX2[1] }>() }
}

impl Product<'_> {
    /// Computes `C` in blocks of `HEIGHT` rows and `W` registers, in one or several passes over the depth.
    ///
    /// # Safety
    /// `C` must be writable throughout the product, and the processor must support the instructions of `V`.
    #[inline(always)]
    unsafe fn run<V: Register, const W: usize, const HEIGHT: usize>(self) {
        let Self { a, b, columns, c, stride, into, copy } = self;
        let [rows, depth] = a.shape;
        assert!(b.width == W * V::LANES && COPIED_MULTIPLE.is_multiple_of(HEIGHT));
        let passes = depth.div_ceil(DEPTH);
        // Multiples of 8, so that no pass is left with only a few.
        let each = depth.div_ceil(passes).next_multiple_of(8);
        let by_rows = a.strides[1] == 1;
        for start in (0..depth).step_by(each) {
            let deep = each.min(depth - start);
            let base = match into {
                _ if start > 0 => c.cast_const(),
                Into::Set => std::ptr::null(),
                Into::Add => c.cast_const(),
                Into::Onto(x) => x.as_ptr(),
            };
            for first in (0..rows).step_by(COPIED_ROWS) {
                let count = COPIED_ROWS.min(rows - first);
                copy_rows::<HEIGHT>(a, [first, start], [count, deep], copy);
                for panel in 0..columns.div_ceil(b.width) {
                    let column = panel * b.width;
                    let width = b.width.min(columns - column);
                    for row in (0..count).step_by(HEIGHT) {
                        let height = HEIGHT.min(count - row);
                        let at = (first + row) * stride + column;
                        // SAFETY: rows and columns of the block lie inside the copy of A, the panel, C and X.
                        unsafe {
                            let block = Block {
                                a: copy.as_ptr().add(row * APART),
                                b: b.at(panel, start),
                                c: c.add(at),
                                base: if base.is_null() { base } else { base.add(at) },
                                stride,
                                deep,
                                width,
                            };
                            match by_rows {
                                true => block.run::<V, W, HEIGHT, APART, 1>(height),
                                false => block.run::<V, W, HEIGHT, 1, HEIGHT>(height),
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Copies `count` rows of `a` from `first` on and `deep` columns from `start` on, in blocks of `HEIGHT` rows.
/// Contiguous rows are copied row by row with distance [`APART`], others column by column with distance `HEIGHT`.
#[inline(always)]
fn copy_rows<const HEIGHT: usize>(
    a: Matrix,
    [first, start]: [usize; 2],
    [count, deep]: [usize; 2],
    copy: &mut [f32],
) {
    let [down, across] = a.strides;
    if across == 1 {
        for (i, copy) in copy.chunks_exact_mut(APART).take(count).enumerate() {
            let from = (first + i) * down + start;
            crate::buffer::copy(&a.values[from..from + deep], &mut copy[..deep]);
        }
        return;
    }
    assert!(down == 1, "rows or columns are contiguous");
    for k in 0..deep {
        let from = (start + k) * across + first;
        for line in (0..count).step_by(LINE) {
            // The hardware prefetcher does not predict accesses this far apart.
            fetch(a.values.as_ptr().wrapping_add(from + COLUMNS_AHEAD * across + line));
        }
        let (whole, rest) = a.values[from..from + count].as_chunks::<HEIGHT>();
        let mut blocks = copy.chunks_exact_mut(HEIGHT * APART);
        for (values, block) in whole.iter().zip(&mut blocks) {
            block[k * HEIGHT..(k + 1) * HEIGHT].copy_from_slice(values);
        }
        if let Some(block) = blocks.next() {
            block[k * HEIGHT..k * HEIGHT + rest.len()].copy_from_slice(rest);
        }
    }
}

/// Number of columns to prefetch when copying column by column.
const COLUMNS_AHEAD: usize = 16;

/// Prefetches a cache line, where supported.
#[inline(always)]
fn fetch(line: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor supports this instruction, and it accepts any address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values whose sums and products are exact.
    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7 + i / 11 + seed) % 9) as f32 - 4.0).collect()
    }

    /// The other instruction sets that this processor supports, with block shape and floats in a register.
    fn other_instruction_sets() -> Vec<(Isa, [usize; 2], usize)> {
        let mut sets = vec![(Isa::Baseline, BASELINE, 4)];
        #[cfg(target_arch = "x86_64")]
        if isa() == Isa::Avx512 {
            sets.push((Isa::Avx2, AVX2, 8));
        }
        sets
    }

    #[test]
    fn products_are_correct_on_every_instruction_set() {
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
                let onto = values(m * n, 4);
                let plus = |x: &[f32]| product.iter().zip(x).map(|(p, x)| p + x).collect();
                let packed = Panels::new(b);
                for (panels, into) in
                    [(&packed, Into::Set), (&refilled, Into::Add), (&packed, Into::Onto(&onto))]
                {
                    let expected: Vec<f32> = match into {
                        Into::Set => product.clone(),
                        Into::Add => plus(&before),
                        Into::Onto(x) => plus(x),
                    };
                    let mut c = before.clone();
                    multiply(a, panels, &mut c, n, n, into);
                    assert!(c == expected, "{m} x {k} x {n}, {into:?}");
                    for (isa, [registers, _], lanes) in other_instruction_sets() {
                        let panels = Panels::packed(&[b], [k, n], [0, 1], registers * lanes);
                        let mut c = before.clone();
                        multiply_on(isa, a, &panels, &mut c, n, n, into);
                        assert!(c == expected, "{isa:?}: {m} x {k} x {n}, {into:?}");
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
