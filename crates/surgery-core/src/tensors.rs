//! Small helpers on tensors.

use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Int, Tensor};

/// The dtype of a tensor's values.
pub(crate) fn dtype<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> FloatDType {
    tensor.dtype().into()
}

/// Values rounded to `dtype`, as f32. Products of them are summed in f32, however a backend sums in `dtype`.
pub(crate) fn rounded<B: Backend, const D: usize>(x: Tensor<B, D>, dtype: FloatDType) -> Tensor<B, D> {
    x.cast(dtype).cast(FloatDType::F32)
}

/// Token ids as a column, `[n, 1]`.
pub(crate) fn column<B: Backend>(tokens: &[u32], device: &B::Device) -> Tensor<B, 2, Int> {
    let tokens: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    Tensor::<B, 1, Int>::from_data(tokens.as_slice(), device).reshape([-1, 1])
}

/// Replaces a tensor by a function of it. There is no other handle of the tensor meanwhile, so that a backend may work in
/// place.
pub(crate) fn replace<B: Backend>(
    tensor: &mut Tensor<B, 2>,
    change: impl FnOnce(Tensor<B, 2>) -> Tensor<B, 2>,
) {
    let nothing = Tensor::empty([0, 0], &tensor.device());
    *tensor = change(std::mem::replace(tensor, nothing));
}

/// The hidden states at some positions of the flattened rows: `[rows, columns, hidden]` to `[positions, hidden]`.
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
