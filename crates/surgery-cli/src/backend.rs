//! The backends of this binary. Only this file knows which of them were compiled in.

use clap::ValueEnum;
use surgery_core::Error;
#[cfg(any(feature = "ndarray", feature = "wgpu", feature = "cuda"))]
use surgery_core::platform::Platform;

use crate::exit::Outcome;

/// The name of a backend, whether it was compiled in or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// The CPU
    Ndarray,
    /// A GPU, through Vulkan or Metal
    Wgpu,
    /// An NVIDIA GPU
    Cuda,
}

/// A job that runs on any backend.
pub trait Job {
    /// The result.
    type Output;

    /// Runs the job on `P`.
    fn run<P: Platform>(self) -> Outcome<Self::Output>;
}

impl Name {
    /// All backends, the best first.
    pub const ALL: [Name; 3] = [Name::Cuda, Name::Wgpu, Name::Ndarray];

    /// Whether it was compiled in.
    pub fn is_compiled(self) -> bool {
        match self {
            Name::Ndarray => cfg!(feature = "ndarray"),
            Name::Wgpu => cfg!(feature = "wgpu"),
            Name::Cuda => cfg!(feature = "cuda"),
        }
    }

    /// The best backend compiled in.
    pub fn best() -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.is_compiled())
    }

    /// Its name, which is also the name of its feature.
    pub fn feature(self) -> &'static str {
        match self {
            Name::Ndarray => "ndarray",
            Name::Wgpu => "wgpu",
            Name::Cuda => "cuda",
        }
    }

    /// The command that builds a binary with this backend.
    pub fn rebuild_command(self) -> String {
        format!("cargo run -p surgery-cli --features {}", self.feature())
    }

    /// Runs `job` on this backend.
    pub fn run<J: Job>(self, job: J) -> Outcome<J::Output> {
        match self {
            #[cfg(feature = "ndarray")]
            Name::Ndarray => job.run::<surgery_ndarray::Cpu>(),
            #[cfg(feature = "wgpu")]
            Name::Wgpu => job.run::<surgery_wgpu::Wgpu>(),
            #[cfg(feature = "cuda")]
            Name::Cuda => job.run::<surgery_cuda::Cuda>(),
            #[allow(unreachable_patterns)]
            _ => Err(self.missing().into()),
        }
    }

    fn missing(self) -> Error {
        Error::Backend {
            problem: format!("backend {} was not compiled in", self.feature()),
            remedy: format!("build with it: {}", self.rebuild_command()),
        }
    }
}

/// Runs `job` on the backend `name`, or on the best one compiled in.
pub fn run<J: Job>(name: Option<Name>, job: J) -> Outcome<J::Output> {
    match name.or(Name::best()) {
        Some(name) => name.run(job),
        None => Err(Name::Ndarray.missing().into()),
    }
}
