//! What was measured, as it is printed in JSON. Seconds, bytes, and operations a second; times are medians.

use serde::Serialize;

use crate::floor::ProductRate;
use crate::peer::{PeerParts, Versions};
use crate::work::Lengths;

/// Everything that one run measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) backend: &'static str,
    pub(crate) precision: &'static str,
    /// Of each side.
    pub(crate) threads: usize,
    /// PyTorch's side, where it was measured.
    pub(crate) peer: Option<Versions>,
    pub(crate) shapes: Vec<Measured>,
}

/// What was measured of one shape.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) shape: &'static str,
    pub(crate) parameters: u64,
    pub(crate) lengths: Lengths,
    /// Documents and input tokens of a step.
    pub(crate) documents: usize,
    pub(crate) tokens: usize,
    /// Rounds whose median is taken.
    pub(crate) rounds: u32,
    pub(crate) step: Step,
    pub(crate) floor: Floor,
    pub(crate) evaluation: Evaluation,
    pub(crate) peer: Option<PeerMeasured>,
    pub(crate) job: Option<Job>,
}

/// A step whose reference is known.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) seconds: f64,
    pub(crate) tokens_per_second: f64,
    pub(crate) parts: Parts,
    /// A step that runs the reference.
    pub(crate) reference_run_seconds: f64,
    /// The most memory held during a step above the idle process's, where the system tells; of a GPU, what was set
    /// aside.
    pub(crate) memory_bytes: Option<u64>,
}

/// Seconds of a step's parts. Each is measured by itself but `backward`, which is the rest.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Parts {
    /// From token ids to the final hidden states.
    pub(crate) forward: f64,
    /// The losses, and their gradient with respect to hidden states and head.
    pub(crate) head: f64,
    /// From there to every parameter.
    pub(crate) backward: f64,
    /// The gradient's norm.
    pub(crate) clip: f64,
    /// The scaling by the norm is in it.
    pub(crate) adamw: f64,
}

/// The floor under a step's time.
#[derive(Debug, Serialize)]
pub(crate) struct Floor {
    /// Of the step's matrix products.
    pub(crate) operations: f64,
    pub(crate) products: Vec<ProductRate>,
    /// Of `products`, by its place.
    pub(crate) best: usize,
    /// The operations at the best rate.
    pub(crate) seconds: f64,
    /// That by the time of a step.
    pub(crate) share: f64,
}

/// Multiple choice.
#[derive(Debug, Serialize)]
pub(crate) struct Evaluation {
    pub(crate) questions: usize,
    pub(crate) options: usize,
    pub(crate) seconds: f64,
    pub(crate) questions_per_second: f64,
    pub(crate) options_per_second: f64,
}

/// The same by PyTorch.
#[derive(Debug, Serialize)]
pub(crate) struct PeerMeasured {
    /// Of a step, which runs the reference.
    pub(crate) step_seconds: f64,
    pub(crate) parts: PeerParts,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) batched_evaluation_seconds: f64,
    pub(crate) single_evaluation_seconds: f64,
    /// Of a matrix product of 2048 x 2048 x 2048.
    pub(crate) product_rate: f64,
    /// Its time by ours.
    pub(crate) step_ratio: f64,
}

/// The whole job.
#[derive(Debug, Serialize)]
pub(crate) struct Job {
    pub(crate) rounds: usize,
    pub(crate) texts: usize,
    pub(crate) questions: usize,
    pub(crate) steps: usize,
    pub(crate) seconds: f64,
    pub(crate) peer: Option<PeerJob>,
}

/// The same by PyTorch.
#[derive(Debug, Serialize)]
pub(crate) struct PeerJob {
    pub(crate) batched_seconds: f64,
    pub(crate) single_seconds: f64,
}
