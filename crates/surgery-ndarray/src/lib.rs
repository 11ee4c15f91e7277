//! The CPU, by burn's ndarray backend.

use burn_ndarray::{NdArray, NdArrayDevice};
use surgery_core::burn::backend::Autodiff;
use surgery_core::kernels::Portable;
use surgery_core::platform::Platform;
use surgery_core::recipe::Precision;
use surgery_core::{Error, Result};

/// The CPU.
#[derive(Debug, Clone, Copy)]
pub struct Cpu;

impl Platform for Cpu {
    const NAME: &'static str = "ndarray";
    type Train = Autodiff<NdArray<f32>>;
    type Infer = NdArray<f32>;
    type Kernels = Portable;

    fn device(number: usize) -> Result<NdArrayDevice> {
        match number {
            0 => Ok(NdArrayDevice::Cpu),
            _ => Err(Error::Backend {
                problem: format!("backend ndarray has no device {number}, only device 0, the CPU"),
                remedy: "leave out --device".into(),
            }),
        }
    }

    fn precisions() -> &'static [Precision] {
        &[Precision::F32]
    }

    fn describe() -> Vec<String> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        vec![format!("device 0: CPU, {threads} threads")]
    }
}
