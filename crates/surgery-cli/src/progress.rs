//! Progress: a bar on a terminal, lines elsewhere, and the files `metrics.jsonl` and `evaluations.jsonl`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use surgery_core::event::{Event, Observer, Stage};
use surgery_core::step::StepRecord;
use surgery_core::{Error, Result};

use crate::terminal::Log;

/// One line for each step.
pub const METRICS: &str = "metrics.jsonl";
/// One line for each evaluation during the run.
pub const EVALUATIONS: &str = "evaluations.jsonl";

/// The label of the training stage. Mid-run evaluations do not move its bar.
pub const OPERATING: &str = "operating";

/// Contents of a line of metrics.jsonl.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metrics {
    /// Every term of the objective.
    Surgery,
    /// Only the loss.
    Pretraining,
}

/// Observes a run.
pub struct Progress {
    log: Log,
    bar: ProgressBar,
    label: String,
    metrics: Option<(Metrics, PathBuf)>,
    evaluations: Option<PathBuf>,
    /// How to resume an interrupted run.
    remedy: String,
    /// The first failed write; it interrupts the run.
    failure: Option<Error>,
}

impl Progress {
    /// An observer that writes no file.
    pub fn new(log: Log) -> Self {
        let (label, remedy) = (String::new(), String::new());
        Self {
            log,
            bar: ProgressBar::hidden(),
            label,
            metrics: None,
            evaluations: None,
            remedy,
            failure: None,
        }
    }

    /// An observer that also appends to the [`METRICS`] and [`EVALUATIONS`] of `folder`. From now on, a signal
    /// interrupts the run at a point where it can be resumed.
    pub fn recording(log: Log, folder: &Path, metrics: Metrics) -> Result<Self> {
        crate::interrupt::watch();
        let path = folder.join(METRICS);
        append(&path, "")?;
        let evaluations = Some(folder.join(EVALUATIONS));
        Ok(Self { metrics: Some((metrics, path)), evaluations, ..Self::new(log) })
    }

    /// Sets the command that resumes the run after an interruption.
    pub fn resumable(self, command: &str, output: &Path) -> Self {
        let output = output.display();
        Self { remedy: format!("; resume with `surgery {command} --output {output} --resume`"), ..self }
    }

    /// Starts a stage with this label.
    pub fn stage(&mut self, label: &str) {
        self.bar.finish_and_clear();
        self.label = label.to_owned();
        if self.log.draws() {
            let style =
                ProgressStyle::with_template("{prefix:<22} {bar:28} {pos:>5}/{len:<5} {eta:>4} {wide_msg}")
                    .expect("the template is well-formed");
            self.bar = ProgressBar::new(0).with_style(style).with_prefix(self.label.clone());
        }
        if self.log.prints_lines() {
            self.log.info(label);
        }
    }

    /// Ends the current stage.
    pub fn finish(&mut self) {
        self.bar.finish_and_clear();
    }

    /// Replaces an interruption by the failed write that caused it; otherwise adds how to resume.
    pub fn explain(&mut self, error: Error) -> Error {
        self.finish();
        match (error, self.failure.take()) {
            (Error::Interrupted { .. }, Some(failure)) => failure,
            (Error::Interrupted { step, .. }, None) => {
                Error::Interrupted { step, remedy: self.remedy.clone() }
            }
            (error, _) => error,
        }
    }

    fn write_metrics(&self, step: usize, record: &StepRecord, seconds: f64) -> Result<()> {
        let Some((kind, path)) = &self.metrics else { return Ok(()) };
        let line = match kind {
            Metrics::Surgery => json!({
                "step": step,
                "loss": record.loss,
                "unlearn": record.terms.unlearn,
                "edit_unlearn": record.terms.edit_unlearn,
                "edit_update": record.terms.edit_update,
                "retain_kl": record.terms.retain_kl,
                "forget": record.terms.forget,
                "keep": record.terms.keep,
                "lambda": record.terms.lambda,
                "grad_norm": record.grad_norm,
                "learning_rate": record.learning_rate,
                "tokens": record.tokens,
                "seconds": seconds,
            }),
            Metrics::Pretraining => json!({
                "step": step,
                "loss": record.loss,
                "grad_norm": record.grad_norm,
                "learning_rate": record.learning_rate,
                "tokens": record.tokens,
                "seconds": seconds,
            }),
        };
        append(path, &format!("{line}\n"))
    }

