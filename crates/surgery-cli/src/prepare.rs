//! Opening and checking of a run's inputs before any weight is read. A dry run does the same, so it refuses everything that
//! a run refuses here, with the same messages.
//!
//! The run itself finds only problems of its weights (values that are not finite, damaged data) and of its work (a model
//! that diverges or generates too few replay documents; a full disk).

use std::path::Path;

use surgery_core::checkpoint::Checkpoint;
use surgery_core::config::LlamaConfig;
use surgery_core::data::{Example, Set};
use surgery_core::folders::{DataFolder, ModelFolder};
use surgery_core::objective::NO_MODEL;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::Recipe;
use surgery_core::replay;
use surgery_core::{Error, Result};

use crate::args::{Common, EMBEDDED_BASE};
use crate::fit;
use crate::inputs::{open_data, open_model};
use crate::output::Output;
use crate::report::REPORT;
use crate::terminal::Log;

/// The purpose of the preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A new run, or an unfinished run to resume.
    Run {
        /// Whether to resume.
        resume: bool,
    },
    /// A plan only: nothing is written, and the caller reports a lack of memory.
    DryRun,
}

/// Everything that a run needs, except the weights.
pub struct Prepared<P: Platform> {
    /// The resolved recipe.
    pub recipe: Recipe,
    /// The input model.
    pub files: ModelFolder,
    /// The model that bounds the ascent, if the recipe has one.
    pub bounding: Option<ModelFolder>,
    /// The files of the model's weights.
    pub checkpoint: Checkpoint,
    /// The data.
    pub data: DataFolder,
    /// The device to compute on.
    pub device: DeviceOf<P>,
    /// The output folder, if it is that of an unfinished run.
    pub output: Option<Output>,
}

impl<P: Platform> Prepared<P> {
    /// Opens and checks everything that `recipe` names, and the folder `output`.
    pub fn new(
        mut recipe: Recipe,
        output: Option<&Path>,
        way: Way,
        common: &Common,
        log: Log,
    ) -> Result<Self> {
        P::check_precision(recipe.model.precision)?;
        let device = P::device(common.device)?;
        let files = open_model(&recipe.model.source, log)?;
        // Pin the commit, so that the resolved recipe names the same model after its branch has changed.
        recipe.model.source = files.pinned.clone().unwrap_or(recipe.model.source);
        let bounding = bounding_model(&mut recipe, &files, log)?;
        let checkpoint = files.checkpoint()?;
        files.config.check(&checkpoint)?;
        let parameters = files.config.parameters().train_only(&recipe.train.trainable)?;
        replay::check(&recipe.replay, &files.encoder, &files.config)?;
        let wrong = |problem| Error::Recipe { origin: "the recipe".into(), problem };
        recipe.objective.check_model(&files.config, &parameters).map_err(wrong)?;
        if let Some(bounding) = &bounding {
            bounding.config.check(&bounding.checkpoint()?)?;
        }
        if way != Way::DryRun {
            let models = fit::Models { operated: &files, bounding: bounding.as_ref() };
            fit::operation::<P>("", &recipe, models, None, &device)?;
        }
        let data = open_data(&recipe.data.path, &recipe.objective.sets(), &files.encoder)?;
        data.refuse_without_alternative(&recipe, &files.config)?;
        check_lengths(&recipe, &files.config, bounding.as_ref(), &data)?;
        let models = fit::Models { operated: &files, bounding: bounding.as_ref() };
        fit::choose_batch_tokens::<P>(&mut recipe, models, &data, &device);
        let resume = way == Way::Run { resume: true };
        let output = Output::prepare(output, &[&files.folder, &data.folder], resume, REPORT)?;
        Ok(Self { recipe, files, bounding, checkpoint, data, device, output })
    }

    /// The models of the operation.
    pub fn models(&self) -> fit::Models<'_> {
        fit::Models { operated: &self.files, bounding: self.bounding.as_ref() }
    }

    /// Refuses a run that does not fit in memory.
    pub fn check_memory(&self) -> Result<()> {
        fit::operation::<P>("", &self.recipe, self.models(), Some(&self.data), &self.device)
    }
}

/// Refuses texts with windows longer than a model supports.
fn check_lengths(
    recipe: &Recipe,
    config: &LlamaConfig,
    bounding: Option<&ModelFolder>,
    data: &DataFolder,
) -> Result<()> {
    let trained = config.context(recipe.train.max_tokens);
    let documents = data.benchmark.sets.iter().flat_map(|(_, documents)| documents);
    let longest = documents.map(Example::len).max().unwrap_or(0);
    config.check_length(longest.min(trained).max(data.longest(config)))?;
    let Some(bounding) = bounding else { return Ok(()) };
    let forgotten =
        [Set::Unlearn, Set::EditUnlearn].into_iter().flat_map(|set| data.benchmark.documents(set));
    let longest = forgotten.map(Example::len).max().unwrap_or(0);
    bounding.config.check_length(longest.min(trained))
}

/// Opens the model that bounds the ascent, if the recipe has one.
pub fn bounding_model(recipe: &mut Recipe, files: &ModelFolder, log: Log) -> Result<Option<ModelFolder>> {
    let Some(source) = recipe.objective.bounding_model().map(str::to_owned) else { return Ok(None) };
    let bounding = open_model(&source, log)?;
    if let Err(error) = files.refuse_other_vocabulary(&bounding, "a bound") {
        let remedy = format!(
            "Give a model with the same tokenizer that has never seen the documents to unlearn, such as the base of this \
             model, or `{NO_MODEL}`"
        );
        if source != EMBEDDED_BASE {
            return Err(Error::Recipe {
                origin: "objective.ascent_model".into(),
                problem: format!(
                    "is `{source}`, which cannot bound the ascent of this model ({error}). {remedy}"
                ),
            });
        }
        // The default recipe names this model, and is used for other models, too.
        log.warn(&format!(
            "`objective.ascent_model` is `{source}`, which has another vocabulary than this model: only \
             `objective.ascent_cap` bounds the ascent. {remedy}"
        ));
        recipe.objective.ascent_model = Some(NO_MODEL.into());
        return Ok(None);
    }
    recipe.objective.ascent_model = Some(bounding.pinned.clone().unwrap_or(source));
    Ok(Some(bounding))
}
