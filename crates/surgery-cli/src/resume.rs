//! `--resume`: the recipe of an unfinished run, and the step at which it resumes.

use std::path::Path;

use surgery_core::files::write_text;
use surgery_core::operation::{CHECKPOINTS, STATES};
use surgery_core::{Error, Kind, Result};

use crate::output::RECIPE;
use crate::progress::{EVALUATIONS, METRICS, Progress};
use crate::terminal::Log;

/// The recipe file of the run in `output`; `None` if the command line names a recipe, a model or data.
pub fn recipe_of(output: Option<&Path>, names_another: bool) -> Option<String> {
    let path = output?.join(RECIPE);
    (!names_another && path.is_file()).then(|| path.display().to_string())
}

/// `train.batch_tokens` of the run in `output`. A resumed run takes the number that was chosen when it began, whatever
/// memory there is now. `None` if the folder holds no recipe with this key.
pub fn batch_tokens_of(output: Option<&Path>) -> Option<usize> {
    let text = std::fs::read_to_string(output?.join(RECIPE)).ok()?;
    let recipe: toml::Table = toml::from_str(&text).ok()?;
    usize::try_from(recipe.get("train")?.get("batch_tokens")?.as_integer()?).ok()
}

/// Refuses to resume a run whose recipe differs from `resolved`. If the run has no recipe yet, writes it.
pub fn keep_recipe(output: &Path, resolved: &str) -> Result<()> {
    let path = output.join(RECIPE);
    if !path.exists() {
        return write_text(&path, resolved);
    }
    let shown = || path.display().to_string();
    let found = std::fs::read_to_string(&path).map_err(|source| Error::Read { path: shown(), source })?;
    let mut lines = found.lines();
    match resolved.lines().find(|line| lines.next() != Some(line)) {
        None if lines.next().is_none() => Ok(()),
        other => Err(Error::Recipe {
            origin: shown(),
            problem: format!(
                "is another recipe: the run there does not have `{}`. Resume without naming a recipe, or start a new \
                 run in another folder",
                other.unwrap_or("the end of the recipe")
            ),
        }),
    }
}

/// The files of a run that are copied into each checkpoint.
pub const RECORDS: [&str; 1] = [RECIPE];
/// The files of a run that grow with its steps.
pub const LOGS: [&str; 2] = [METRICS, EVALUATIONS];

/// Removes the folders that only an unfinished run needs.
pub fn finish(output: &Path, log: Log) {
    for folder in [STATES, CHECKPOINTS].map(|name| output.join(name)) {
        // The results are written, so a folder that cannot be removed is not a failure.
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                log.warn(&format!(
                    "{}: is no longer needed, but cannot be removed: {error}",
                    folder.display()
                ));
            }
            _ => {}
        }
    }
}

/// Adds to an error that ends the run in `output` how to resume it, or where its last good weights are.
pub fn explain(error: Error, output: &Path, progress: &mut Progress, log: Log) -> Error {
    if error.kind() == Kind::Diverged {
        log.warn(&last_good(output));
    }
    progress.explain(error)
}

/// A message with the place of the last good weights of a diverged run.
fn last_good(output: &Path) -> String {
    let folder = output.join(CHECKPOINTS);
    match std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
        true => format!("the last good weights are the newest in {}", folder.display()),
        false => {
            "there is no checkpoint: the last good weights are those of the input model (`train.checkpoint_every` writes \
             checkpoints)"
                .into()
        }
    }
}
