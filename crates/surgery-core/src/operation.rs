//! The whole operation of `surgery run`: inspect the model, train it, write the checkpoint, read it back and inspect it.
//!
//! It prints nothing and reports its progress to an [`Observer`].

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::AutodiffModule;
use serde_json::json;

use crate::checkpoint::Checkpoint;
use crate::data::lint::documents_split;
use crate::data::{Example, Set};
use crate::error::{Error, Result};
use crate::evaluate::{Against, context};
use crate::event::{Event, Observer, Stage};
use crate::files::{Folder, remove_folder, write_text};
use crate::folders::{DataFolder, ModelFolder};
use crate::inspect::{Inspection, Prompt, fluency, inspect, prompts};
use crate::model::{At, Llama};
use crate::objective::Weighing;
use crate::parameters::Parameters;
use crate::platform::{DeviceOf, Platform};
use crate::recipe::{Check, Recipe, ReferenceForm};
use crate::reference::{Cached, Live, Reference, Store, bytes_of_states};
use crate::replay::{Likelihood, ReplayFilter, write_texts};
use crate::report::{Fluency, Hashed, Report};
use crate::resume::{Checkpoints, Saved};
use crate::surgery::{Comparison, TrainingDocuments, beginning, operate, to_be_drawn};
use crate::token_nll::NllTable;

/// Maximum bytes of the reference's states of all retain documents on disk, unless the model is larger.
const MOST_STATES: u64 = 1 << 30;

/// The replay documents, in an output folder: a file of documents.
const REPLAY: &str = "written.jsonl";
/// The model after the operation, in an output folder.
pub const MODEL: &str = "model";
/// The checkpoints of a run, in its output folder until it is finished.
pub const CHECKPOINTS: &str = "checkpoints";
/// The reference's states, in an output folder until the run is finished.
pub const STATES: &str = "reference";

/// The settings and inputs of an operation.
pub struct Operation<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// The input model.
    pub model: &'a ModelFolder,
    /// The model that bounds the ascent, if the recipe names one.
    pub bounding: Option<&'a ModelFolder>,
    /// The documents and questions.
    pub data: &'a DataFolder,
    /// The output folder.
    pub output: &'a Path,
    /// Whether to resume from the newest checkpoint in the output folder.
    pub resume: bool,
    /// Files in the output folder, such as the recipe, that are copied into each checkpoint.
    pub records: &'a [&'a str],
    /// Files in the output folder that grow with the steps. They are copied into each checkpoint, and a resumed run copies
    /// them back.
    pub logs: &'a [&'a str],
}

/// The results of an operation.
pub struct Performed {
    /// The numbers.
    pub report: Report,
    /// The prompts that both models continued.
    pub prompts: Vec<Prompt>,
    /// The inspection of the input model.
    pub before: Inspection,
    /// The inspection of the written checkpoint, read back.
    pub after: Inspection,
    /// The folder of the written checkpoint.
    pub folder: PathBuf,
}

/// The model and everything else that is ready before the first step.
struct Prepared<P: Platform> {
    model: Llama<P::Infer>,
    replay: Vec<Example>,
    reference: Box<dyn Reference<P::Infer>>,
    reference_nll: Option<NllTable>,
    bounds: Option<NllTable>,
    before: Inspection,
    /// The NLL of the model's own continuations.
    own_fluency: Option<f64>,
    /// Seconds of the preparations for the steps, and of the evaluation.
    seconds: [f64; 2],
}

impl<'a> Operation<'a> {
    /// An operation from the beginning, with no bounding model.
    pub fn new(recipe: &'a Recipe, model: &'a ModelFolder, data: &'a DataFolder, output: &'a Path) -> Self {
        let (records, logs): (&[&str], &[&str]) = (&[], &[]);
        Self { recipe, model, bounding: None, data, output, resume: false, records, logs }
    }
}

