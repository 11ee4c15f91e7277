//! The backends compiled into this build.

use surgery_ndarray::Cpu;

use crate::{Arguments, Result, run_on};

/// Measures on the requested backend.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match arguments.backend.as_str() {
        "ndarray" => run_on::<Cpu>(arguments),
        #[cfg(feature = "wgpu")]
        "wgpu" => run_on::<surgery_wgpu::Wgpu>(arguments),
        #[cfg(feature = "cuda")]
        "cuda" => run_on::<surgery_cuda::Cuda>(arguments),
        other => Err(format!(
            "no backend `{other}` in this build: `cargo xtask bench --backend {other}` builds it, if it exists"
        )
        .into()),
    }
}
