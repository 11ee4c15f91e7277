//! `surgery pretrain`: θ_pre, θ_baseline, or a model from nothing.

use std::time::Instant;

use serde_json::json;
use surgery_core::burn::module::AutodiffModule;
use surgery_core::config::LlamaConfig;
use surgery_core::data::{encode_documents, read_documents};
use surgery_core::files::write_text;
use surgery_core::memory::peak_bytes;
use surgery_core::model::Llama;
use surgery_core::platform::Platform;
use surgery_core::pretrain::pretrain;
use surgery_core::recipe::PretrainRecipe;

use crate::args::{Common, Pretrain};
use crate::exit::Outcome;
use crate::inputs::{EMPTY, ModelFiles, check_output, file_in_folder, output_folder, recipe};
use crate::progress::{Metrics, Progress};
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
        let mut overrides = args.overrides;
        overrides.extend(args.model.map(|model| format!("model.source={}", toml::Value::String(model))));
        let mut recipe: PretrainRecipe = recipe(args.recipe.as_deref().unwrap_or(EMPTY), &overrides)?;
        P::check_precision(recipe.model.precision)?;
        let device = P::device(common.device)?;
        let files = ModelFiles::open(&recipe.model.source, log)?;
        recipe.model.source = files.pinned.clone().unwrap_or(recipe.model.source);
        check_output(args.output.as_deref(), &[&files.folder])?;
        let mut documents = Vec::new();
        for path in &recipe.data.files {
            let (folder, file) = file_in_folder(path.as_ref());
            let read = read_documents(&folder, &file)?;
            documents.extend(encode_documents(&folder, &file, &read, &files.encoder)?);
        }
        let checkpoint = match recipe.model.from_scratch {
            true => None,
            false => Some(files.checkpoint()?),
        };
        if let Some(checkpoint) = &checkpoint {
            files.config.check(checkpoint)?;
        }
        let output = output_folder(args.output.as_deref())?;
        let resolved = toml::to_string(&recipe).expect("a recipe is TOML");
        write_text(&output.join("recipe.toml"), &resolved)?;

        let config: &LlamaConfig = &files.config;
        let model: Llama<P::Train> = match &checkpoint {
            Some(checkpoint) => Llama::load(config, checkpoint, &device)?,
            None => Llama::random(config, recipe.train.seed, &device),
        };
        let tokens: usize = documents.iter().map(Vec::len).sum();
        log.detail(&format!(
            "{} documents, {tokens} tokens; a model of {} parameters",
            documents.len(),
            config.num_parameters()
        ));
        let mut progress = Progress::recording(log, &output, Metrics::Pretraining)?;
        progress.stage("pretraining");
        let started = Instant::now();
        let (model, cost) = pretrain::<P::Train, P::Kernels>(model, &documents, &recipe, None, &mut progress)
            .map_err(|error| progress.explain(error))?;
        progress.finish();
        let folder = output.join("model");
        model.valid().save(&folder, &files.folder, checkpoint.as_ref(), recipe.model.save_dtype)?;

        let seconds = started.elapsed().as_secs_f64();
        let rate = cost.tokens_per_second();
        match common.json {
            true => print_json(&json!({
                "output": output.display().to_string(),
                "steps": cost.steps,
                "tokens": cost.tokens,
                "train_seconds": cost.seconds,
                "tokens_per_second": rate,
                "peak_memory_bytes": peak_bytes(),
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
