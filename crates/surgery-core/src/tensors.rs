//! Rows of tensors by their positions.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};

/// The hidden states at some positions of the flattened rows: `[rows, columns, hidden]` to
/// `[positions, hidden]`.
pub(crate) fn at_positions<B: Backend>(
    hidden: Tensor<B, 3>,
    positions: impl Iterator<Item = usize>,
) -> Tensor<B, 2> {
    let [rows, columns, size] = hidden.dims();
    select(hidden.reshape([rows * columns, size]), positions)
}

/// Some rows of a matrix: `[n, hidden]` to `[positions, hidden]`.
pub(crate) fn select<B: Backend>(
    hidden: Tensor<B, 2>,
    positions: impl Iterator<Item = usize>,
) -> Tensor<B, 2> {
    let positions: Vec<i32> = positions.map(|position| position as i32).collect();
    let positions = Tensor::<B, 1, Int>::from_data(positions.as_slice(), &hidden.device());
    hidden.select(0, positions)
}
