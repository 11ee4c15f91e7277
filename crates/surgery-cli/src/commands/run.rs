//! `surgery run`: evaluate, operate, evaluate, report.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use surgery_core::bounds::Bounds;
use surgery_core::burn::module::AutodiffModule;
use surgery_core::checkpoint::Checkpoint;
use surgery_core::data::Set;
use surgery_core::data::lint::{Finding, documents_split};
use surgery_core::evaluate::{Against, context};
use surgery_core::files::{Folder, remove_folder, write_text};
use surgery_core::model::Llama;
use surgery_core::parameters::Parameters;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::{Recipe, ReferenceForm};
use surgery_core::reference::{Cached, Live, Reference, Store, bytes_of_states};
use surgery_core::replay::{Likelihood, ReplayFilter, write_texts};
use surgery_core::resume::{Checkpoints, Saved};
use surgery_core::surgery::{TrainingDocuments, beginning, operate, retain_to_be_drawn};
use surgery_core::training::Cost;
use surgery_core::{Error, Result};

use crate::args::{Common, Run};
use crate::exit::Outcome;
use crate::inputs::{DataFiles, ModelFiles, recipe};
use crate::inspect::{Inspection, Prompt, fluency, inspect, prompts};
use crate::output::{MODEL, Output};
use crate::plan;
use crate::prepare::{Prepared, Way};
use crate::progress::{EVALUATIONS, METRICS, Metrics, OPERATING, Progress, read_lines};
use crate::report::{Curves, Fluency, Hashed, Page, Report, table_of_change};
use crate::resume::{self, CHECKPOINTS, RECORDS, STATES, keep_recipe, recipe_of};
use crate::terminal::{Log, print, print_json};

/// The states of all documents that should stay may take this much of the disk, or as much as the model.
const MOST_STATES: u64 = 1 << 30;

/// The copy of what the model wrote to be kept, in an output folder: as a file of documents.
const WRITTEN: &str = "written.jsonl";

/// Resolves the recipe and runs the command.
pub fn run(run: Run, common: Common) -> Outcome {
    let asks = run.recipe.is_some() || run.model.is_some() || run.data.is_some() || !run.overrides.is_empty();
    let of_run = run.resume.then(|| recipe_of(run.output.as_deref(), asks)).flatten();
    let name = of_run.or(run.recipe);
    let mut recipe: Recipe = recipe(name.as_deref().unwrap_or("default"), &run.overrides)?;
    if let Some(model) = run.model {
        recipe.model.source = model;
    }
    if let Some(data) = run.data {
        recipe.data.path = data;
    }
    let job = Job { recipe, output: run.output, resume: run.resume, dry_run: run.dry_run, common };
    crate::backend::run(job.common.backend, job)
}

struct Job {
    recipe: Recipe,
    output: Option<PathBuf>,
    resume: bool,
    dry_run: bool,
    common: Common,
}

impl crate::backend::Job for Job {
    type Output = ();

    fn run<P: Platform>(self) -> Outcome {
        let Self { recipe, output, resume, dry_run, common } = self;
        let log = Log::new(&common);
        let way = if dry_run { Way::DryRun } else { Way::Run { resume } };
        let prepared = Prepared::<P>::new(recipe, output.as_deref(), way, &common, log)?;
        if dry_run {
            return plan::show(&prepared, common.json, log);
        }
        prepared.check_memory()?;
        let Prepared { recipe, files, bounding, parameters, checkpoint, data, device, output: taken_over } =
            prepared;
        let model: Llama<P::Infer> =
            Llama::load(&files.config, &checkpoint, recipe.model.precision, &device)?;
        let claimed = taken_over.map_or_else(|| Output::claim(output.as_deref()), Ok)?;
        let output = claimed.path();
        let operation = Operation {
            recipe: &recipe,
            files: &files,
            bounding: bounding.as_ref(),
            parameters: &parameters,
            data: &data,
            output,
            resume,
        };
        let report = operation.run::<P>(model, &checkpoint, &device, log)?;
        if common.json {
            return print_json(&report);
        }
        print(&table_of_change(&report.before, &report.after))?;
        print(&format!(
            "\n{} steps in {:.1} s, evaluated in {:.1} s\nmodel:  {}\nreport: {}",
            report.steps,
            report.train_seconds,
            report.evaluate_seconds,
            output.join(MODEL).display(),
            output.join("report.html").display()
        ))
    }
}

