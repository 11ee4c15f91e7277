//! GPUs through Vulkan (Metal on macOS), with burn's wgpu backend.
//!
//! burn's kernel fusion is off: the kernels of `surgery-cube` do its work, and it has computed wrong results in some
//! cases (burn's issues 5122 and 4366). With it, burn's portable operations still pass the parity suite, and the loss
//! over 100 steps differs by 3e-5 (`cargo xtask parity --backend fusion`).
//!
//! burn's autotune is off too. Among the kernels that it chose by speed on Mesa's software Vulkan, one set computed a
//! KL of 2 instead of 0 in one operation of the parity suite. Its choice also differs between machines, and rounding
//! with it. The default kernels agree with PyTorch in every item.
//!
//! Devices are numbered: discrete GPUs first, then integrated, then virtual ones. An adapter that computes on the CPU
//! (Mesa's llvmpipe) has no number and is used only on request: it replaces device 0 if cubecl's variable
//! `CUBECL_WGPU_DEFAULT_DEVICE` is `Cpu`.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use burn_wgpu::{CubeBackend, WgpuDevice, WgpuRuntime};
use surgery_core::burn::backend::Autodiff;
use surgery_core::platform::Platform;
use surgery_core::recipe::Precision;
use surgery_core::{Error, Result};
use surgery_cube::Fused;
use wgpu::DeviceType;

/// The API that cubecl uses.
const API: wgpu::Backend =
    if cfg!(target_os = "macos") { wgpu::Backend::Metal } else { wgpu::Backend::Vulkan };
const DEVICE_VARIABLE: &str = "CUBECL_WGPU_DEFAULT_DEVICE";
const OTHER_BACKEND: &str = "or choose another backend with --backend";

/// GPUs through Vulkan or Metal.
#[derive(Debug, Clone, Copy)]
pub struct Wgpu;

impl Platform for Wgpu {
    const NAME: &'static str = "wgpu";
    type Train = Autodiff<Self::Infer>;
    // Spelled out, since burn_wgpu::Wgpu is another type if its feature `fusion` is on.
    type Infer = CubeBackend<WgpuRuntime, f32, i32, u32>;
    type Kernels = Fused;

    fn device(number: usize) -> Result<WgpuDevice> {
        let wants_software = std::env::var(DEVICE_VARIABLE).is_ok_and(|name| name == "Cpu");
        if wants_software && number == 0 {
            return Self::software();
        }
        let adapters = adapters();
        let gpus = gpus(&adapters);
        match gpus.get(number) {
            Some((device, _)) => Ok(device.clone()),
            None if gpus.is_empty() => Err(Error::Backend {
                problem: format!("backend wgpu found no GPU with a {API:?} driver{}", software(&adapters)),
                remedy: format!("install the GPU's driver, {OTHER_BACKEND}"),
            }),
            None => Err(Error::Backend {
                problem: format!("backend wgpu has no device {number}, only {} GPU(s)", gpus.len()),
                remedy: format!("set --device to a number from 0 to {}", gpus.len() - 1),
            }),
        }
    }

    fn held(device: &WgpuDevice) -> Option<u64> {
        surgery_cube::held::<WgpuRuntime>(device)
    }

    fn peak(device: &WgpuDevice) -> Option<u64> {
        surgery_cube::peak::<WgpuRuntime>(device)
    }

    fn precisions() -> &'static [Precision] {
        &[Precision::F32]
    }

    fn describe() -> Vec<String> {
        let adapters = adapters();
        let gpus = gpus(&adapters);
        let mut lines: Vec<String> = gpus
            .iter()
            .enumerate()
            .map(|(number, (_, adapter))| format!("device {number}: {}", adapter.description))
            .collect();
        if lines.is_empty() {
            lines.push(format!("no GPU with a {API:?} driver"));
        }
        let unused = adapters.iter().filter(|adapter| adapter.gpu().is_none());
        lines.extend(unused.map(|adapter| format!("not used: {}", adapter.description)));
        lines
    }
}

