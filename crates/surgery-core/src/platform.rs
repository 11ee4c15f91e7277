//! What a backend crate provides: a burn backend, its kernels and its devices.

use burn::tensor::backend::{AutodiffBackend, Backend};

use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::memory::{Room, peak_bytes};
use crate::recipe::Precision;

/// A backend that the operation can run on. Each backend crate has one type that implements this.
pub trait Platform: Sized {
    /// Its name on the command line.
    const NAME: &'static str;
    /// Trains.
    type Train: AutodiffBackend<InnerBackend = Self::Infer>;
    /// Infers.
    type Infer: Backend<Device = <Self::Train as burn::tensor::backend::BackendTypes>::Device>;
    /// The operations, each in the fastest form this backend has.
    type Kernels: Kernels<Self::Train> + Kernels<Self::Infer>;

    /// The device of this number. What is not there is an error, never another device.
    fn device(number: usize) -> Result<<Self::Infer as burn::tensor::backend::BackendTypes>::Device>;

    /// The precisions it computes in.
    fn precisions() -> &'static [Precision];

    /// What a person asking about this machine should know: one line per device, or what is wrong.
    fn describe() -> Vec<String>;

    /// How much more memory may be filled on `device`; none where that cannot be told.
    fn room(_device: &<Self::Infer as burn::tensor::backend::BackendTypes>::Device) -> Option<Room> {
        None
    }

    /// The bytes that tensors (of a CPU, the process) hold on `device`; none where that cannot be told.
    fn held(_device: &<Self::Infer as burn::tensor::backend::BackendTypes>::Device) -> Option<u64> {
        None
    }

    /// The most bytes held at once so far: by the process, or on a GPU what was set aside for tensors, which grows to
    /// what the largest step takes. None where that cannot be told.
    fn peak(_device: &<Self::Infer as burn::tensor::backend::BackendTypes>::Device) -> Option<u64> {
        peak_bytes()
    }

    /// Refuses a precision that this backend lacks.
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
