//! PyTorch's part: `peer.py` in its own process, with requests and answers as lines of JSON.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use surgery_core::data::EncodedQuestion;
use surgery_core::platform::Platform;
use surgery_core::recipe::Precision;

use crate::Result;
use crate::work::{Job, Shape, StepSample, questions_json};

/// `peer.py` in the source folder.
pub(crate) const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peer.py");
/// Tokens of a batch in its evaluation, padding included; the same as here.
const BATCH_TOKENS: usize = 2048;

/// Library versions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Versions {
    pub(crate) torch: String,
    pub(crate) transformers: String,
}

/// Arrangement of texts in its evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arrangement {
    /// Batches of texts and options of similar length.
    Batched,
    /// One forward pass for each text and option, as in the authors' code.
    Single,
}

/// Seconds of a step and of its parts.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct PeerStep {
    pub(crate) seconds: f64,
    pub(crate) parts: PeerParts,
}

/// Seconds of the parts in PyTorch: `forward` includes the logits, `backward` all gradients.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct PeerParts {
    pub(crate) forward: f64,
    pub(crate) reference: f64,
    pub(crate) loss: f64,
    pub(crate) backward: f64,
    pub(crate) clip: f64,
    pub(crate) adamw: f64,
}

#[derive(Deserialize)]
struct Seconds {
    seconds: f64,
}

/// The process.
pub(crate) struct Peer {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// The script's path for messages.
    script: String,
    versions: Versions,
}

impl Peer {
    /// Starts `script` with a model of this shape, on an NVIDIA GPU if that is the platform. `python` must have
    /// PyTorch and transformers.
    pub(crate) fn start<P: Platform>(
        python: &Path,
        script: &Path,
        shape: &Shape,
        precision: Precision,
        threads: usize,
    ) -> Result<Self> {
        let mut process = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run {}: {error}", python.display()))?;
        let requests = process.stdin.take().expect("piped");
        let answers = BufReader::new(process.stdout.take().expect("piped"));
        let device = if P::NAME == "cuda" { "cuda" } else { "cpu" };
        let versions = Versions { torch: String::new(), transformers: String::new() };
        let script = script.display().to_string();
        let mut peer = Self { process, requests, answers, script, versions };
        peer.versions = peer.ask(&json!({
            "config": shape.json(),
            "threads": threads,
            "seed": 0,
            "device": device,
            "precision": precision.name(),
        }))?;
        Ok(peer)
    }

    pub(crate) fn versions(&self) -> &Versions {
        &self.versions
    }

    pub(crate) fn step(&mut self, draw: &StepSample) -> Result<PeerStep> {
        self.ask(&json!({"do": "step", "documents": draw.json()}))
    }

    /// Peak memory during a step, minus that of the idle process before it had a model.
    pub(crate) fn step_memory(&mut self, draw: &StepSample) -> Result<Option<u64>> {
        #[derive(Deserialize)]
        struct Forgotten {
            forgotten: bool,
        }
        #[derive(Deserialize)]
        struct Memory {
            peak_bytes: u64,
            idle_bytes: u64,
        }
        let Forgotten { forgotten } = self.ask(&json!({"do": "forget_peak"}))?;
        self.step(draw)?;
        let memory: Memory = self.ask(&json!({"do": "memory"}))?;
        Ok(forgotten.then(|| memory.peak_bytes.saturating_sub(memory.idle_bytes)))
    }

    /// Seconds until all questions are answered.
    pub(crate) fn answer(&mut self, questions: &[EncodedQuestion], arrangement: Arrangement) -> Result<f64> {
        let answered: Seconds = self.ask(&json!({
            "do": "evaluate",
            "texts": [],
            "questions": questions_json(questions),
            "arrangement": arrangement,
            "batch_tokens": BATCH_TOKENS,
        }))?;
        Ok(answered.seconds)
    }

    /// Seconds of the whole job.
    pub(crate) fn job(&mut self, job: &Job, arrangement: Arrangement) -> Result<f64> {
        let done: Seconds = self.ask(&json!({
            "do": "job",
            "steps": job.draws.len(),
            "draws": job.draws.iter().map(StepSample::json).collect::<Vec<_>>(),
            "texts": job.texts.iter().map(|example| &example.tokens).collect::<Vec<_>>(),
            "questions": questions_json(&job.questions),
            "arrangement": arrangement,
            "batch_tokens": BATCH_TOKENS,
        }))?;
        Ok(done.seconds)
    }

    /// The best rate of a large matrix product, in operations a second.
    pub(crate) fn product_rate(&mut self, [m, k, n]: [usize; 3]) -> Result<f64> {
        #[derive(Deserialize)]
        struct Rate {
            gflops: f64,
        }
        let rate: Rate = self.ask(&json!({"do": "gemm", "m": m, "k": k, "n": n}))?;
        Ok(rate.gflops * 1e9)
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &Value) -> Result<T> {
        let script = &self.script;
        let gone = |error: std::io::Error| format!("{script} has ended: {error}");
        writeln!(self.requests, "{request}").and_then(|()| self.requests.flush()).map_err(gone)?;
        let mut line = String::new();
        if self.answers.read_line(&mut line).map_err(gone)? == 0 {
            return Err(format!("{script} has ended; its output is above").into());
        }
        let answer: Value = serde_json::from_str(&line).map_err(|error| format!("{script}: {error}"))?;
        if let Some(problem) = answer["error"].as_str() {
            return Err(format!("{script}: {problem}").into());
        }
        Ok(serde_json::from_value(answer)?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may still be busy if another error ended the measurement.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
