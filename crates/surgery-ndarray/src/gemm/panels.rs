//! The right operand of products, packed.

use rayon::prelude::*;

use super::{Matrix, panel_width};

/// One line of the cache.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; Line::FLOATS]);

impl Line {
    const FLOATS: usize = 16;
    const ZERO: Self = Self([0.0; Self::FLOATS]);
}

/// The right operand `[depth, columns]` in panels of a few columns, filled up with zeros: element (k, c) of panel
/// p at `(p · depth + k) · width + c`.
#[derive(Debug, Clone)]
pub(crate) struct Panels {
    lines: Vec<Line>,
    pub(super) depth: usize,
    pub(super) columns: usize,
    /// Columns of a panel: a whole number of lines.
    pub(super) width: usize,
}

impl Panels {
    /// Packs `b`, panel by panel on all threads.
    pub(crate) fn new(b: Matrix) -> Self {
        Self::beside(&[b])
    }

    /// Packs matrices of one depth beside one another.
    pub(crate) fn beside(parts: &[Matrix]) -> Self {
        let columns = parts.iter().map(|part| part.shape[1]).sum();
        Self::packed(parts, [parts[0].shape[0], columns], [0, 1], panel_width())
    }

    /// Packs matrices of one width beneath one another.
    pub(crate) fn stacked(parts: &[Matrix]) -> Self {
        let depth = parts.iter().map(|part| part.shape[0]).sum();
        Self::packed(parts, [depth, parts[0].shape[1]], [1, 0], panel_width())
    }

    /// Packs `parts`, each `step` of the last one's shape after it.
    pub(super) fn packed(
        parts: &[Matrix],
        [depth, columns]: [usize; 2],
        step: [usize; 2],
        width: usize,
    ) -> Self {
        let mut panels = Self { depth, columns, width, ..Self::empty() };
        panels.lines = vec![Line::ZERO; panels.num_lines()];
        let panel_lines = panels.panel_lines();
        panels.lines.par_chunks_mut(panel_lines).enumerate().for_each(|(p, panel)| {
            let mut corner = [0, 0];
            for part in parts {
                pack(*part, corner, p, width, panel);
                corner = [0, 1].map(|axis| corner[axis] + step[axis] * part.shape[axis]);
            }
        });
        panels
    }

    /// Holds nothing yet.
    pub(crate) fn empty() -> Self {
        Self { lines: Vec::new(), depth: 0, columns: 0, width: panel_width() }
    }

    /// Packs `b` in place of what was held, on this thread.
    pub(crate) fn fill(&mut self, b: Matrix) {
        [self.depth, self.columns] = b.shape;
        self.lines.resize(self.num_lines(), Line::ZERO);
        let (width, panel_lines) = (self.width, self.panel_lines());
        self.lines.chunks_mut(panel_lines).enumerate().for_each(|(p, panel)| {
            if (p + 1) * width > b.shape[1] {
                // Columns that fill the last panel up.
                panel.fill(Line::ZERO);
            }
            pack(b, [0, 0], p, width, panel);
        });
    }

    /// Lines of one panel; at least one, for slices to be cut by.
    fn panel_lines(&self) -> usize {
        (self.depth * (self.width / Line::FLOATS)).max(1)
    }

    fn num_lines(&self) -> usize {
        self.columns.div_ceil(self.width) * self.depth * (self.width / Line::FLOATS)
    }

    /// Where row `k` of panel `p` begins.
    pub(super) fn at(&self, p: usize, k: usize) -> *const f32 {
        self.lines[(p * self.depth + k) * (self.width / Line::FLOATS)..].as_ptr().cast()
    }
}

/// Writes what panel `p` of `wide` columns holds of `b`, whose first element stands at `corner` of the whole.
fn pack(b: Matrix, corner: [usize; 2], p: usize, wide: usize, panel: &mut [Line]) {
    let ([depth, columns], [down, across]) = (b.shape, b.strides);
    let (first, last) = ((p * wide).max(corner[1]), ((p + 1) * wide).min(corner[1] + columns));
    if first >= last {
        return;
    }
    let (width, place) = (last - first, first - p * wide);
    let from = first - corner[1];
    let values = &mut as_floats(panel)[corner[0] * wide..];
    if across == 1 {
        for (k, row) in values.chunks_exact_mut(wide).take(depth).enumerate() {
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
                values[(start + k) * wide + place + c] = column[k * down];
            }
        }
    }
}

fn as_floats(lines: &mut [Line]) -> &mut [f32] {
    // SAFETY: a line is so many floats and nothing else.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * Line::FLOATS) }
}
