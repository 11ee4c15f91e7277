//! Checkpoints of a training. A training that resumes from one gives the same results as one without interruption.
//!
//! `checkpoints/step-000120` contains, in this order of writing: the model as a Hugging Face folder in f32, the optimizer's
//! moments, copies of the run's records (recipe and metrics so far), and `state.json` with the cost, the sampler's position,
//! and the checksums of the run's inputs and of every other file. The folder is written under another name, each file is
//! synced, and the folder is renamed when it is complete. So a folder with that name is complete unless the disk damaged
//! it, which the checksums detect.
//!
//! The alternative is a single file, with one rename and no folder. But transformers and `eval` could not load it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::AutodiffModule;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, SaveDtype, templates, write_vectors};
use crate::config::LlamaConfig;
use crate::data::Position;
use crate::error::{Error, Result};
use crate::files::{Folder, mend, remove_folder, replace_folder, write_text};
use crate::model::Llama;
use crate::optimizer::{AdamW, OptimizerConfig};
use crate::parameters::{ParameterSpec, Parameters};
use crate::recipe::Precision;
use crate::training::{Checkpointer, Cost, Earlier, Snapshot, State};

/// The file that completes a checkpoint.
const STATE: &str = "state.json";
/// The optimizer's moments, `first.NAME` and `second.NAME` for each parameter.
const MOMENTS: &str = "optimizer.safetensors";
/// Number of due checkpoints that are kept.
const KEPT: usize = 2;
/// The version of the checkpoint format. This program reads no other one.
const FORMAT: u32 = 1;

/// The content of `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    cost: Cost,
    optimizer_steps: i32,
    position: Position,
    /// The dual variable of the next step, for an objective that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lambda: Option<f64>,
    /// The SHA-256 of each input file of the run.
    inputs: BTreeMap<String, String>,
    /// The SHA-256 of each file of the checkpoint except `state.json`.
    files: BTreeMap<String, String>,
}

/// A complete checkpoint.
#[derive(Debug, Clone)]
pub struct Saved {
    /// Its folder.
    pub path: PathBuf,
    manifest: Manifest,
}

impl Saved {
    /// Number of steps done.
    pub fn step(&self) -> usize {
        self.manifest.cost.steps
    }

    /// Opens the checkpoint in `path`, and verifies the checksums of all its files.
    fn open(path: &Path) -> Result<Self> {
        let folder = Folder::Disk(path.to_path_buf());
        let damaged = |file: &str, problem: String| Error::Data {
            path: folder.label(file),
            problem,
            remedy: "the checkpoint is damaged: resume from an earlier one, or from the beginning".into(),
        };
        let manifest: Manifest = serde_json::from_value(folder.json(STATE)?)
            .map_err(|error| damaged(STATE, format!("is not the state of a run ({error})")))?;
        if manifest.format != FORMAT {
            return Err(damaged(STATE, format!("has format {}, not {FORMAT}", manifest.format)));
        }
        for (file, expected) in &manifest.files {
            if !is_inside(file) || folder.sha256(file)? != *expected {
                return Err(damaged(file, "does not have its recorded checksum".into()));
            }
        }
        Ok(Self { path: path.to_path_buf(), manifest })
    }

    /// Refuses a checkpoint of a run with other input files.
    fn refuse_other_inputs(&self, inputs: &BTreeMap<String, String>) -> Result<()> {
        let theirs = &self.manifest.inputs;
        if theirs == inputs {
            return Ok(());
        }
        let changed = |file: &&String| theirs.get(*file) != inputs.get(*file);
        let file = inputs.keys().chain(theirs.keys()).find(changed).map_or("a file", String::as_str);
        Err(Error::Data {
            path: self.path.display().to_string(),
            problem: format!("belongs to a run with other input files: {file} has changed since"),
            remedy: "restore it, or start a new run in another folder".into(),
        })
    }

    fn optimizer<B: AutodiffBackend>(
        &self,
        config: &OptimizerConfig,
        device: &B::Device,
    ) -> Result<AdamW<B::InnerBackend>> {
        let file = Checkpoint::of_files(&Folder::Disk(self.path.clone()), vec![MOMENTS.into()])?;
        let mut moments: BTreeMap<String, [Vec<f32>; 2]> = BTreeMap::new();
        for (name, shape) in file.shapes() {
            let (which, parameter) = name.split_once('.').unwrap_or(("", name));
            let which = usize::from(which == "second");
            moments.entry(parameter.to_owned()).or_default()[which] = file.read(name, shape)?;
        }
        Ok(AdamW::resumed(config.clone(), self.manifest.optimizer_steps, moments, device))
    }
}

