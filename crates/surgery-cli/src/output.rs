//! Output folders: one folder holds one run, and one process at a time writes into it.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use surgery_core::files::{Folder, temporary};
use surgery_core::{Error, Result};

use crate::lock::{is_at, try_lock};

/// The lock file of a process that writes into the folder.
const LOCK: &str = ".lock";
/// The file that every run writes first.
pub const RECIPE: &str = "recipe.toml";

/// The temporary folder that an import writes into before it renames its files.
pub const TEMPORARY_IMPORT: &str = ".import.tmp";
/// Parent of the output folders of runs without `--output`.
const RUNS: &str = "runs";

/// An output folder, locked against any other process for as long as this lives.
pub struct Output {
    path: PathBuf,
    lock: File,
}

impl Output {
    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses an unusable output folder before any work starts. With `resume`, takes over the folder of an
    /// unfinished run (a finished run holds the file `last`). A new folder is only checked here, and
    /// [claimed](Self::claim) once the inputs are validated.
    pub fn prepare(
        requested: Option<&Path>,
        inputs: &[&Folder],
        resume: bool,
        last: &str,
    ) -> Result<Option<Self>> {
        match requested.filter(|_| resume) {
            Some(path) => Self::take_over(path, inputs, last).map(Some),
            None => check_output(requested, inputs).map(|()| None),
        }
    }

    /// Creates the output folder after [`check_output`]: `requested`, or the next free `runs/NNNN`.
    pub fn claim(requested: Option<&Path>) -> Result<Self> {
        let Some(path) = requested else { return Self::claim_next(Path::new(RUNS)) };
        let output = Self::lock(path.to_path_buf())?;
        // Another run may have been faster.
        match is_empty(output.path())? {
            true => Ok(output),
            false => Err(refused(output.path(), "is not empty")),
        }
    }

    /// Takes over the folder of an unfinished run, or creates it. A finished run holds the file `last`.
    fn take_over(path: &Path, inputs: &[&Folder], last: &str) -> Result<Self> {
        refuse_unusable(path, inputs)?;
        let output = Self::lock(path.to_path_buf())?;
        if path.join(last).exists() {
            return Err(refused(path, "holds a finished run"));
        }
        if !path.join(RECIPE).exists() && !is_empty(path)? {
            return Err(refused(
                path,
                &format!("is not the folder of a run: it holds files, but no {RECIPE}"),
            ));
        }
        Ok(output)
    }

