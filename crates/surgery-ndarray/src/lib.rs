//! The CPU backend: burn's ndarray backend, with its own operations on contiguous floats.

mod adamw;
mod attention;
mod buffer;
mod gemm;
mod head;
mod kernels;
mod rows;
mod simd;
mod sublayers;

use burn_ndarray::{NdArray, NdArrayDevice};
use surgery_core::burn::backend::Autodiff;
use surgery_core::memory::{Room, resident_bytes, room, shown};
use surgery_core::platform::Platform;
use surgery_core::recipe::Precision;
use surgery_core::{Error, Result};

pub use kernels::Fused;

/// The CPU.
#[derive(Debug, Clone, Copy)]
pub struct Cpu;

impl Platform for Cpu {
    const NAME: &'static str = "ndarray";
    type Train = Autodiff<NdArray<f32>>;
    type Infer = NdArray<f32>;
    type Kernels = Fused;

    fn device(number: usize) -> Result<NdArrayDevice> {
        buffer::map_large_blocks();
        match number {
            0 => Ok(NdArrayDevice::Cpu),
            _ => Err(Error::Backend {
                problem: format!("backend ndarray has no device {number}, only device 0, the CPU"),
                remedy: "leave out --device".into(),
            }),
        }
    }

    fn held(_device: &NdArrayDevice) -> Option<u64> {
        resident_bytes()
    }

    fn room(_device: &NdArrayDevice) -> Option<Room> {
        room()
    }

    fn precisions() -> &'static [Precision] {
        &[Precision::F32]
    }

    fn describe() -> Vec<String> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let room = room()
            .map_or(String::new(), |room| format!(", room for {} in {}", shown(room.bytes), room.limit));
        vec![format!("device 0: CPU, {}, {threads} threads{room}", simd::isa())]
    }
}