/// Whether the name of a file, with `/`, stays in its own folder.
fn is_inside(file: &str) -> bool {
    !file.contains(['\\', ':']) && file.split('/').all(|part| !["", ".", ".."].contains(&part))
}

/// The checkpoints of a run, in its output folder.
pub struct Checkpoints<'a, B: AutodiffBackend> {
    /// `checkpoints` in the output folder.
    pub folder: PathBuf,
    /// Steps between due checkpoints; 0 for none.
    pub every: usize,
    /// The input model: its files, and its checkpoint if it has weights.
    pub input: (&'a Folder, Option<&'a Checkpoint>),
    /// Its shape.
    pub config: &'a LlamaConfig,
    /// Its parameters, and which of them are trained.
    pub parameters: Parameters,
    /// The precision that it is stored and computed in.
    pub precision: Precision,
    /// The settings of the optimizer.
    pub optimizer: &'a OptimizerConfig,
    /// Loads the input model again.
    pub beginning: Box<dyn Fn() -> Result<Llama<B>> + 'a>,
    /// The run's output folder.
    pub run: Folder,
    /// Files in it that are copied into each checkpoint if they exist.
    pub records: &'a [&'a str],
    /// Files in it that grow with the steps. They are copied into each checkpoint, and a resumed run copies them back.
    pub logs: &'a [&'a str],
    /// The SHA-256 of each input file of the run.
    pub inputs: BTreeMap<String, String>,
    /// The device to load models to.
    pub device: B::Device,
}

impl<B: AutodiffBackend> Checkpoints<'_, B> {
    /// The newest complete checkpoint, and the errors of newer ones. Refuses a checkpoint of a run with other input files.
    /// First cleans up after a process that was killed while it wrote or removed a checkpoint.
    pub fn newest(&self) -> Result<(Option<Saved>, Vec<Error>)> {
        mend(&self.folder)?;
        let mut damaged = Vec::new();
        for (_, path) in self.list()?.into_iter().rev() {
            match Saved::open(&path) {
                Ok(saved) => {
                    saved.refuse_other_inputs(&self.inputs)?;
                    return Ok((Some(saved), damaged));
                }
                Err(error) => damaged.push(error),
            }
        }
        Ok((None, damaged))
    }

    /// Restores the logs in `output` from `saved`; without it, removes them.
    pub fn restore_logs(&self, saved: Option<&Saved>, output: &Path) -> Result<()> {
        for name in self.logs {
            let path = output.join(name);
            let kept = saved.map(|saved| Folder::Disk(saved.path.clone())).filter(|at| at.has(name));
            match kept {
                Some(folder) => folder.copy(name, output)?,
                None if path.exists() => fs::remove_file(&path).map_err(Error::write(&path))?,
                None => {}
            }
        }
        Ok(())
    }

    /// Restores `saved` into `state`, the state before the first step of the same run.
    pub fn restore(&self, saved: &Saved, state: &mut State<B>) -> Result<()> {
        let position = saved.manifest.position.clone();
        state.sampler.go_to(position).map_err(|problem| Error::Data {
            path: saved.path.join(STATE).display().to_string(),
            problem: format!("has a position that {problem}"),
            remedy: "start a new run in another folder".into(),
        })?;
        let Earlier { model, optimizer, lambda, .. } = self.load(saved)?;
        (state.model, state.optimizer, state.cost) = (model, optimizer, saved.manifest.cost);
        state.lambda = lambda;
        Ok(())
    }

    fn load(&self, saved: &Saved) -> Result<Earlier<B>> {
        let weights = Checkpoint::open(&Folder::Disk(saved.path.clone()))?;
        let model = Llama::load(self.config, &weights, self.precision, &self.device)?;
        Ok(Earlier {
            steps: saved.step(),
            model: Llama::trainable_in(model, self.parameters.clone()),
            optimizer: saved.optimizer::<B>(self.optimizer, &self.device)?,
            lambda: saved.manifest.lambda,
        })
    }

    /// The folders with the name of a checkpoint, ordered by the steps done.
    fn list(&self) -> Result<Vec<(usize, PathBuf)>> {
        if !self.folder.exists() {
            return Ok(Vec::new());
        }
        let shown = || self.folder.display().to_string();
        let failed = |source| Error::Read { path: shown(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(step) = name.strip_prefix("step-").and_then(|step| step.parse().ok()) {
                found.push((step, path));
            }
        }
        found.sort();
        Ok(found)
    }

    fn path(&self, step: usize) -> PathBuf {
        self.folder.join(format!("step-{step:06}"))
    }

    fn write(&self, folder: &Path, state: &Snapshot<B>) -> Result<()> {
        let (input, like) = self.input;
        state.model.valid().save(folder, input, like, SaveDtype::F32)?;
        let moments: BTreeMap<String, &Tensor<B::InnerBackend, 1>> = self
            .parameters
            .iter()
            .filter_map(|ParameterSpec { name, .. }| {
                let [first, second] = state.optimizer.moments(name)?;
                Some([(format!("first.{name}"), first), (format!("second.{name}"), second)])
            })
            .flatten()
            .collect();
        let lengths: Vec<_> = moments.iter().map(|(name, tensor)| (name.clone(), tensor.dims()[0])).collect();
        write_vectors(&folder.join(MOMENTS), &lengths, |name| {
            moments[name].to_data().to_vec().expect("moments are f32")
        })?;
        for record in self.records.iter().chain(self.logs).filter(|record| self.run.has(record)) {
            self.run.copy(record, folder)?;
        }
        let written = Folder::Disk(folder.to_path_buf());
        let mut names = written.list("")?;
        names.extend(templates(&written)?);
        let files = names.into_iter().map(|file| Ok((file.clone(), written.sha256(&file)?)));
        let manifest = Manifest {
            format: FORMAT,
            cost: state.cost,
            optimizer_steps: state.optimizer.steps(),
            position: state.position.clone(),
            lambda: state.lambda,
            inputs: self.inputs.clone(),
            files: files.collect::<Result<_>>()?,
        };
        let text = serde_json::to_string_pretty(&manifest).expect("strings and numbers");
        write_text(&folder.join(STATE), &text)
    }

    /// Bytes of a checkpoint, small files excluded.
    fn bytes(&self) -> u64 {
        3 * 4 * self.config.num_parameters()
    }
}

