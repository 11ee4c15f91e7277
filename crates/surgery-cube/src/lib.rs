//! The operations of a Llama on GPUs, written once in CubeCL for every GPU backend.
//!
//! Matrix products are those of burn's backend. The operations between them are memory-bound; each reads its inputs
//! once and writes its result, forward and backward. They compute in f32, and read and write the tensors' dtype. Sums
//! have a fixed order, so one seed gives one result.

mod attention;
mod elementwise;
mod embedding;
mod kernels;
mod products;
mod rows;
mod tensor;

pub use burn_cubecl::{CubeBackend, CubeRuntime};
pub use kernels::Fused;

/// Bytes in use by tensors on a device.
pub fn held<R: CubeRuntime>(device: &R::Device) -> Option<u64> {
    R::client(device).memory_usage().ok().map(|usage| usage.bytes_in_use)
}

/// Bytes reserved by cubecl on a device, in pages; they settle at the demand of the largest step.
pub fn peak<R: CubeRuntime>(device: &R::Device) -> Option<u64> {
    R::client(device).memory_usage().ok().map(|usage| usage.bytes_reserved)
}
