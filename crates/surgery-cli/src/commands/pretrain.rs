//! `surgery pretrain`: trains θ_pre, θ_baseline, or a model from scratch.

use std::time::Instant;

use serde_json::json;
use surgery_core::burn::module::AutodiffModule;
use surgery_core::config::LlamaConfig;
use surgery_core::data::lint::control_tokens;
use surgery_core::data::{Example, encode_documents, read_documents};
use surgery_core::files::{Folder, file_in_folder};
use surgery_core::model::Llama;
use surgery_core::operation::{CHECKPOINTS, MODEL};
use surgery_core::platform::Platform;
use surgery_core::pretrain::{beginning, pretrain};
use surgery_core::recipe::PretrainRecipe;
use surgery_core::report::Hashed;
use surgery_core::resume::Checkpoints;

use crate::args::{Common, Pretrain};
use crate::exit::Outcome;
use crate::fit;
use crate::inputs::{EMPTY, open_model, recipe};
use crate::output::Output;
use crate::progress::{Metrics, Progress, tell_resumed};
use crate::resume::{self, LOGS, RECORDS, batch_tokens_of, keep_recipe, recipe_of};
use crate::terminal::{Log, print, print_json};

/// The command on a backend.
pub struct Job {
    pub pretrain: Pretrain,
    pub common: Common,
}

impl crate::backend::Job for Job {
    type Output = ();

    fn run<P: Platform>(self) -> Outcome {
        let Self { pretrain: args, common } = self;
        let log = Log::new(&common);
        let asks = args.recipe.is_some() || args.model.is_some();
        let of_run = args.resume.then(|| recipe_of(args.output.as_deref(), asks)).flatten();
        let name = of_run.or(args.recipe);
        let mut overrides = args.overrides;
        overrides.extend(args.model.map(|model| format!("model.source={}", toml::Value::String(model))));
        let mut recipe: PretrainRecipe = recipe(name.as_deref().unwrap_or(EMPTY), &overrides)?;
        if args.resume && recipe.train.batch_tokens == 0 {
            recipe.train.batch_tokens = batch_tokens_of(args.output.as_deref()).unwrap_or(0);
        }
        P::check_precision(recipe.model.precision)?;
        let device = P::device(common.device)?;
        let files = open_model(&recipe.model.source, log)?;
        recipe.model.source = files.pinned.clone().unwrap_or(recipe.model.source);
        let prepared = Output::prepare(args.output.as_deref(), &[&files.folder], args.resume, MODEL)?;
        fit::pretraining::<P>("", &recipe, &files.config, &[], &device)?;
        let mut documents = Vec::new();
        for path in &recipe.data.files {
            let (folder, file) = file_in_folder(path.as_ref());
            let read = read_documents(&folder, &file)?;
            log.findings(&control_tokens(&file, &read, &files.encoder));
            documents.extend(encode_documents(&folder, &file, &read, &files.encoder)?);
        }
        let checkpoint = match recipe.model.from_scratch {
            true => None,
            false => Some(files.checkpoint()?),
        };
        if let Some(checkpoint) = &checkpoint {
            files.config.check(checkpoint)?;
        }
        fit::choose_pretraining_batch_tokens::<P>(&mut recipe, &files.config, &documents, &device);
        fit::pretraining::<P>("", &recipe, &files.config, &documents, &device)?;
        let claimed = prepared.map_or_else(|| Output::claim(args.output.as_deref()), Ok)?;
        let output = claimed.path();
        keep_recipe(output, &toml::to_string(&recipe).expect("a recipe is TOML"))?;

        let config: &LlamaConfig = &files.config;
        let load = || match &checkpoint {
            Some(checkpoint) => Llama::load(config, checkpoint, recipe.model.precision, &device),
            None => Ok(Llama::random(config, recipe.train.seed, recipe.model.precision, &device)),
        };
        let mut hashed = Hashed::of_model(&files.folder)?;
        for path in &recipe.data.files {
            let (folder, file) = file_in_folder(path.as_ref());
            hashed.extend(Hashed::of(&folder, [file].into_iter())?);
        }
        let mut checkpoints: Checkpoints<P::Train> = Checkpoints {
            folder: output.join(CHECKPOINTS),
            every: recipe.train.checkpoint_every,
            input: (&files.folder, checkpoint.as_ref()),
            config,
            parameters: config.parameters(),
            precision: recipe.model.precision,
            optimizer: &recipe.optimizer,
            beginning: Box::new(load),
            run: Folder::Disk(output.to_path_buf()),
            records: &RECORDS,
            logs: &LOGS,
            inputs: Hashed::by_name(&hashed),
            device: device.clone(),
        };
        let saved = match args.resume {
            true => {
                let (saved, damaged) = checkpoints.newest()?;
                let from = saved.as_ref().map(|saved| (saved.step(), saved.path.as_path()));
                tell_resumed(from, &damaged, log);
                checkpoints.restore_logs(saved.as_ref(), output)?;
                saved
            }
            false => None,
        };
        let mut state = beginning(load()?, documents.len(), &recipe);
        if let Some(saved) = saved {
            checkpoints.restore(&saved, &mut state)?;
        }
        let tokens: usize = documents.iter().map(Example::len).sum();
        log.detail(&format!(
            "{} documents, {tokens} tokens; a model of {} parameters",
            documents.len(),
            config.num_parameters()
        ));
        let mut progress =
            Progress::recording(log, output, Metrics::Pretraining)?.resumable("pretrain", output);
        progress.stage("pretraining");
        let started = Instant::now();
        let checkpointer = &mut checkpoints;
        let (model, cost) =
            pretrain::<P::Train, P::Kernels>(state, &documents, &recipe, None, checkpointer, &mut progress)
                .map_err(|error| resume::explain(error, output, &mut progress, log))?;
        progress.finish();
        let folder = output.join(MODEL);
        model.valid().save(&folder, &files.folder, checkpoint.as_ref(), recipe.model.save_dtype)?;
        resume::finish(output, log);

        let seconds = started.elapsed().as_secs_f64();
        let rate = cost.tokens_per_second();
        match common.json {
            true => print_json(&json!({
                "output": output.display().to_string(),
                "steps": cost.steps,
                "tokens": cost.tokens,
                "train_seconds": cost.seconds,
                "tokens_per_second": rate,
                "peak_memory_bytes": P::peak(&device),
            })),
            false => print(&format!(
                "{} steps, {} tokens in {seconds:.1} s ({rate:.0} tokens a second)\nmodel: {}",
                cost.steps,
                cost.tokens,
                folder.display()
            )),
        }
    }
}
