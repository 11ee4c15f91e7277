//! `--resume`: which recipe an unfinished run has, and where it goes on.

use std::path::Path;

use surgery_core::files::write_text;
use surgery_core::operation::{CHECKPOINTS, STATES};
use surgery_core::{Error, Kind, Result};

use crate::output::RECIPE;
use crate::progress::{EVALUATIONS, METRICS, Progress};
use crate::terminal::Log;

/// The recipe file of the run in `output`, where nothing else was asked for than to go on with it.
pub fn recipe_of(output: Option<&Path>, asks_for_more: bool) -> Option<String> {
    let path = output?.join(RECIPE);
    (!asks_for_more && path.is_file()).then(|| path.display().to_string())
}

/// `train.batch_tokens` of the run in `output`: a run that goes on takes what was chosen when it began, whatever memory there
/// is now. None where there is no recipe of a run, or one without it.
pub fn batch_tokens_of(output: Option<&Path>) -> Option<usize> {
    let text = std::fs::read_to_string(output?.join(RECIPE)).ok()?;
    let recipe: toml::Table = toml::from_str(&text).ok()?;
    usize::try_from(recipe.get("train")?.get("batch_tokens")?.as_integer()?).ok()
}

/// Refuses to go on with a run whose recipe is not `resolved`, which is written where there is none.
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
                "is another recipe: the run there does not have `{}`. Go on without naming a recipe, or begin \
                 anew in another folder",
                other.unwrap_or("the end of the recipe")
            ),
        }),
    }
}

/// The files of a run that each checkpoint gets a copy of.
pub const RECORDS: [&str; 1] = [RECIPE];
/// The files of a run that grow with its steps.
pub const LOGS: [&str; 2] = [METRICS, EVALUATIONS];

/// Removes what only an unfinished run needs.
pub fn finish(output: &Path, log: Log) {
    for folder in [STATES, CHECKPOINTS].map(|name| output.join(name)) {
        // What the run was for is written: a folder too many is no failure.
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                log.warn(&format!(
                    "{}: is no longer needed and cannot be removed: {error}",
                    folder.display()
                ));
            }
            _ => {}
        }
    }
}

/// Says, of an error that ends the run in `output`, what is left to go on with.
pub fn explain(error: Error, output: &Path, progress: &mut Progress, log: Log) -> Error {
    if error.kind() == Kind::Diverged {
        log.warn(&last_good(output));
    }
    progress.explain(error)
}

/// Where the last good weights of a run are that diverged.
fn last_good(output: &Path) -> String {
    let folder = output.join(CHECKPOINTS);
    match std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some()) {
        true => format!("the last good weights are the newest in {}", folder.display()),
        false => "no good weights were kept: those of the beginning are the last (`train.checkpoint_every` keeps some)".into(),
    }
}
