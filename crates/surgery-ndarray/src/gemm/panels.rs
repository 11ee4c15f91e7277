//! Packing of a product's right operand.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use super::block::LINE;
use super::{Matrix, panel_width};
use crate::buffer::{Buffer, copy};

/// The right operand `[depth, columns]` in panels of a few columns, padded with zeros: element (k, c) of panel p is
/// at `(p · depth + k) · width + c`.
#[derive(Debug)]
pub(crate) struct Panels {
    values: Buffer,
    /// Start of the first panel, aligned to a cache line.
    start: usize,
    pub(super) depth: usize,
    pub(super) columns: usize,
    /// Columns of a panel, a whole number of cache lines.
    pub(super) width: usize,
}

impl Panels {
    /// Packs `b` with all threads.
    pub(crate) fn new(b: Matrix) -> Self {
        Self::beside(&[b])
    }

    /// Packs matrices of the same depth side by side.
    pub(crate) fn beside(parts: &[Matrix]) -> Self {
        let columns = parts.iter().map(|part| part.shape[1]).sum();
        Self::packed(parts, [parts[0].shape[0], columns], [0, 1], panel_width())
    }

    /// Packs matrices of the same width on top of one another.
    pub(crate) fn stacked(parts: &[Matrix]) -> Self {
        let depth = parts.iter().map(|part| part.shape[0]).sum();
        Self::packed(parts, [depth, parts[0].shape[1]], [1, 0], panel_width())
    }

    /// Packs `parts`. The position of each is that of the previous one plus its shape times `step`.
    pub(super) fn packed(parts: &[Matrix], shape: [usize; 2], step: [usize; 2], width: usize) -> Self {
        let mut panels = Self::empty();
        panels.width = width;
        panels.reshape(shape);
        let panel = panels.panel();
        let each = panels.floats().par_chunks_mut(panel).enumerate();
        each.for_each(|(p, panel)| pack_all(parts, step, shape[1], p, width, panel));
        panels
    }

    /// Empty panels.
    pub(crate) fn empty() -> Self {
        Self { values: Buffer::default(), start: 0, depth: 0, columns: 0, width: panel_width() }
    }

    /// Replaces the content by `b`, on this thread.
    pub(crate) fn fill(&mut self, b: Matrix) {
        self.reshape(b.shape);
        let (width, panel) = (self.width, self.panel());
        let each = self.floats().chunks_mut(panel).enumerate();
        each.for_each(|(p, panel)| pack_all(&[b], [0, 0], b.shape[1], p, width, panel));
    }

    /// Packs `values`, rows with `columns` values each, with all threads.
    pub(crate) fn of_rows(values: &[f32], columns: usize) -> Self {
        const ROWS: usize = 84;
        let mut panels = Self::for_rows(values.len() / columns, columns);
        panels
            .tiles(ROWS)
            .zip(values.par_chunks(ROWS * columns))
            .for_each(|(mut tile, rows)| tile.write(rows));
        panels
    }

    /// Panels without content; rows are written through [`tiles`](Self::tiles).
    pub(crate) fn for_rows(depth: usize, columns: usize) -> Self {
        let mut panels = Self::empty();
        panels.reshape([depth, columns]);
        panels
    }

    /// Tiles of `rows` rows each, which threads can write in parallel.
    pub(crate) fn tiles(&mut self, rows: usize) -> impl IndexedParallelIterator<Item = Tile<'_>> {
        let (depth, columns, width) = (self.depth, self.columns, self.width);
        let panels = Shared(self.floats().as_mut_ptr());
        (0..depth.div_ceil(rows)).into_par_iter().map(move |tile| {
            // Captures the `Shared`, which is `Sync`, rather than the pointer in it, which is not.
            let Shared(panels) = { &panels };
            let rows = tile * rows..((tile + 1) * rows).min(depth);
            Tile { panels: *panels, rows, depth, columns, width, of: PhantomData }
        })
    }

    /// Allocates memory for another shape. The content is arbitrary.
    fn reshape(&mut self, [depth, columns]: [usize; 2]) {
        [self.depth, self.columns] = [depth, columns];
        let length = columns.div_ceil(self.width) * self.panel() + LINE;
        if self.values.len() < length {
            self.values = Buffer::new(length);
        }
        self.start = self.values.as_ptr().align_offset(size_of::<[f32; LINE]>());
    }

    fn floats(&mut self) -> &mut [f32] {
        let length = self.columns.div_ceil(self.width) * self.depth * self.width;
        &mut self.values[self.start..self.start + length]
    }

    /// Floats in a panel; at least one, since slices are split by it.
    fn panel(&self) -> usize {
        (self.depth * self.width).max(1)
    }

    /// `columns` rounded up to whole panels. A product may compute these columns; the padding is 0.
    pub(crate) fn whole(&self, columns: usize) -> usize {
        columns.next_multiple_of(self.width)
    }

    /// The start of row `k` of panel `p`.
    pub(super) fn at(&self, p: usize, k: usize) -> *const f32 {
        self.values[self.start + (p * self.depth + k) * self.width..].as_ptr()
    }
}

