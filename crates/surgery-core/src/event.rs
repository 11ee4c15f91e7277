//! Events during an operation. The caller decides how to show them.

use std::path::Path;

use crate::error::{Error, Result};
use crate::evaluation::Evaluation;
use crate::step::StepRecord;

/// A stage of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The model generates replay documents.
    Generating,
    /// The model is inspected before the first step.
    EvaluatingBefore,
    /// The steps.
    Training,
    /// The written checkpoint is inspected.
    EvaluatingAfter,
}

/// Something that happened.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A stage of an operation begins.
    Stage(Stage),
    /// A run resumes from a checkpoint, or from the beginning if there is no complete one.
    Resuming {
        /// The steps done, and the folder of the checkpoint.
        from: Option<(usize, &'a Path)>,
        /// The errors of newer checkpoints that are damaged.
        damaged: &'a [Error],
    },
    /// A step was done.
    Step {
        /// Its number, counted from 1.
        step: usize,
        /// Number of steps of the run.
        steps: usize,
        /// Its measurements.
        record: &'a StepRecord,
        /// Its time in seconds.
        seconds: f64,
    },
    /// A step made no update: its loss or gradient was not a finite number.
    Skipped {
        /// Its number, counted from 1.
        step: usize,
        /// The error; without `guard.skip_not_finite` it would have ended the run.
        error: &'a Error,
    },
    /// The model had collapsed and was replaced by the state of an earlier step.
    RolledBack {
        /// The step that found the collapse.
        step: usize,
        /// The last step of the restored state; 0 for the beginning.
        to: usize,
        /// The collapse; a second one ends the run.
        error: &'a Error,
    },
    /// A part of an evaluation was done.
    Evaluating {
        /// Number of texts measured so far: documents, and options of questions.
        done: usize,
        /// Number of all texts.
        total: usize,
    },
    /// The model has generated some of the replay documents.
    Generating {
        /// Number of documents accepted so far.
        done: usize,
        /// Number of documents wanted.
        total: usize,
    },
    /// A mid-run evaluation was done.
    Evaluated {
        /// The last step before it.
        step: usize,
        /// Its results.
        evaluation: &'a Evaluation,
    },
}

/// Receives events, and may interrupt the work.
pub trait Observer {
    /// Called for each event.
    fn observe(&mut self, event: Event);

    /// Whether to stop. Asked between steps, between batches of an evaluation, and between generated tokens.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Ends work outside of steps, such as an evaluation, if `observer` asks for it.
pub(crate) fn stop_if_interrupted(observer: &dyn Observer) -> Result<()> {
    match observer.interrupted() {
        true => Err(Error::Interrupted { step: 0, remedy: String::new() }),
        false => Ok(()),
    }
}

/// Ignores every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn observe(&mut self, _event: Event) {}
}