    /// Creates the next free folder `NNNN` in `runs`.
    fn claim_next(runs: &Path) -> Result<Self> {
        fs::create_dir_all(runs).map_err(Error::write(runs))?;
        for number in 1.. {
            let path = runs.join(format!("{number:04}"));
            // Creating the folder claims its name: a concurrent run gets the next one.
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(source) => return Err(Error::Write { path, source }),
            }
            match Self::lock(path) {
                Ok(output) if is_empty(output.path())? => return Ok(output),
                // Another process writes into this folder.
                Ok(_) | Err(Error::Output { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("some number is free")
    }

    fn lock(path: PathBuf) -> Result<Self> {
        let at = path.join(LOCK);
        let attempt = || {
            fs::create_dir_all(&path)?;
            try_lock(&at)
        };
        // Creating the folder and the lock shows now, not after the work, whether the folder is writable.
        let lock = attempt().or_else(|error| match error.kind() {
            // Another process created the folder, failed and removed it again.
            ErrorKind::NotFound => attempt(),
            _ => Err(error),
        });
        match lock.map_err(Error::write(&at))? {
            Some(lock) => Ok(Self { path, lock }),
            None => Err(Error::Output {
                path,
                problem: "is being written to by another process".into(),
                remedy: "wait until it is done, or give another folder with --output".into(),
            }),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // Only the lock matters, so a leftover lock file is no failure. A lock file of another process is left in
        // place.
        let at = self.path.join(LOCK);
        if is_at(&self.lock, &at).is_ok_and(|ours| ours) {
            let _ = fs::remove_file(at);
        }
    }
}

/// Refuses a folder that a new run may not or cannot write into: a non-empty folder, an input folder, or one that
/// cannot be created. Writes nothing.
pub fn check_output(requested: Option<&Path>, inputs: &[&Folder]) -> Result<()> {
    let Some(path) = requested else { return refuse_unwritable(Path::new(RUNS)) };
    refuse_unusable(path, inputs)?;
    if path.join(RECIPE).exists() {
        return Err(Error::Output {
            path: path.to_path_buf(),
            problem: "holds a run already".into(),
            remedy: "give another folder with --output, or resume an unfinished run with --resume".into(),
        });
    }
    if path.is_dir() && !is_empty(path)? {
        return Err(refused(path, "is not empty"));
    }
    refuse_unwritable(path)
}

/// Refuses a folder that is not writable or cannot be created, judging by its nearest existing ancestor. Writes
/// nothing.
fn refuse_unwritable(path: &Path) -> Result<()> {
    let wrong = |source| Err(Error::Write { path: path.to_path_buf(), source });
    for above in path.ancestors() {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match fs::metadata(above) {
            Ok(found) if found.is_dir() => return may_write(above).or_else(wrong),
            Ok(_) => return wrong(ErrorKind::NotADirectory.into()),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return wrong(error),
        }
    }
    Ok(())
}

/// Whether the permissions of `folder` allow creating files in it.
#[cfg(unix)]
fn may_write(folder: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(not(unix))]
fn may_write(_: &Path) -> io::Result<()> {
    Ok(())
}

fn refuse_unusable(path: &Path, inputs: &[&Folder]) -> Result<()> {
    if path.is_file() {
        return Err(refused(path, "is a file"));
    }
    // `a/..` may be another folder once `a` exists.
    if path.ancestors().any(|ancestor| ancestor.ends_with("..") && !ancestor.is_dir()) {
        return Err(refused(path, "has `..` after a folder that does not exist"));
    }
    let same = |input: &&Folder| match input {
        Folder::Disk(input) => fs::canonicalize(input).ok() == fs::canonicalize(path).ok(),
        Folder::Embedded { .. } => false,
    };
    match path.is_dir() && inputs.iter().any(same) {
        true => Err(refused(path, "is an input folder")),
        false => Ok(()),
    }
}

fn refused(path: &Path, problem: &str) -> Error {
    Error::Output {
        path: path.to_path_buf(),
        problem: problem.into(),
        remedy: "give another folder with --output".into(),
    }
}

/// Whether a folder holds nothing but leftovers of a command that was killed at its start: the lock, a temporary
/// recipe, a temporary import.
fn is_empty(path: &Path) -> Result<bool> {
    let begun = temporary(Path::new(RECIPE));
    let left = [Path::new(LOCK), &begun, Path::new(TEMPORARY_IMPORT)];
    for entry in fs::read_dir(path).map_err(Error::write(path))? {
        let name = entry.map_err(Error::write(path))?.file_name();
        if !left.contains(&Path::new(&name)) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrent_runs_get_different_folders() {
        let runs = std::env::temp_dir().join(format!("surgery-runs-{}", std::process::id()));
        let _ = fs::remove_dir_all(&runs);
        let (claimed, taken) = std::thread::scope(|scope| {
            let claims: Vec<_> = (0..8).map(|_| scope.spawn(|| Output::claim_next(&runs).unwrap())).collect();
            // Others take over the same folders at the same time.
            let takes: Vec<_> = (0..8)
                .map(|number| {
                    let path = runs.join(format!("{:04}", number % 4 + 1));
                    scope.spawn(move || Output::prepare(Some(&path), &[], true, "report.json"))
                })
                .collect();
            let claimed: Vec<_> = claims.into_iter().map(|thread| thread.join().unwrap()).collect();
            let taken: Vec<_> =
                takes.into_iter().filter_map(|thread| thread.join().unwrap().ok().flatten()).collect();
            (claimed, taken)
        });
        let mut paths: Vec<_> = claimed.iter().chain(&taken).map(|output| output.path().to_owned()).collect();
        paths.sort();
        let count = paths.len();
        paths.dedup();
        assert!(count >= 8 && paths.len() == count, "{paths:?}");
        drop((claimed, taken));
        fs::remove_dir_all(&runs).unwrap();
    }

    #[test]
    fn a_run_killed_before_it_wrote_its_recipe_can_be_resumed() {
        let path = std::env::temp_dir().join(format!("surgery-killed-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(".recipe.toml.tmp"), "[mod").unwrap();
        let prepare = |resume| Output::prepare(Some(&path), &[], resume, "report.json");
        assert!(prepare(true).unwrap().is_some());
        assert!(prepare(false).unwrap().is_none());
        // Any other file belongs to the user.
        fs::write(path.join("notes"), "mine").unwrap();
        assert!(prepare(true).is_err() && prepare(false).is_err());
        fs::remove_dir_all(&path).unwrap();
    }
}