    fn write_evaluation(&self, step: usize, evaluation: &impl serde::Serialize) -> Result<()> {
        let Some(path) = &self.evaluations else { return Ok(()) };
        let mut line = Map::from_iter([("step".to_owned(), Value::from(step))]);
        if let Value::Object(entries) = json!(evaluation) {
            line.extend(entries);
        }
        append(path, &format!("{}\n", Value::Object(line)))
    }
}

/// Reports where a run resumes.
pub fn tell_resumed(from: Option<(usize, &Path)>, damaged: &[Error], log: Log) {
    damaged.iter().for_each(|error| log.warn(&error.to_string()));
    match from {
        Some((step, path)) => log.info(&format!("resuming after step {step}, from {}", path.display())),
        None => log.info("there is no complete checkpoint: starting with the first step"),
    }
}

/// Appends to a file, which is opened at every line: before the first step, a resumed run replaces it with the one of its
/// checkpoint.
fn append(path: &Path, text: &str) -> Result<()> {
    let mut file = File::options().create(true).append(true).open(path).map_err(Error::write(path))?;
    file.write_all(text.as_bytes()).map_err(Error::write(path))
}

/// The lines of a file that [`Progress`] wrote; empty if the file does not exist.
pub fn read_lines(path: &Path) -> Result<Vec<Value>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let failed = |source| Error::Read { path: path.display().to_string(), source };
    let text = std::fs::read_to_string(path).map_err(failed)?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// The loss and its terms for one line.
fn brief(record: &StepRecord) -> String {
    let named = [
        ("unlearn", record.terms.unlearn),
        ("edit_unlearn", record.terms.edit_unlearn),
        ("edit_update", record.terms.edit_update),
        ("kl", record.terms.retain_kl),
        ("keep", record.terms.keep.filter(|_| record.terms.retain_kl.is_none())),
        ("lambda", record.terms.lambda),
    ];
    let terms = named.into_iter().filter_map(|(name, term)| Some(format!("{name} {:.2}", term?.max(0.0))));
    let mut parts = vec![format!("loss {:.3}", record.loss)];
    // With a single term, the loss is that term.
    if [record.terms.unlearn, record.terms.keep].iter().any(Option::is_some) {
        parts.extend(terms);
    }
    parts.join("  ")
}

impl Observer for Progress {
    fn observe(&mut self, event: Event) {
        let outcome = match event {
            Event::Step { step, steps, record, seconds } => {
                self.bar.set_length(steps as u64);
                self.bar.set_position(step as u64);
                self.bar.set_message(brief(record));
                if self.log.prints_lines() && (step == 1 || step == steps || step % steps.div_ceil(10) == 0) {
                    self.log.info(&format!("step {step}/{steps}  {}  ({seconds:.2} s)", brief(record)));
                }
                self.write_metrics(step, record, seconds)
            }
            Event::Stage(stage) => {
                self.stage(match stage {
                    Stage::Generating => "generating replay texts",
                    Stage::EvaluatingBefore => "evaluating before",
                    Stage::Training => OPERATING,
                    Stage::EvaluatingAfter => "evaluating after",
                });
                Ok(())
            }
            Event::Resuming { from, damaged } => {
                tell_resumed(from, damaged, self.log);
                Ok(())
            }
            Event::Generating { done, total } => {
                self.bar.set_length(total as u64);
                self.bar.set_position(done as u64);
                Ok(())
            }
            Event::Evaluating { done, total } => {
                // A mid-run evaluation does not move the bar of the steps.
                if self.label != OPERATING {
                    self.bar.set_length(total as u64);
                    self.bar.set_position(done as u64);
                }
                Ok(())
            }
            Event::Evaluated { step, evaluation } => self.write_evaluation(step, evaluation),
            Event::Skipped { step, error } => {
                self.log.warn(&format!("no update at step {step}: {error}"));
                Ok(())
            }
            Event::RolledBack { step, to, error } => {
                let place = match to {
                    0 => "the beginning".to_owned(),
                    to => format!("its state after step {to}"),
                };
                self.log.warn(&format!("at step {step}, the model was rolled back to {place}: {error}"));
                Ok(())
            }
        };
        if let Err(error) = outcome {
            self.failure.get_or_insert(error);
        }
    }

    fn interrupted(&self) -> bool {
        self.failure.is_some() || crate::interrupt::came()
    }
}
