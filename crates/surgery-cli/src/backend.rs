//! The backends that this binary may have: the only place that knows which were compiled in.

use clap::ValueEnum;
use surgery_core::Error;
#[cfg(any(feature = "ndarray", feature = "wgpu", feature = "cuda"))]
use surgery_core::platform::Platform;

use crate::exit::Outcome;

/// A backend's name. One that was not compiled in is a name all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// The CPU
    Ndarray,
    /// A GPU, through Vulkan or Metal
    Wgpu,
    /// An NVIDIA GPU
    Cuda,
}

/// Something to do on whatever backend was chosen.
pub trait Job {
    /// What comes out.
    type Output;

    /// Does it.
    fn run<P: Platform>(self) -> Outcome<Self::Output>;
}

impl Name {
    /// All of them, the best first.
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

    /// Its name, which is also its feature's.
    pub fn feature(self) -> &'static str {
        match self {
            Name::Ndarray => "ndarray",
            Name::Wgpu => "wgpu",
            Name::Cuda => "cuda",
        }
    }

    /// What a binary with this backend is built by.
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

/// Runs `job` on the backend asked for, or on the best one there is.
pub fn run<J: Job>(name: Option<Name>, job: J) -> Outcome<J::Output> {
    match name.or(Name::best()) {
        Some(name) => name.run(job),
        None => Err(Name::Ndarray.missing().into()),
    }
}