impl Wgpu {
    /// The adapter that computes on the CPU, for tests on machines without a GPU.
    pub fn software() -> Result<WgpuDevice> {
        match adapters().iter().any(|adapter| adapter.kind == DeviceType::Cpu) {
            true => Ok(WgpuDevice::Cpu),
            false => Err(Error::Backend {
                problem: format!("backend wgpu found no {API:?} adapter that computes on the CPU"),
                remedy: "install Mesa's software driver (Debian: mesa-vulkan-drivers)".into(),
            }),
        }
    }
}

/// cubecl's constructor for the device with a number within its kind.
type ByNumber = fn(usize) -> WgpuDevice;

/// The relevant properties of an adapter.
struct Adapter {
    kind: DeviceType,
    description: String,
}

/// All adapters in wgpu's order, listed as cubecl does. cubecl panics if one is missing.
fn adapters() -> Vec<Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: API.into(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    // Outside a browser, the future is ready at once.
    let answer = pin!(instance.enumerate_adapters(API.into()));
    match answer.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(adapters) => adapters.iter().map(|adapter| Adapter::new(&adapter.get_info())).collect(),
        Poll::Pending => Vec::new(),
    }
}

impl Adapter {
    fn new(info: &wgpu::AdapterInfo) -> Self {
        let kind = match info.device_type {
            DeviceType::DiscreteGpu => "discrete GPU",
            DeviceType::IntegratedGpu => "integrated GPU",
            DeviceType::VirtualGpu => "virtual GPU",
            DeviceType::Cpu => "computes on the CPU; CUBECL_WGPU_DEFAULT_DEVICE=Cpu would use it",
            DeviceType::Other => "of unknown kind",
        };
        let description =
            format!("{} ({kind}), {:?}, {} {}", info.name, info.backend, info.driver, info.driver_info);
        Self { kind: info.device_type, description }
    }

    /// Its rank among the kinds of GPU, and cubecl's constructor for devices of its kind; `None` unless it is known
    /// to be a GPU.
    fn gpu(&self) -> Option<(usize, ByNumber)> {
        match self.kind {
            DeviceType::DiscreteGpu => Some((0, WgpuDevice::DiscreteGpu)),
            DeviceType::IntegratedGpu => Some((1, WgpuDevice::IntegratedGpu)),
            DeviceType::VirtualGpu => Some((2, WgpuDevice::VirtualGpu)),
            DeviceType::Cpu | DeviceType::Other => None,
        }
    }
}

/// The GPUs in the order of their numbers.
fn gpus(adapters: &[Adapter]) -> Vec<(WgpuDevice, &Adapter)> {
    let mut counts = [0; 3];
    let mut gpus = Vec::new();
    for adapter in adapters {
        if let Some((rank, device)) = adapter.gpu() {
            gpus.push((rank, device(counts[rank]), adapter));
            counts[rank] += 1;
        }
    }
    gpus.sort_by_key(|(rank, ..)| *rank);
    gpus.into_iter().map(|(_, device, adapter)| (device, adapter)).collect()
}

/// Mentions the software adapter, if there is one, in the error about a missing GPU.
fn software(adapters: &[Adapter]) -> String {
    match adapters.iter().find(|adapter| adapter.kind == DeviceType::Cpu) {
        Some(adapter) => format!(", only {}", adapter.description),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_numbered_by_kind_and_software_is_not_one() {
        let adapter = |name: &str, kind| Adapter { kind, description: name.into() };
        let adapters = [
            adapter("i", DeviceType::IntegratedGpu),
            adapter("llvmpipe", DeviceType::Cpu),
            adapter("a", DeviceType::DiscreteGpu),
            adapter("b", DeviceType::DiscreteGpu),
        ];
        let gpus = gpus(&adapters);
        let names: Vec<String> =
            gpus.iter().map(|(device, adapter)| format!("{} {device:?}", adapter.description)).collect();
        assert_eq!(names, ["a DiscreteGpu(0)", "b DiscreteGpu(1)", "i IntegratedGpu(0)"]);
        assert_eq!(software(&adapters), ", only llvmpipe");
    }
}