/// What an operation is made of.
pub struct Operation<'a> {
    /// How it is done.
    pub recipe: &'a Recipe,
    /// On what.
    pub files: &'a ModelFiles,
    /// The model that bounds the ascent.
    pub bounding: Option<&'a ModelFiles>,
    /// The model's parameters, and which of them are trained.
    pub parameters: &'a Parameters,
    /// With what.
    pub data: &'a DataFiles,
    /// Where everything goes that it leaves.
    pub output: &'a Path,
    /// Whether it goes on with what is there.
    pub resume: bool,
}

/// What an operation came to.
struct Done {
    prompts: Vec<Prompt>,
    before: Inspection,
    after: Inspection,
    fluency: Option<Fluency>,
    cost: Cost,
    evaluate_seconds: f64,
}

impl Operation<'_> {
    /// Performs it on `model`, which is what `checkpoint` holds, and writes all that a run leaves.
    pub fn run<P: Platform>(
        &self,
        model: Llama<P::Infer>,
        checkpoint: &Checkpoint,
        device: &DeviceOf<P>,
        log: Log,
    ) -> Result<Report> {
        let Self { recipe, files, data, output, resume, .. } = *self;
        let resolved = toml::to_string(recipe).expect("a recipe is TOML");
        keep_recipe(output, &resolved)?;
        let findings = data.lint(files, Some(recipe));
        log.findings(&findings);
        if self.is_cached() && !self.keeps_all_states(checkpoint) {
            log.info(
                "the reference's states of all documents that should stay would take more of the disk than the \
                 model: only those that a step draws are kept, and the evaluation after loads the model again",
            );
        }
        let inputs = self.hashed_inputs()?;
        let mut checkpoints = self.checkpoints::<P>(checkpoint, &inputs, device);
        let saved = if resume { resume::find(&checkpoints, output, log)? } else { None };
        let mut progress = Progress::recording(log, output, Metrics::Surgery)?.resumable("run", output);
        let done = self
            .perform::<P>(model, checkpoint, (&mut checkpoints, saved), device, &mut progress)
            .map_err(|error| resume::explain(error, output, &mut progress, log))?;
        let report = self.report::<P>(&done, findings, inputs, device)?;
        let curves = Curves {
            recipe: &resolved,
            metrics: read_lines(&output.join(METRICS))?,
            evaluations: read_lines(&output.join(EVALUATIONS))?,
        };
        let page = Page {
            run: Some(curves),
            data,
            files,
            before: &done.before,
            after: &done.after,
            prompts: &done.prompts,
        };
        report.write(&page, output)?;
        resume::finish(output, log);
        Ok(report)
    }

    fn checkpoints<'a, P: Platform>(
        &'a self,
        checkpoint: &'a Checkpoint,
        inputs: &[Hashed],
        device: &DeviceOf<P>,
    ) -> Checkpoints<'a, P::Train> {
        let Self { recipe, files, parameters, output, .. } = *self;
        let at = device.clone();
        Checkpoints {
            folder: output.join(CHECKPOINTS),
            every: recipe.train.checkpoint_every,
            input: (&files.folder, Some(checkpoint)),
            config: &files.config,
            parameters: parameters.clone(),
            precision: recipe.model.precision,
            optimizer: &recipe.optimizer,
            beginning: Box::new(move || {
                let precision = recipe.model.precision;
                let model = Llama::load(&files.config, checkpoint, precision, &at)?;
                Ok(Llama::<P::Train>::trainable_in(model, parameters.clone()))
            }),
            run: Folder::Disk(output.to_path_buf()),
            records: &RECORDS,
            inputs: resume::inputs(inputs),
            device: device.clone(),
        }
    }

    fn perform<P: Platform>(
        &self,
        model: Llama<P::Infer>,
        checkpoint: &Checkpoint,
        (checkpoints, saved): (&mut Checkpoints<P::Train>, Option<Saved>),
        device: &DeviceOf<P>,
        progress: &mut Progress,
    ) -> Result<Done> {
        let benchmark = &self.data.benchmark;
        let prompts = prompts(benchmark, context(&self.files.config));
        let started = Instant::now();
        let precision = self.recipe.model.precision;
        let bounding = self.bounding.map(|files| files.load::<P>(precision, device)).transpose()?;
        let written = self.written::<P>(&model, bounding.as_ref(), progress)?;
        let drawable = TrainingDocuments { benchmark, written };
        let bounds = bounding.map(|bounding| self.bounds::<P>(&bounding)).transpose()?;
        let wrote = started.elapsed().as_secs_f64();
        progress.stage("evaluating before");
        let started = Instant::now();
        let mut reference = self.reference::<P>(&model, checkpoint, &drawable)?;
        let before = inspect::<P>(&model, benchmark, &prompts, Against::Itself(&mut *reference), progress)?;
        let own = fluency::<P>(&model, &prompts, &before.continuations)?;
        let mut evaluate_seconds = started.elapsed().as_secs_f64();

        progress.stage(OPERATING);
        let started = Instant::now();
        reference.complete(&model)?;
        let prepared = started.elapsed().as_secs_f64();
        let model = Llama::<P::Train>::trainable_in(model, self.parameters.clone());
        let mut state = beginning(model, &self.data.corpus, self.recipe);
        if let Some(saved) = saved {
            checkpoints.restore(&saved, &mut state)?;
        }
        let before_this = state.cost.seconds;
        let started = Instant::now();
        let (operated, mut cost) = operate::<P::Train, P::Kernels>(
            state,
            &drawable,
            self.recipe,
            &mut *reference,
            bounds.as_ref(),
            checkpoints,
            progress,
        )?;
        // What was not spent in steps went into evaluations on the way, and a little into checkpoints.
        evaluate_seconds += started.elapsed().as_secs_f64() - (cost.seconds - before_this);
        cost.seconds += wrote + prepared;
        let folder = self.output.join(MODEL);
        let dtype = self.recipe.model.save_dtype;
        operated.valid().save(&folder, &self.files.folder, Some(checkpoint), dtype)?;
        drop(operated);

        // What counts is what was written.
        progress.stage("evaluating after");
        let started = Instant::now();
        let written = ModelFiles::open_folder(Folder::Disk(folder.clone()))?
            .load::<P>(self.recipe.model.precision, device)?;
        if self.is_cached() && !self.keeps_all_states(checkpoint) {
            let again = Llama::load(&self.files.config, checkpoint, self.recipe.model.precision, device)?;
            reference = Box::new(Live::<P::Infer, P::Kernels>::new(again));
        }
        let after =
            inspect::<P>(&written, benchmark, &prompts, Against::Reference(&mut *reference), progress)?;
        if let Some((what, value)) = after.evaluation.not_finite() {
            // What cannot be used must not be found where a result is looked for.
            remove_folder(&folder)?;
            return Err(Error::NotFinite { step: cost.steps, what, value });
        }
        drop((written, reference));
        let judge: Llama<P::Infer> =
            Llama::load(&self.files.config, checkpoint, self.recipe.model.precision, device)?;
        let fluency = Fluency::of(own, fluency::<P>(&judge, &prompts, &after.continuations)?);
        evaluate_seconds += started.elapsed().as_secs_f64();
        progress.finish();
        Ok(Done { prompts, before, after, fluency, cost, evaluate_seconds })
    }

    /// The texts that the model writes to be kept, of which the output folder gets a copy.
    fn written<P: Platform>(
        &self,
        model: &Llama<P::Infer>,
        bounding: Option<&Llama<P::Infer>>,
        progress: &mut Progress,
    ) -> Result<Vec<Arc<[u32]>>> {
        let Recipe { replay, train, .. } = self.recipe;
        if replay.documents == 0 {
            return Ok(Vec::new());
        }
        progress.stage("writing texts to keep");
        let Self { data, files, .. } = self;
        let filter = ReplayFilter::new(&data.corpus, &data.questions);
        let likelihood = match bounding {
            Some(other) => Likelihood::new::<P::Kernels>(model, other.clone(), &data.benchmark)?,
            None => None,
        };
        let written = write_texts::<P::Infer, P::Kernels>(
            model,
            &files.encoder,
            &filter,
            likelihood.as_ref(),
            replay,
            train.seed,
            progress,
        )?;
        let line = |(index, tokens): (usize, &Arc<[u32]>)| {
            let text = files.encoder.decode(tokens)?;
            Ok(format!("{}\n", json!({ "id": format!("written-{index:04}"), "text": text })))
        };
        let lines = written.iter().enumerate().map(line).collect::<Result<String>>()?;
        write_text(&self.output.join(WRITTEN), &lines)?;
        Ok(written)
    }

    /// How far the ascent may go on each document, by the model that bounds it.
    fn bounds<P: Platform>(&self, bounding: &Llama<P::Infer>) -> Result<Bounds> {
        let forgotten =
            [Set::Unlearn, Set::EditUnlearn].into_iter().flat_map(|set| self.data.benchmark.documents(set));
        let context = self.files.config.context(self.recipe.train.max_tokens);
        let documents = forgotten.map(Vec::as_slice);
        Bounds::of::<P::Infer, P::Kernels>(bounding, documents, context)
    }

    /// The reference, which is `model` as it is now, in the form that the recipe asks for.
    fn reference<P: Platform>(
        &self,
        model: &Llama<P::Infer>,
        checkpoint: &Checkpoint,
        drawable: &TrainingDocuments,
    ) -> Result<Box<dyn Reference<P::Infer>>> {
        if !self.is_cached() {
            return Ok(Box::new(Live::<P::Infer, P::Kernels>::new(model.clone())));
        }
        let benchmark = &self.data.benchmark;
        let mut cached =
            Cached::<P::Infer, P::Kernels>::new(model, Store::in_folder(&self.output.join(STATES))?);
        let drawn = retain_to_be_drawn(&self.data.corpus, self.recipe);
        let config = &self.files.config;
        cached.want(
            drawn.into_iter().map(|index| drawable.document(Set::Retain, index)),
            config.context(self.recipe.train.max_tokens),
        );
        if self.keeps_all_states(checkpoint) {
            cached.want(benchmark.kept(), context(config));
        }
        Ok(Box::new(cached))
    }

    fn is_cached(&self) -> bool {
        self.recipe.train.reference == ReferenceForm::Cached
    }

    /// Whether the reference's states of all documents that should stay are kept, for the evaluation after.
    fn keeps_all_states(&self, checkpoint: &Checkpoint) -> bool {
        let bytes = bytes_of_states(self.data.benchmark.kept(), &self.files.config);
        bytes <= checkpoint.bytes().max(MOST_STATES)
    }

    /// The files that the run is made of.
    fn hashed_inputs(&self) -> Result<Vec<Hashed>> {
        let mut hashed = Hashed::of_model(&self.files.folder)?;
        if let Some(bounding) = self.bounding {
            hashed.extend(Hashed::of_model(&bounding.folder)?);
        }
        hashed.extend(Hashed::of_data(&self.data.folder)?);
        Ok(hashed)
    }

    fn report<P: Platform>(
        &self,
        done: &Done,
        findings: Vec<Finding>,
        mut files: Vec<Hashed>,
        device: &DeviceOf<P>,
    ) -> Result<Report> {
        let Done { before, after, cost, .. } = done;
        let written = Folder::Disk(self.output.join(MODEL));
        files.extend(Hashed::of_model(&written)?);
        Ok(Report {
            difference: after.evaluation.minus(&before.evaluation),
            before: before.evaluation.clone(),
            after: after.evaluation.clone(),
            steps: cost.steps,
            steps_skipped: cost.skipped,
            rolled_back: cost.rolled_back,
            tokens: cost.tokens,
            train_seconds: cost.seconds,
            evaluate_seconds: done.evaluate_seconds,
            tokens_per_second: cost.tokens_per_second(),
            peak_memory_bytes: P::peak(device),
            texts_written: self.recipe.replay.documents,
            documents_split: documents_split(&findings),
            findings,
            fluency: done.fluency,
            model: self.files.folder.label(""),
            data: self.data.folder.label(""),
            output: self.output.display().to_string(),
            files,
        })
    }
}
