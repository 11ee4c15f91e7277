//! burn's tensors as kernel arguments, and the sizes of launches.

use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::{empty_device_contiguous_dtype, zeros_client};
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{StorageType, VectorSize};
use cubecl::prelude::*;
use surgery_core::burn::tensor::{DType, Shape};

/// Number of units in a cube.
pub(crate) const BLOCK: u32 = 256;
/// Maximum number of cubes along one axis in every API.
const AXIS: usize = 65_535;

/// The cubes of a launch. There may be more than requested, so a kernel compares its position with the length of its
/// output.
pub(crate) struct Cubes {
    pub count: CubeCount,
    pub dim: CubeDim,
}

impl Cubes {
    /// Cubes with at least this many units.
    pub fn covering(units: usize) -> Self {
        Self::of(units.div_ceil(BLOCK as usize))
    }

    /// At least this many cubes.
    pub fn of(cubes: usize) -> Self {
        let across = cubes.min(AXIS);
        let count = CubeCount::Static(across as u32, cubes.div_ceil(across.max(1)) as u32, 1);
        Self { count, dim: CubeDim::new_1d(BLOCK) }
    }
}

/// The values in row-major order without gaps.
pub(crate) fn contiguous<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    into_contiguous(tensor)
}

/// The kernel argument for all values of a contiguous tensor.
pub(crate) fn array<R: CubeRuntime>(tensor: CubeTensor<R>) -> ArrayArg<R> {
    tensor.into_array_arg()
}

/// The tensor's dtype for a kernel.
pub(crate) fn dtype<R: CubeRuntime>(tensor: &CubeTensor<R>) -> StorageType {
    tensor.dtype.into()
}

/// Number of values in the vectors that a unit reads: the device's optimum for the widest dtype of `tensors` that
/// divides `size`.
pub(crate) fn width<R: CubeRuntime>(tensors: &[&CubeTensor<R>], size: usize) -> VectorSize {
    let widest = tensors.iter().map(|tensor| tensor.dtype.size()).max().expect("a kernel reads something");
    let mut widths = tensors[0].client.io_optimized_vector_sizes(widest);
    widths.find(|width| size.is_multiple_of(*width)).unwrap_or(1)
}

/// An uninitialised tensor on the device of `like`, without gaps between rows, as kernels here expect. burn's own
/// tensors on CUDA have gaps if rows are not a round number of bytes.
pub(crate) fn empty<R: CubeRuntime, const D: usize>(
    like: &CubeTensor<R>,
    shape: [usize; D],
    dtype: DType,
) -> CubeTensor<R> {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), Shape::new(shape), dtype)
}

/// An uninitialised tensor with the shape and dtype of `like`.
pub(crate) fn empty_like<R: CubeRuntime>(like: &CubeTensor<R>) -> CubeTensor<R> {
    let shape = like.meta.shape().clone();
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, like.dtype)
}

/// A copy of the values without gaps. The input must have none either.
pub(crate) fn copy<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    let to = empty_like(&tensor);
    let (client, kind) = (tensor.client.clone(), dtype(&tensor));
    cubecl::std::tensor::copy_into(&client, tensor.binding(), to.clone().binding(), kind);
    to
}

/// Zeros with the number of values and the dtype of `like`, in one dimension.
pub(crate) fn zeros_in_a_row<R: CubeRuntime>(like: &CubeTensor<R>) -> CubeTensor<R> {
    let shape = Shape::new([like.meta.num_elements()]);
    zeros_client(like.client.clone(), like.device.clone(), shape, like.dtype)
}
