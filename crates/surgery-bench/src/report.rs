//! The report as printed in JSON: seconds, bytes and operations a second; times are medians.

use serde::Serialize;

use crate::floor::ProductRate;
use crate::peer::{PeerParts, Versions};
use crate::work::Lengths;

/// All measurements of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) backend: &'static str,
    pub(crate) precision: &'static str,
    /// Threads of each program.
    pub(crate) threads: usize,
    /// PyTorch's versions, if it was measured.
    pub(crate) peer: Option<Versions>,
    pub(crate) shapes: Vec<Measured>,
}

/// The measurements of one shape.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) shape: &'static str,
    pub(crate) parameters: u64,
    pub(crate) lengths: Lengths,
    /// Documents and input tokens of a step.
    pub(crate) documents: usize,
    pub(crate) tokens: usize,
    /// Number of rounds, of which the median is taken.
    pub(crate) rounds: u32,
    pub(crate) step: Step,
    pub(crate) floor: Floor,
    pub(crate) evaluation: Evaluation,
    pub(crate) peer: Option<PeerMeasured>,
    pub(crate) job: Option<Job>,
}

/// A step with precomputed reference states.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) seconds: f64,
    pub(crate) tokens_per_second: f64,
    pub(crate) parts: Parts,
    /// Seconds of a step that runs the reference.
    pub(crate) reference_run_seconds: f64,
    /// Peak memory during a step, minus that of the idle process; on a GPU, the memory reserved. `None` if unknown.
    pub(crate) memory_bytes: Option<u64>,
}

/// Seconds of a step's parts. `backward` is the rest of the step; the others are measured separately.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Parts {
    /// From token ids to the final hidden states.
    pub(crate) forward: f64,
    /// The losses and their gradients with respect to hidden states and head.
    pub(crate) head: f64,
    /// The backward pass from there to every parameter.
    pub(crate) backward: f64,
    /// The gradient's norm.
    pub(crate) clip: f64,
    /// The update, including the clipping.
    pub(crate) adamw: f64,
}

/// The floor under a step's time.
#[derive(Debug, Serialize)]
pub(crate) struct Floor {
    /// Operations of the step's matrix products.
    pub(crate) operations: f64,
    pub(crate) products: Vec<ProductRate>,
    /// Index in `products` of the best rate.
    pub(crate) best: usize,
    /// The operations at the best rate.
    pub(crate) seconds: f64,
    /// Ratio of the floor to the step's time.
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

/// PyTorch's measurements.
#[derive(Debug, Serialize)]
pub(crate) struct PeerMeasured {
    /// Seconds of a step, which runs the reference.
    pub(crate) step_seconds: f64,
    pub(crate) parts: PeerParts,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) batched_evaluation_seconds: f64,
    pub(crate) single_evaluation_seconds: f64,
    /// Rate of a matrix product of 2048 × 2048 × 2048.
    pub(crate) product_rate: f64,
    /// Ratio of its step's time to ours.
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

/// PyTorch's measurements of the job.
#[derive(Debug, Serialize)]
pub(crate) struct PeerJob {
    pub(crate) batched_seconds: f64,
    pub(crate) single_seconds: f64,
}
