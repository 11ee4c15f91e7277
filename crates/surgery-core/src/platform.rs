//! Interface of a backend crate: a burn backend, its kernels and its devices.

use burn::tensor::backend::{AutodiffBackend, Backend};

use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::memory::{Room, peak_bytes};
use crate::recipe::Precision;

/// A backend for the operation. Each backend crate has one type that implements this.
pub trait Platform: Sized {
    /// Its name on the command line.
    const NAME: &'static str;
    /// The backend for training.
    type Train: AutodiffBackend<InnerBackend = Self::Infer>;
    /// The backend for inference.
    type Infer: Backend<Device = <Self::Train as burn::tensor::backend::BackendTypes>::Device>;
    /// The operations in the backend's fastest form.
    type Kernels: Kernels<Self::Train> + Kernels<Self::Infer>;

    /// The device with this number. A missing device is an error; no other device takes its place.
    fn device(number: usize) -> Result<<Self::Infer as burn::tensor::backend::BackendTypes>::Device>;

    /// The supported precisions.
    fn precisions() -> &'static [Precision];

    /// Description for the user: one line for each device, or the problem.
    fn describe() -> Vec<String>;

    /// Memory that can still be allocated on `device`; `None` if unknown.
    fn room(_device: &<Self::Infer as burn::tensor::backend::BackendTypes>::Device) -> Option<Room> {
        None
    }

    /// Bytes that tensors (on a CPU: the process) occupy on `device`; `None` if unknown.
    fn held(_device: &<Self::Infer as burn::tensor::backend::BackendTypes>::Device) -> Option<u64> {
        None
    }

    /// Peak memory in bytes so far: of the process, or on a GPU, reserved for tensors, which grows to the demand of
    /// the largest step. `None` if unknown.
    fn peak(_device: &<Self::Infer as burn::tensor::backend::BackendTypes>::Device) -> Option<u64> {
        peak_bytes()
    }

    /// Refuses an unsupported precision.
    fn check_precision(precision: Precision) -> Result<()> {
        if Self::precisions().contains(&precision) {
            return Ok(());
        }
        let available: Vec<&str> = Self::precisions().iter().map(|precision| precision.name()).collect();
        Err(Error::Backend {
            problem: format!("backend {} has no precision `{}`", Self::NAME, precision.name()),
            remedy: format!("set `model.precision` to one of: {}", available.join(", ")),
        })
    }
}

/// The device type of a platform.
pub type DeviceOf<P> = burn::tensor::Device<<P as Platform>::Infer>;