/// Panels that several threads write, each in its own rows.
struct Shared(*mut f32);

// SAFETY: only tiles use it, and each writes its own rows.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

/// Some rows of panels, to which the tile has exclusive access.
pub(crate) struct Tile<'a> {
    panels: *mut f32,
    rows: Range<usize>,
    depth: usize,
    columns: usize,
    width: usize,
    of: PhantomData<&'a mut [f32]>,
}

// SAFETY: its rows are exclusive.
unsafe impl Send for Tile<'_> {}

impl Tile<'_> {
    /// Writes all its rows from `values`, where they are contiguous.
    pub(crate) fn write(&mut self, values: &[f32]) {
        assert_eq!(values.len(), self.rows.len() * self.columns);
        for p in 0..self.columns.div_ceil(self.width) {
            let (first, count) = (p * self.width, self.width.min(self.columns - p * self.width));
            let start = (p * self.depth + self.rows.start) * self.width;
            // SAFETY: these rows lie inside this panel, and no other tile has them.
            let panel = unsafe {
                std::slice::from_raw_parts_mut(self.panels.add(start), self.rows.len() * self.width)
            };
            for (to, from) in panel.chunks_exact_mut(self.width).zip(values.chunks_exact(self.columns)) {
                copy(&from[first..first + count], &mut to[..count]);
                to[count..].fill(0.0);
            }
        }
    }
}

/// Writes panel `p`, `wide` of `columns` columns. The position of each part is that of the previous one plus its
/// shape times `step`.
fn pack_all(parts: &[Matrix], step: [usize; 2], columns: usize, p: usize, wide: usize, panel: &mut [f32]) {
    if (p + 1) * wide > columns {
        // Zeros pad the last panel.
        panel.fill(0.0);
    }
    let mut corner = [0, 0];
    for part in parts {
        pack(*part, corner, p, wide, panel);
        corner = [0, 1].map(|axis| corner[axis] + step[axis] * part.shape[axis]);
    }
}

/// Writes the part of `b` in panel `p`, which has `wide` columns. `corner` is the position of `b` in the whole
/// matrix.
fn pack(b: Matrix, corner: [usize; 2], p: usize, wide: usize, panel: &mut [f32]) {
    let ([depth, columns], [down, across]) = (b.shape, b.strides);
    let (first, last) = ((p * wide).max(corner[1]), ((p + 1) * wide).min(corner[1] + columns));
    if first >= last {
        return;
    }
    let (width, place) = (last - first, first - p * wide);
    let from = first - corner[1];
    let values = &mut panel[corner[0] * wide..];
    if across == 1 {
        for (k, row) in values.chunks_exact_mut(wide).take(depth).enumerate() {
            let start = k * down + from;
            copy(&b.values[start..start + width], &mut row[place..place + width]);
        }
        return;
    }
    // Small squares keep the output in the cache.
    for k in (0..depth).step_by(SQUARE) {
        let high = SQUARE.min(depth - k);
        for c in (0..width).step_by(SQUARE) {
            let columns = &b.values[(from + c) * across + k * down..];
            let to = &mut values[k * wide + place + c..];
            if high == SQUARE && c + SQUARE <= width && down == 1 {
                transpose(columns, across, to, wide);
                continue;
            }
            for c in 0..SQUARE.min(width - c) {
                for k in 0..high {
                    to[k * wide + c] = columns[c * across + k * down];
                }
            }
        }
    }
}

/// Rows and columns transposed at a time.
const SQUARE: usize = 4;

/// Transposes a square: column i of `from`, whose rows are `across` apart, becomes row i of `to`, with rows `wide`
/// apart.
#[inline(always)]
fn transpose(from: &[f32], across: usize, to: &mut [f32], wide: usize) {
    let row = |i: usize| from[i * across..].first_chunk::<SQUARE>().expect("four values");
    let rows = [row(0), row(1), row(2), row(3)];
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor supports these instructions, which load and store four values.
    let columns: [[f32; SQUARE]; SQUARE] = unsafe {
        use std::arch::x86_64::{_MM_TRANSPOSE4_PS, _mm_loadu_ps, _mm_storeu_ps};
        let [mut a, mut b, mut c, mut d] = rows.map(|row| _mm_loadu_ps(row.as_ptr()));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        let mut columns = [[0.0; SQUARE]; SQUARE];
        for (to, column) in columns.iter_mut().zip([a, b, c, d]) {
            _mm_storeu_ps(to.as_mut_ptr(), column);
        }
        columns
    };
    #[cfg(not(target_arch = "x86_64"))]
    let columns: [[f32; SQUARE]; SQUARE] = std::array::from_fn(|j| std::array::from_fn(|i| rows[i][j]));
    for (i, column) in columns.iter().enumerate() {
        to[i * wide..][..SQUARE].copy_from_slice(column);
    }
}
