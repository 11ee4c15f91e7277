//! burn's tensors as the arguments of kernels, and how many units a kernel is launched with.

use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::{empty_device_contiguous_dtype, zeros_client};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{StorageType, VectorSize};
use cubecl::prelude::*;
use surgery_core::burn::tensor::{DType, Shape};

/// Units of a cube.
pub(crate) const BLOCK: u32 = 256;
/// The most cubes that every API takes along one axis.
const AXIS: usize = 65_535;

/// The cubes of a launch; a kernel holds its position against the length of what it writes, for there may be more than
/// were asked for.
pub(crate) struct Cubes {
    pub count: CubeCount,
    pub dim: CubeDim,
}

impl Cubes {
    /// One unit for each of `units`.
    pub fn covering(units: usize) -> Self {
        Self::of(units.div_ceil(BLOCK as usize))
    }

    /// So many cubes.
    pub fn of(cubes: usize) -> Self {
        let across = cubes.min(AXIS);
        let count = CubeCount::Static(across as u32, cubes.div_ceil(across.max(1)) as u32, 1);
        Self { count, dim: CubeDim::new_1d(BLOCK) }
    }
}

/// The values row by row, in a buffer without gaps.
pub(crate) fn contiguous<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    into_contiguous(tensor)
}

/// The argument of a kernel that reads or writes all of a contiguous tensor.
pub(crate) fn array<R: CubeRuntime>(tensor: CubeTensor<R>) -> ArrayArg<R> {
    tensor.into_array_arg()
}

/// What a kernel is to take a tensor's values for.
pub(crate) fn dtype<R: CubeRuntime>(tensor: &CubeTensor<R>) -> StorageType {
    tensor.dtype.into()
}

/// How many values a unit reads at once, as a vector: what the device reads best of the widest of `tensors`, as far as
/// stretches of `size` values fall into such vectors.
pub(crate) fn width<R: CubeRuntime>(tensors: &[&CubeTensor<R>], size: usize) -> VectorSize {
    let widest = tensors.iter().map(|tensor| tensor.dtype.size()).max().expect("a kernel reads something");
    let mut widths = tensors[0].client.io_optimized_vector_sizes(widest);
    widths.find(|width| size.is_multiple_of(*width)).unwrap_or(1)
}

/// A tensor of this shape and dtype with nothing written to it, on the device of `like`. Its rows follow each other
/// without gaps, as kernels here write them; on CUDA, burn's own tensors have gaps where a row is no round number of bytes.
pub(crate) fn empty<R: CubeRuntime, const D: usize>(
    like: &CubeTensor<R>,
    shape: [usize; D],
    dtype: DType,
) -> CubeTensor<R> {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), Shape::new(shape), dtype)
}

/// As [`empty`], of the shape and dtype of `like`.
pub(crate) fn empty_like<R: CubeRuntime>(like: &CubeTensor<R>) -> CubeTensor<R> {
    let shape = like.meta.shape().clone();
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, like.dtype)
}

/// The same values in a buffer of their own, without gaps; the values are in such a buffer.
pub(crate) fn copy<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    let to = empty_like(&tensor);
    let (client, kind) = (tensor.client.clone(), dtype(&tensor));
    cubecl::std::tensor::copy_into(&client, tensor.binding(), to.clone().binding(), kind);
    to
}

/// Zeros of the number and dtype of the values of `like`, in one row.
pub(crate) fn zeros_in_a_row<R: CubeRuntime>(like: &CubeTensor<R>) -> CubeTensor<R> {
    let shape = Shape::new([like.meta.num_elements()]);
    zeros_client(like.client.clone(), like.device.clone(), shape, like.dtype)
}
