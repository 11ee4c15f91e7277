//! Compares a backend with PyTorch, transformers and the CPU's oracle, item by item. Fails if an error exceeds its
//! tolerance.

use std::process::ExitCode;

use surgery_tests::cpu;
#[cfg(any(feature = "cuda", feature = "wgpu", feature = "flex"))]
use surgery_tests::parity::measure_all;
use surgery_tests::parity::{Item, Steps};

/// Variants for slow backends, and for GPUs, which compile kernels for every shape. Golden gradients and operations
/// exist for them.
#[cfg(any(feature = "cuda", feature = "wgpu", feature = "flex"))]
const FEW: [&str; 4] = ["llama1-mha", "llama32-tied", "llama-bias", "qwen3"];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let backend = arguments.next().unwrap_or_else(|| "ndarray".into());
    let steps = match arguments.next().as_deref() {
        None => Steps::ALL,
        Some("--short") => Steps::FEW,
        Some(other) => {
            eprintln!("error: found `{other}`, expected `--short` or nothing");
            return ExitCode::from(2);
        }
    };
    println!("{backend}, in f32 unless noted: the worst error of each kind, and its tolerance\n");
    let items = match backend.as_str() {
        "ndarray" => cpu::measure_all(steps),
        #[cfg(feature = "wgpu")]
        "wgpu" => measure_all::<surgery_wgpu::Wgpu>(&FEW, steps),
        #[cfg(feature = "flex")]
        "flex" => measure_all::<flex::Halves>(&FEW, steps),
        #[cfg(feature = "fusion")]
        "fusion" => fusing::measure(&FEW, steps.losses),
        #[cfg(feature = "cuda")]
        "cuda" => measure_all::<surgery_cuda::Cuda>(&FEW, steps),
        other => {
            eprintln!("error: no backend `{other}` in this build");
            return ExitCode::from(4);
        }
    };
    let items = match items {
        Ok(items) => items,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(4);
        }
    };
    let failed: Vec<&Item> = items.iter().filter(|item| !item.holds()).collect();
    for Item { what, error, tolerance } in &failed {
        eprintln!("error: {what}: error {error:.2e}, tolerance {tolerance:.0e}");
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// burn's portable operations on its CPU backend in half precision.
#[cfg(feature = "flex")]
mod flex {
    use burn_flex::{Flex, FlexDevice};
    use surgery_core::Result;
    use surgery_core::burn::backend::Autodiff;
    use surgery_core::kernels::Portable;
    use surgery_core::platform::Platform;
    use surgery_core::recipe::Precision;

    pub struct Halves;

    impl Platform for Halves {
        const NAME: &'static str = "flex";
        type Train = Autodiff<Flex>;
        type Infer = Flex;
        type Kernels = Portable;

        fn device(_: usize) -> Result<FlexDevice> {
            Ok(FlexDevice)
        }

        fn precisions() -> &'static [Precision] {
            &[Precision::F32, Precision::Mixed, Precision::Bf16]
        }

        fn describe() -> Vec<String> {
            vec!["burn's CPU with half precision".into()]
        }
    }
}

/// burn's portable operations with its kernel fusion, on WGPU.
#[cfg(feature = "fusion")]
mod fusing {
    use surgery_core::Result;
    use surgery_core::burn::backend::Autodiff;
    use surgery_core::kernels::Portable;
    use surgery_core::platform::{DeviceOf, Platform};
    use surgery_core::recipe::Precision;
    use surgery_tests::half::{curve, distance};
    use surgery_tests::parity::{Item, Tolerances};
    use surgery_wgpu::Wgpu;

    struct Fusing;

    impl Platform for Fusing {
        const NAME: &'static str = "wgpu with fusion";
        type Train = Autodiff<Self::Infer>;
        type Infer = burn_wgpu::Wgpu<f32>;
        type Kernels = Portable;

        fn device(number: usize) -> Result<DeviceOf<Self>> {
            Wgpu::device(number)
        }

        fn precisions() -> &'static [Precision] {
            Wgpu::precisions()
        }

        fn describe() -> Vec<String> {
            Wgpu::describe()
        }
    }

    /// The suite with fusion, and the loss of an operation compared with that without fusion.
    pub fn measure(variants: &[&str], steps: usize) -> Result<Vec<Item>> {
        let device = Fusing::device(0)?;
        let mut items = surgery_tests::parity::measure::<Fusing>(&device, variants, Tolerances::F32);
        let (with, without) = (curve::<Fusing>(&device, None, steps), curve::<Wgpu>(&device, None, steps));
        let error = distance(&with, &without);
        items.push(Item::shown(format!("the loss over {} steps", with.len()), error, 1e-2));
        Ok(items)
    }
}
