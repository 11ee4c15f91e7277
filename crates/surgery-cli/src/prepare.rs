//! What a run reads and refuses before it reads a weight. A dry run goes through the same: it refuses whatever a run
//! refuses here, with the same words.
//!
//! Left to the run itself is what only its weights tell (values that are not finite, damaged data) and what only its
//! work tells (a model that diverges, or that writes too few texts to keep; a disk that becomes full).

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

/// What a run is prepared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To be run, or to go on with an unfinished run.
    Run {
        /// Whether it goes on.
        resume: bool,
    },
    /// Only to say what would be done: nothing is written, and that it does not fit in memory is the caller's to tell.
    DryRun,
}

/// All that a run needs, but for the weights.
pub struct Prepared<P: Platform> {
    /// The recipe, resolved.
    pub recipe: Recipe,
    /// The model that is operated on.
    pub files: ModelFolder,
    /// The model that bounds the ascent, where the recipe has one.
    pub bounding: Option<ModelFolder>,
    /// The files of the model's weights.
    pub checkpoint: Checkpoint,
    /// The data.
    pub data: DataFolder,
    /// Where to compute.
    pub device: DeviceOf<P>,
    /// The output folder, where it was taken over from an unfinished run.
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
        // The resolved recipe must mean the same model when its branch has moved on.
        recipe.model.source = files.pinned.clone().unwrap_or(recipe.model.source);
        let bounding = bounding_model(&mut recipe, &files, log)?;
        let checkpoint = files.checkpoint()?;
        files.config.check(&checkpoint)?;
        files.config.parameters().train_only(&recipe.train.trainable)?;
        replay::check(&recipe.replay, &files.encoder, &files.config)?;
        let wrong = |problem| Error::Recipe { origin: "the recipe".into(), problem };
        recipe.objective.check_model(&files.config).map_err(wrong)?;
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

    /// The models that are run.
    pub fn models(&self) -> fit::Models<'_> {
        fit::Models { operated: &self.files, bounding: self.bounding.as_ref() }
    }

    /// Refuses what does not fit in memory.
    pub fn check_memory(&self) -> Result<()> {
        fit::operation::<P>("", &self.recipe, self.models(), Some(&self.data), &self.device)
    }
}

/// Refuses texts in whose windows a model would not see all that it has to.
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

/// Opens the model that bounds the ascent, where the recipe has one.
pub fn bounding_model(recipe: &mut Recipe, files: &ModelFolder, log: Log) -> Result<Option<ModelFolder>> {
    let Some(source) = recipe.objective.bounding_model().map(str::to_owned) else { return Ok(None) };
    let bounding = open_model(&source, log)?;
    if let Err(error) = files.refuse_other_vocabulary(&bounding, "a bound") {
        let remedy = format!(
            "Give a model of the same tokenizer that has never seen the texts, such as the one that this model was made \
             from, or `{NO_MODEL}`"
        );
        if source != EMBEDDED_BASE {
            return Err(Error::Recipe {
                origin: "objective.ascent_model".into(),
                problem: format!(
                    "is `{source}`, which cannot bound what this model forgets ({error}). {remedy}"
                ),
            });
        }
        // The default recipe names it, and is used for other models too.
        log.warn(&format!(
            "`objective.ascent_model` is `{source}`, which knows other tokens than this model: the ascent has no bound \
             but `objective.ascent_cap`. {remedy}"
        ));
        recipe.objective.ascent_model = Some(NO_MODEL.into());
        return Ok(None);
    }
    recipe.objective.ascent_model = Some(bounding.pinned.clone().unwrap_or(source));
    Ok(Some(bounding))
}