impl<B: AutodiffBackend> Checkpointer<B> for Checkpoints<'_, B> {
    fn is_due(&self, step: usize) -> bool {
        self.every > 0 && step.is_multiple_of(self.every)
    }

    fn keep(&mut self, state: Snapshot<B>) -> Result<()> {
        let path = self.path(state.cost.steps);
        let due = self.is_due(state.cost.steps);
        replace_folder(&path, |folder| self.write(folder, &state))
            .map_err(|error| error.wanting(self.bytes()))?;
        let older = self.list()?.into_iter().rev().filter(|(step, _)| *step < state.cost.steps);
        // Once the next due checkpoint is complete, checkpoints of interruptions are removed.
        let (due_ones, others): (Vec<_>, Vec<_>) = older.partition(|(step, _)| self.is_due(*step));
        let (due_left, others_left) = if due { (KEPT - 1, 0) } else { (KEPT, KEPT - 1) };
        for (_, path) in due_ones.into_iter().skip(due_left).chain(others.into_iter().skip(others_left)) {
            remove_folder(&path)?;
        }
        Ok(())
    }

    fn back_before(&mut self, step: usize) -> Result<Option<Earlier<B>>> {
        let (later, earlier): (Vec<_>, Vec<_>) = self.list()?.into_iter().partition(|(at, _)| *at >= step);
        for (_, path) in later {
            remove_folder(&path)?;
        }
        // Use due checkpoints only: a run without interruptions has no others, and both runs must give the same results.
        for (_, path) in earlier.into_iter().rev().filter(|(at, _)| self.is_due(*at)) {
            if let Ok(saved) = Saved::open(&path) {
                return self.load(&saved).map(Some);
            }
        }
        let optimizer = AdamW::new(self.optimizer.clone());
        Ok(Some(Earlier { steps: 0, model: (self.beginning)()?, optimizer, lambda: None }))
    }
}
