//! `surgery run`: evaluates the model, trains it, evaluates it again and writes a report.

use std::path::{Path, PathBuf};

use surgery_core::Result;
use surgery_core::folders::{DataFolder, ModelFolder};
use surgery_core::operation::{MODEL, Operation, Performed};
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::Recipe;
use surgery_core::report::Report;

use crate::args::{Common, Run};
use crate::exit::Outcome;
use crate::inputs::recipe;
use crate::output::Output;
use crate::plan;
use crate::prepare::{Prepared, Way};
use crate::progress::{EVALUATIONS, METRICS, Metrics, Progress, read_lines};
use crate::report::{Curves, Page, table_of_change, write};
use crate::resume::{self, LOGS, RECORDS, batch_tokens_of, keep_recipe, recipe_of};
use crate::terminal::{Log, print, print_json};

/// Resolves the recipe and runs the command.
pub fn run(run: Run, common: Common) -> Outcome {
    let asks = run.recipe.is_some() || run.model.is_some() || run.data.is_some();
    let of_run = run.resume.then(|| recipe_of(run.output.as_deref(), asks)).flatten();
    let name = of_run.or(run.recipe);
    let mut recipe: Recipe = recipe(name.as_deref().unwrap_or("default"), &run.overrides)?;
    if let Some(model) = run.model {
        recipe.model.source = model;
    }
    if let Some(data) = run.data {
        recipe.data.path = data;
    }
    if run.resume && recipe.train.batch_tokens == 0 {
        recipe.train.batch_tokens = batch_tokens_of(run.output.as_deref()).unwrap_or(0);
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
        let Prepared { recipe, files, bounding, data, device, output: taken_over, .. } = prepared;
        let claimed = taken_over.map_or_else(|| Output::claim(output.as_deref()), Ok)?;
        let output = claimed.path();
        let operation = operation(&recipe, &files, bounding.as_ref(), &data, output, resume);
        let report = perform::<P>(&operation, &device, log)?;
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

/// An operation with the records and logs of a run, in `output`.
pub fn operation<'a>(
    recipe: &'a Recipe,
    model: &'a ModelFolder,
    bounding: Option<&'a ModelFolder>,
    data: &'a DataFolder,
    output: &'a Path,
    resume: bool,
) -> Operation<'a> {
    Operation { recipe, model, bounding, data, output, resume, records: &RECORDS, logs: &LOGS }
}

/// Performs an operation, and writes all output files of a run.
pub fn perform<P: Platform>(operation: &Operation, device: &DeviceOf<P>, log: Log) -> Result<Report> {
    let Operation { recipe, model, data, output, .. } = *operation;
    let resolved = toml::to_string(recipe).expect("a recipe is TOML");
    keep_recipe(output, &resolved)?;
    log.findings(&data.lint(model, Some(recipe)));
    if operation.loads_the_reference_again(&model.checkpoint()?) {
        log.info(
            "the reference's states of all retain documents would take more disk space than the model: only those of \
             documents in steps are stored, and the evaluation after training loads the model again",
        );
    }
    let mut progress = Progress::recording(log, output, Metrics::Surgery)?.resumable("run", output);
    let performed = operation
        .perform::<P>(device, &mut progress)
        .map_err(|error| resume::explain(error, output, &mut progress, log))?;
    progress.finish();
    let curves = Curves {
        recipe: &resolved,
        metrics: read_lines(&output.join(METRICS))?,
        evaluations: read_lines(&output.join(EVALUATIONS))?,
    };
    let Performed { report, prompts, before, after, .. } = performed;
    let page =
        Page { run: Some(curves), data, files: model, before: &before, after: &after, prompts: &prompts };
    write(&report, &page, output)?;
    resume::finish(output, log);
    Ok(report)
}
