//! NVIDIA GPUs, with burn's CUDA backend.
//!
//! Building needs no NVIDIA software. Running needs the driver and, from the CUDA toolkit, NVRTC and the headers,
//! since kernels are compiled at run time. cubecl panics if one is missing, so they are checked first.
//!
//! burn's kernel fusion is off: the kernels of `surgery-cube` do its work. Autotune is off; see the products of
//! `surgery-cube`.

use std::path::PathBuf;

use burn_cuda::CudaDevice;
use cubecl_cuda::CudaRuntime;
use cudarc::driver::result::{device, init};
use cudarc::driver::{CudaContext, DriverError};
use surgery_core::burn::backend::Autodiff;
use surgery_core::memory::{Limit, Room, shown};
use surgery_core::platform::Platform;
use surgery_core::recipe::Precision;
use surgery_core::{Error, Result};
use surgery_cube::Fused;

/// NVIDIA GPUs.
#[derive(Debug, Clone, Copy)]
pub struct Cuda;

impl Platform for Cuda {
    const NAME: &'static str = "cuda";
    type Train = Autodiff<burn_cuda::Cuda<f32>>;
    type Infer = burn_cuda::Cuda<f32>;
    type Kernels = Fused;

    fn device(number: usize) -> Result<CudaDevice> {
        let names = names()?;
        if number >= names.len() {
            return Err(Error::Backend {
                problem: format!("backend cuda has no device {number}, only {} GPU(s)", names.len()),
                remedy: format!("set --device to a number from 0 to {}", names.len() - 1),
            });
        }
        check_toolkit()?;
        Ok(CudaDevice::new(number))
    }

    fn room(device: &CudaDevice) -> Option<Room> {
        let [free, _] = memory(device.index)?;
        // Memory that cubecl has reserved but no tensor uses is available too.
        let (reserved, used) = (Self::peak(device)?, Self::held(device)?);
        Some(Room { bytes: free + reserved.saturating_sub(used), limit: Limit::Device })
    }

    fn held(device: &CudaDevice) -> Option<u64> {
        surgery_cube::held::<CudaRuntime>(device)
    }

    fn peak(device: &CudaDevice) -> Option<u64> {
        surgery_cube::peak::<CudaRuntime>(device)
    }

    fn precisions() -> &'static [Precision] {
        let all = &[Precision::F32, Precision::Mixed, Precision::Bf16];
        let capabilities: Vec<[i32; 2]> =
            (0..names().map_or(0, |names| names.len())).filter_map(capability).collect();
        match capabilities.iter().all(|[major, _]| *major < BF16_SINCE) && !capabilities.is_empty() {
            true => &all[..1],
            false => all,
        }
    }

    fn describe() -> Vec<String> {
        let described = |(number, name): (usize, &String)| {
            let memory =
                memory(number).map(|[free, total]| format!(", {} free of {}", shown(free), shown(total)));
            let capability = capability(number)
                .map(|[major, minor]| format!(", compute capability {major}.{minor}"))
                .unwrap_or_default();
            format!("device {number}: {name}{}{capability}", memory.unwrap_or_default())
        };
        let mut lines = match names() {
            Ok(names) => names.iter().enumerate().map(described).collect(),
            Err(error) => vec![error.to_string()],
        };
        lines.extend(
            driver().map(|version| format!("driver for CUDA {}.{}", version / 1000, version % 1000 / 10)),
        );
        lines.push(match check_toolkit() {
            Ok(root) => format!("toolkit in {}", root.display()),
            Err(error) => error.to_string(),
        });
        lines
    }
}

/// Free and total memory of a device in bytes. Other processes may use it too.
fn memory(number: usize) -> Option<[u64; 2]> {
    let (free, total) = CudaContext::new(number).and_then(|context| context.mem_get_info()).ok()?;
    Some([free as u64, total as u64])
}

/// The minimum compute capability for bf16 products: that of Ampere.
const BF16_SINCE: i32 = 8;

/// The compute capability of a device in [`names`].
fn capability(number: usize) -> Option<[i32; 2]> {
    use cudarc::driver::sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    };
    let device = device::get(number as i32).ok()?;
    let attribute = |attribute| {
        // SAFETY: the driver gave this handle.
        #[expect(unsafe_code, reason = "the driver is a C library")]
        unsafe { device::get_attribute(device, attribute) }.ok()
    };
    Some([
        attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    ])
}

/// The latest CUDA version that the driver supports, as 1000 major + 10 minor; `None` without a driver.
fn driver() -> Option<i32> {
    names().ok()?;
    let mut version = 0;
    // SAFETY: the driver is present, and writes one number to the pointer.
    #[expect(unsafe_code, reason = "the driver is a C library")]
    let status = unsafe { cudarc::driver::sys::cuDriverGetVersion(&mut version) };
    status.result().ok().map(|()| version)
}

/// The names of the GPUs that the driver lists, in order; at least one.
fn names() -> Result<Vec<String>> {
    // SAFETY: loading a library runs its initialisers. The driver's own are safe: every CUDA program runs them.
    #[expect(unsafe_code, reason = "the driver is a shared library that may be missing")]
    let present = unsafe { cudarc::driver::sys::is_culib_present() };
    if !present {
        return Err(missing("found no NVIDIA driver", "install it"));
    }
    let refused =
        |error: DriverError| missing(&format!("cannot use the NVIDIA driver: {error}"), "see nvidia-smi");
    init().map_err(refused)?;
    let count = device::get_count().map_err(refused)?;
    if count == 0 {
        return Err(missing("found an NVIDIA driver but no GPU", "see nvidia-smi and CUDA_VISIBLE_DEVICES"));
    }
    (0..count).map(|number| device::get(number).and_then(device::get_name).map_err(refused)).collect()
}

/// The toolkit's folder. Refuses a machine on which kernels cannot be compiled.
fn check_toolkit() -> Result<PathBuf> {
    const INSTALL: &str = "install the CUDA toolkit and set CUDA_PATH to its folder";
    // The folder that cubecl uses.
    let root = cubecl_cuda::install::cuda_path();
    let headers = root.as_deref().map(|root| root.join("include"));
    let place = headers.as_deref().map_or(String::new(), |folder| format!(" in {}", folder.display()));
    let Some(root) = root.filter(|root| root.join("include/cuda_runtime.h").is_file()) else {
        return Err(missing(&format!("found no CUDA headers (cuda_runtime.h){place}"), INSTALL));
    };
    // SAFETY: as for the driver.
    #[expect(unsafe_code, reason = "NVRTC is a shared library that may be missing")]
    let present = unsafe { cudarc::nvrtc::sys::is_culib_present() };
    match present {
        true => Ok(root),
        false => Err(missing(
            "found no CUDA compiler (the library nvrtc)",
            "install the CUDA toolkit and add its library folder to the loader's path (LD_LIBRARY_PATH)",
        )),
    }
}

fn missing(what: &str, remedy: &str) -> Error {
    Error::Backend {
        problem: format!("backend cuda {what}"),
        remedy: format!("{remedy}, or choose another backend with --backend"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_is_an_error() {
        println!("{}", Cuda::describe().join("\n"));
        let error = Cuda::device(1000).expect_err("no machine has so many");
        println!("{error}");
    }
}
