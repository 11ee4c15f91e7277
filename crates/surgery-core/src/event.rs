//! What happens during an operation, told as it happens. Whoever calls decides how it looks.

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
    /// A run goes on from a checkpoint, or from the beginning where there is no whole one.
    Resuming {
        /// The steps done, and the folder of the checkpoint.
        from: Option<(usize, &'a Path)>,
        /// Newer ones that are damaged, and how.
        damaged: &'a [Error],
    },
    /// A step was done.
    Step {
        /// Its number, counted from 1.
        step: usize,
        /// How many there will be.
        steps: usize,
        /// What it measured.
        record: &'a StepRecord,
        /// How long it took.
        seconds: f64,
    },
    /// A step made no update: its loss or gradient was not a finite number.
    Skipped {
        /// Its number, counted from 1.
        step: usize,
        /// What would have ended the run, had the recipe not asked for the step to be skipped.
        error: &'a Error,
    },
    /// The model had collapsed, and the state of an earlier step took its place.
    RolledBack {
        /// The step that found it.
        step: usize,
        /// The last step of the state that took its place; 0 for the beginning.
        to: usize,
        /// What was found; it ends the run if it is found again.
        error: &'a Error,
    },
    /// A part of an evaluation was done.
    Evaluating {
        /// Texts measured so far: documents, and options of questions.
        done: usize,
        /// How many there are.
        total: usize,
    },
    /// The model has generated some of the replay documents.
    Generating {
        /// Texts taken so far.
        done: usize,
        /// How many are wanted.
        total: usize,
    },
    /// An evaluation on the way was done.
    Evaluated {
        /// After which step.
        step: usize,
        /// What came out.
        evaluation: &'a Evaluation,
    },
}

/// Is told of events, and may ask for the work to stop.
pub trait Observer {
    /// Called for each event.
    fn observe(&mut self, event: Event);

    /// Asked between steps, between batches of an evaluation, and between tokens of texts that a model writes.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Ends work outside of steps, such as an evaluation, where `observer` asks for it.
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
