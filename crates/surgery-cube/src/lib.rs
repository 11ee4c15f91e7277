//! The operations of a Llama on GPUs, written once in CubeCL for every GPU backend.
//!
//! The matrix products are those that burn stands on; what lies between them is memory-bound, and each operation here reads its inputs once
//! and writes its result, forward and backward. All of them compute in f32 and read and write the dtype of the tensors
//! they are given. A sum is never spread over cubes that race for it, so one seed gives one result.

mod attention;
mod elementwise;
mod embedding;
mod kernels;
mod products;
mod rows;
mod tensor;

pub use burn_cubecl::{CubeBackend, CubeRuntime};
pub use kernels::Fused;

/// The bytes that tensors hold on a device.
pub fn held<R: CubeRuntime>(device: &R::Device) -> Option<u64> {
    R::client(device).memory_usage().ok().map(|usage| usage.bytes_in_use)
}

/// The bytes that cubecl has set aside for tensors on a device: in pages, which settle at what the largest step took.
pub fn peak<R: CubeRuntime>(device: &R::Device) -> Option<u64> {
    R::client(device).memory_usage().ok().map(|usage| usage.bytes_reserved)
}
