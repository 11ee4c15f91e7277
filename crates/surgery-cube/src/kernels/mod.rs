//! The operations of [`surgery_core::kernels`] on GPUs: conversions between burn's tensors and the arguments of kernels.

mod graph;
mod plain;

use burn_cubecl::element::BoolElement;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeRuntime};
use surgery_core::burn::backend::Autodiff;
use surgery_core::burn::tensor::{DType, Tensor, TensorPrimitive};

use crate::products;

/// A GPU without a graph.
pub(super) type Plain<R, T> = CubeBackend<R, f32, i32, T>;
/// A GPU with burn's autodiff.
pub(super) type Graph<R, T> = Autodiff<Plain<R, T>>;

/// The operations by kernels of this crate.
#[derive(Debug, Clone, Copy)]
pub struct Fused;

/// The primitive of a tensor.
pub(super) fn primitive<R: CubeRuntime, T: BoolElement, const D: usize>(
    x: Tensor<Plain<R, T>, D>,
) -> CubeTensor<R> {
    x.into_primitive().tensor()
}

/// A tensor from its primitive.
pub(super) fn tensor<R: CubeRuntime, T: BoolElement, const D: usize>(
    x: CubeTensor<R>,
) -> Tensor<Plain<R, T>, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

/// `a b` of values of one dtype, with values of `into`.
pub(super) fn product<R: CubeRuntime, T: BoolElement>(
    a: Tensor<Plain<R, T>, 2>,
    b: Tensor<Plain<R, T>, 2>,
    into: DType,
) -> Tensor<Plain<R, T>, 2> {
    tensor(products::product(primitive(a), primitive(b), into))
}