impl Operation<'_> {
    /// Performs the operation on `device`. Writes the model, and checkpoints if the recipe asks for them.
    pub fn perform<P: Platform>(
        &self,
        device: &DeviceOf<P>,
        observer: &mut dyn Observer,
    ) -> Result<Performed> {
        self.check()?;
        fs::create_dir_all(self.output).map_err(Error::write(self.output))?;
        let checkpoint = self.model.checkpoint()?;
        let mut files = self.hashed_inputs()?;
        let parameters = self.model.config.parameters().train_only(&self.recipe.train.trainable)?;
        let mut checkpoints = self.checkpoints::<P>(&checkpoint, &parameters, &files, device);
        let saved = if self.resume { self.newest::<P>(&checkpoints, observer)? } else { None };
        let prompts = prompts(&self.data.benchmark, context(&self.model.config));

        let prepared = self.prepare::<P>(&checkpoint, &prompts, device, observer)?;
        let Prepared { model, replay, mut reference, reference_nll, bounds, before, .. } = prepared;
        let (own_fluency, [prepare_seconds, mut evaluate_seconds]) = (prepared.own_fluency, prepared.seconds);

        observer.observe(Event::Stage(Stage::Training));
        let model = Llama::<P::Train>::trainable_in(model, parameters.clone());
        let mut state = beginning(model, &self.data.corpus, self.recipe);
        if let Some(saved) = saved {
            checkpoints.restore(&saved, &mut state)?;
        }
        let before_this = state.cost.seconds;
        let started = Instant::now();
        let documents = TrainingDocuments { benchmark: &self.data.benchmark, replay };
        let comparison = Comparison {
            reference: &mut *reference,
            reference_nll: reference_nll.as_ref(),
            bounds: bounds.as_ref(),
        };
        let (operated, mut cost) = operate::<P::Train, P::Kernels>(
            state,
            &documents,
            self.recipe,
            comparison,
            &mut checkpoints,
            observer,
        )?;
        // The time between steps was spent in evaluations, and a little in checkpoints.
        evaluate_seconds += started.elapsed().as_secs_f64() - (cost.seconds - before_this);
        cost.seconds += prepare_seconds;
        let folder = self.output.join(MODEL);
        let dtype = self.recipe.model.save_dtype;
        operated.valid().save(&folder, &self.model.folder, Some(&checkpoint), dtype)?;
        drop(operated);

        // Evaluate the written files, not the model in memory.
        observer.observe(Event::Stage(Stage::EvaluatingAfter));
        let started = Instant::now();
        let written = ModelFolder::open(Folder::Disk(folder.clone()))?;
        let model = written.load::<P>(self.recipe.model.precision, device)?;
        if self.loads_the_reference_again(&checkpoint) {
            reference = Box::new(Live::<P::Infer, P::Kernels>::new(self.load::<P>(&checkpoint, device)?));
        }
        let against = Against::Reference(&mut *reference);
        let after = inspect::<P>(&model, &self.data.benchmark, &prompts, against, observer)?;
        if let Some((what, value)) = after.evaluation.not_finite() {
            // An unusable model must not stay in the output folder.
            remove_folder(&folder)?;
            return Err(Error::NotFinite { step: cost.steps, what, value });
        }
        drop((model, reference));
        let judge = self.load::<P>(&checkpoint, device)?;
        let fluency = Fluency::of(own_fluency, fluency::<P>(&judge, &prompts, &after.continuations)?);
        evaluate_seconds += started.elapsed().as_secs_f64();

        files.extend(Hashed::of_model(&written.folder)?);
        let findings = self.data.lint(self.model, Some(self.recipe));
        let report = Report {
            difference: after.evaluation.minus(&before.evaluation),
            before: before.evaluation.clone(),
            after: after.evaluation.clone(),
            steps: cost.steps,
            steps_skipped: cost.skipped,
            rolled_back: cost.rolled_back,
            tokens: cost.tokens,
            train_seconds: cost.seconds,
            evaluate_seconds,
            tokens_per_second: cost.tokens_per_second(),
            peak_memory_bytes: P::peak(device),
            texts_written: self.recipe.replay.documents,
            documents_split: documents_split(&findings),
            findings,
            fluency,
            model: self.model.folder.label(""),
            data: self.data.folder.label(""),
            output: self.output.display().to_string(),
            files,
        };
        Ok(Performed { report, prompts, before, after, folder })
    }

    /// Whether the evaluation after training loads the input model again, because the reference's states of all retain
    /// documents would take too much of the disk.
    pub fn loads_the_reference_again(&self, checkpoint: &Checkpoint) -> bool {
        self.is_cached() && !self.keeps_all_states(checkpoint)
    }

    /// Refuses what cannot be performed, before any weight is read.
    fn check(&self) -> Result<()> {
        let wrong = |problem| Error::Recipe { origin: "the recipe".into(), problem };
        self.recipe.check().map_err(wrong)?;
        let parameters = self.model.config.parameters().train_only(&self.recipe.train.trainable)?;
        self.recipe.objective.check_model(&self.model.config, &parameters).map_err(wrong)?;
        if let (Some(source), None) = (self.recipe.objective.bounding_model(), self.bounding) {
            return Err(wrong(format!(
                "`objective.ascent_model` is {source:?}, and the operation was given no such model"
            )));
        }
        self.data.refuse_without_alternative(self.recipe, &self.model.config)
    }

    fn load<P: Platform>(&self, checkpoint: &Checkpoint, device: &DeviceOf<P>) -> Result<Llama<P::Infer>> {
        Llama::load(&self.model.config, checkpoint, self.recipe.model.precision, device)
    }

    fn checkpoints<'a, P: Platform>(
        &'a self,
        checkpoint: &'a Checkpoint,
        parameters: &'a Parameters,
        inputs: &[Hashed],
        device: &DeviceOf<P>,
    ) -> Checkpoints<'a, P::Train> {
        let at = device.clone();
        Checkpoints {
            folder: self.output.join(CHECKPOINTS),
            every: self.recipe.train.checkpoint_every,
            input: (&self.model.folder, Some(checkpoint)),
            config: &self.model.config,
            parameters: parameters.clone(),
            precision: self.recipe.model.precision,
            optimizer: &self.recipe.optimizer,
            beginning: Box::new(move || {
                let model = self.load::<P>(checkpoint, &at)?;
                Ok(Llama::<P::Train>::trainable_in(model, parameters.clone()))
            }),
            run: Folder::Disk(self.output.to_path_buf()),
            records: self.records,
            logs: self.logs,
            inputs: Hashed::by_name(inputs),
            device: device.clone(),
        }
    }

    /// The checkpoint that the run resumes from; `None` for the beginning.
    fn newest<P: Platform>(
        &self,
        checkpoints: &Checkpoints<P::Train>,
        observer: &mut dyn Observer,
    ) -> Result<Option<Saved>> {
        let (saved, damaged) = checkpoints.newest()?;
        let from = saved.as_ref().map(|saved| (saved.step(), saved.path.as_path()));
        observer.observe(Event::Resuming { from, damaged: &damaged });
        checkpoints.restore_logs(saved.as_ref(), self.output)?;
        Ok(saved)
    }

    /// Loads the model, generates replay documents, computes bounds and reference, and inspects the model.
    fn prepare<P: Platform>(
        &self,
        checkpoint: &Checkpoint,
        prompts: &[Prompt],
        device: &DeviceOf<P>,
        observer: &mut dyn Observer,
    ) -> Result<Prepared<P>> {
        let benchmark = &self.data.benchmark;
        let model = self.load::<P>(checkpoint, device)?;
        let started = Instant::now();
        let bounding = match self.bounding {
            Some(bounding) => Some(bounding.load::<P>(self.recipe.model.precision, device)?),
            None => None,
        };
        let replay = self.replay_documents::<P>(&model, bounding.as_ref(), observer)?;
        let bounds = match bounding {
            Some(bounding) => Some(self.nll_of_forgotten::<P>(&bounding)?),
            None => None,
        };
        let objective = self.recipe.objective.for_model(&self.model.config, self.recipe.train.seed);
        let reference_nll = match objective.needs(Set::Unlearn).reference_nll {
            true => Some(self.nll_of_forgotten::<P>(&model)?),
            false => None,
        };
        let mut train_seconds = started.elapsed().as_secs_f64();

        observer.observe(Event::Stage(Stage::EvaluatingBefore));
        let started = Instant::now();
        let documents = TrainingDocuments { benchmark, replay };
        let mut reference = self.reference::<P>(&model, checkpoint, &documents)?;
        let before = inspect::<P>(&model, benchmark, prompts, Against::Itself(&mut *reference), observer)?;
        let own_fluency = fluency::<P>(&model, prompts, &before.continuations)?;
        let evaluate_seconds = started.elapsed().as_secs_f64();

        let started = Instant::now();
        reference.complete(&model)?;
        train_seconds += started.elapsed().as_secs_f64();
        let replay = documents.replay;
        let seconds = [train_seconds, evaluate_seconds];
        Ok(Prepared { model, replay, reference, reference_nll, bounds, before, own_fluency, seconds })
    }

    /// Generates the replay documents, and writes them into the output folder.
    fn replay_documents<P: Platform>(
        &self,
        model: &Llama<P::Infer>,
        bounding: Option<&Llama<P::Infer>>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Example>> {
        let Recipe { replay, train, .. } = self.recipe;
        if replay.documents == 0 {
            return Ok(Vec::new());
        }
        observer.observe(Event::Stage(Stage::Generating));
        let Self { data, model: files, .. } = self;
        let filter = ReplayFilter::new(&data.corpus, &data.questions);
        let likelihood = match bounding {
            Some(other) => Likelihood::new::<P::Kernels>(model, other.clone(), &data.benchmark)?,
            None => None,
        };
        let generated = write_texts::<P::Infer, P::Kernels>(
            model,
            &files.encoder,
            &filter,
            likelihood.as_ref(),
            replay,
            train.seed,
            observer,
        )?;
        let line = |(index, example): (usize, &Example)| {
            let text = files.encoder.decode(&example.tokens)?;
            Ok(format!("{}\n", json!({ "id": format!("written-{index:04}"), "text": text })))
        };
        let lines = generated.iter().enumerate().map(line).collect::<Result<String>>()?;
        write_text(&self.output.join(REPLAY), &lines)?;
        Ok(generated)
    }

    /// The NLL of the documents to unlearn, and of their alternatives, under a model.
    fn nll_of_forgotten<P: Platform>(&self, model: &Llama<P::Infer>) -> Result<NllTable> {
        let sets = [Set::Unlearn, Set::EditUnlearn].into_iter();
        let documents = sets.flat_map(|set| self.data.benchmark.documents(set));
        let all = documents.flat_map(|document| std::iter::once(document).chain(&document.alternatives));
        let context = self.model.config.context(self.recipe.train.max_tokens);
        NllTable::of::<P::Infer, P::Kernels>(model, all, context)
    }

    /// The reference, made from `model` before its first step, in the form that the recipe asks for.
    fn reference<P: Platform>(
        &self,
        model: &Llama<P::Infer>,
        checkpoint: &Checkpoint,
        documents: &TrainingDocuments,
    ) -> Result<Box<dyn Reference<P::Infer>>> {
        if !self.is_cached() {
            return Ok(Box::new(Live::<P::Infer, P::Kernels>::new(model.clone())));
        }
        let store = Store::in_folder(&self.output.join(STATES))?;
        let mut cached = Cached::<P::Infer, P::Kernels>::new(model, store);
        let (config, train) = (&self.model.config, &self.recipe.train);
        let objective = self.recipe.objective.for_model(config, train.seed);
        for (set, drawn) in to_be_drawn(&self.data.corpus, self.recipe) {
            if let Some(at) = objective.usage(set).of_reference() {
                let drawn = drawn.into_iter().map(|index| documents.document(set, index));
                cached.want(drawn, config.context(train.max_tokens), at);
            }
        }
        if self.keeps_all_states(checkpoint) {
            cached.want(self.data.benchmark.kept(), context(config), At::Final);
        }
        Ok(Box::new(cached))
    }

    fn is_cached(&self) -> bool {
        self.recipe.train.reference == ReferenceForm::Cached
    }

    /// Whether the reference's states of all retain documents are stored for the evaluation after training.
    fn keeps_all_states(&self, checkpoint: &Checkpoint) -> bool {
        let bytes = bytes_of_states(self.data.benchmark.kept(), &self.model.config);
        bytes <= checkpoint.bytes().max(MOST_STATES)
    }

    /// The input files of the run.
    fn hashed_inputs(&self) -> Result<Vec<Hashed>> {
        let mut hashed = Hashed::of_model(&self.model.folder)?;
        if let Some(bounding) = self.bounding {
            hashed.extend(Hashed::of_model(&bounding.folder)?);
        }
        hashed.extend(Hashed::of_data(&self.data.folder)?);
        Ok(hashed)
    }
}
