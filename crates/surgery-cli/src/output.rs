//! Where a run writes: one folder, one run, one process at a time.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use surgery_core::files::{Folder, temporary};
use surgery_core::{Error, Result};

use crate::lock::{is_at, try_lock};

/// The file whose lock says that a process is at work in the folder.
const LOCK: &str = ".lock";
/// The file that every run writes first.
pub const RECIPE: &str = "recipe.toml";

/// The folder that an import fills before anything has its name.
pub const BEGUN_IMPORT: &str = ".import.tmp";
/// Where the output folders of runs are that were given none.
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

    /// Refuses, before any work that a refusal would waste, a folder that may not be written into. One to go on in
    /// (where `resume`; `last` is what a finished run has written last) is taken over at once; a new one is
    /// [claimed](Self::claim) when the inputs have proved sound.
    pub fn prepare(
        asked: Option<&Path>,
        inputs: &[&Folder],
        resume: bool,
        last: &str,
    ) -> Result<Option<Self>> {
        match asked.filter(|_| resume) {
            Some(path) => Self::take_over(path, inputs, last).map(Some),
            None => check_output(asked, inputs).map(|()| None),
        }
    }

    /// Makes the folder that a run writes into, after [`check_output`]: `asked`, or the next free `runs/NNNN`.
    pub fn claim(asked: Option<&Path>) -> Result<Self> {
        let Some(path) = asked else { return Self::claim_next(Path::new(RUNS)) };
        let output = Self::lock(path.to_path_buf())?;
        // Another run may have come first.
        match is_empty(output.path())? {
            true => Ok(output),
            false => Err(refused(output.path(), "is not empty")),
        }
    }

    /// Takes the folder of an unfinished run over, or makes it; `last` is what a finished run has written last.
    fn take_over(path: &Path, inputs: &[&Folder], last: &str) -> Result<Self> {
        refuse_unusable(path, inputs)?;
        let output = Self::lock(path.to_path_buf())?;
        if path.join(last).exists() {
            return Err(refused(path, "holds a finished run"));
        }
        if !path.join(RECIPE).exists() && !is_empty(path)? {
            return Err(refused(path, &format!("is no run's: it has files, and no {RECIPE} among them")));
        }
        Ok(output)
    }

    /// Makes the next folder `NNNN` in `runs` that nobody has.
    fn claim_next(runs: &Path) -> Result<Self> {
        fs::create_dir_all(runs).map_err(Error::write(runs))?;
        for number in 1.. {
            let path = runs.join(format!("{number:04}"));
            // Making it is what claims the name: a run beside this one gets the next.
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(source) => return Err(Error::Write { path, source }),
            }
            match Self::lock(path) {
                Ok(output) if is_empty(output.path())? => return Ok(output),
                // Another process writes into this very folder.
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
        // Better now than after the work: this needs a folder that can be written to.
        let lock = attempt().or_else(|error| match error.kind() {
            // Another process that made the folder has failed, and removed it again.
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
        // Only the lock counts; a file too many is no failure. One of another process is left alone.
        let at = self.path.join(LOCK);
        if is_at(&self.lock, &at).is_ok_and(|ours| ours) {
            let _ = fs::remove_file(at);
        }
    }
}

/// Refuses a folder that a new run may not or cannot write into: one that holds anything, an input folder, or one that
/// cannot be made. Nothing is written.
pub fn check_output(asked: Option<&Path>, inputs: &[&Folder]) -> Result<()> {
    let Some(path) = asked else { return refuse_unwritable(Path::new(RUNS)) };
    refuse_unusable(path, inputs)?;
    if path.join(RECIPE).exists() {
        return Err(Error::Output {
            path: path.to_path_buf(),
            problem: "holds a run already".into(),
            remedy: "give another folder with --output, or go on with an unfinished one with --resume".into(),
        });
    }
    if path.is_dir() && !is_empty(path)? {
        return Err(refused(path, "is not empty"));
    }
    refuse_unwritable(path)
}

/// Refuses a folder that is not writable or cannot be made, by the nearest folder above it that there is.
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

/// Whether the system lets this process make files in a folder: asked, not tried.
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
    // `a/..` is another folder before `a` is made than after.
    if path.ancestors().any(|ancestor| ancestor.ends_with("..") && !ancestor.is_dir()) {
        return Err(refused(path, "goes through a folder that is not there, and back by `..`"));
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

/// Whether a folder holds nothing but what a command killed before its first file had a name may leave: a lock, a recipe
/// that has no name yet, and an import that was not whole.
fn is_empty(path: &Path) -> Result<bool> {
    let begun = temporary(Path::new(RECIPE));
    let left = [Path::new(LOCK), &begun, Path::new(BEGUN_IMPORT)];
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
    fn starters_of_the_same_instant_get_a_folder_each() {
        let runs = std::env::temp_dir().join(format!("surgery-runs-{}", std::process::id()));
        let _ = fs::remove_dir_all(&runs);
        let (claimed, taken) = std::thread::scope(|scope| {
            let claims: Vec<_> = (0..8).map(|_| scope.spawn(|| Output::claim_next(&runs).unwrap())).collect();
            // Others write where the next one would.
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
    fn a_run_killed_before_its_recipe_had_a_name_can_be_gone_on_with() {
        let path = std::env::temp_dir().join(format!("surgery-killed-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(".recipe.toml.tmp"), "[mod").unwrap();
        let prepare = |resume| Output::prepare(Some(&path), &[], resume, "report.json");
        assert!(prepare(true).unwrap().is_some());
        assert!(prepare(false).unwrap().is_none());
        // Anything else is somebody's.
        fs::write(path.join("notes"), "mine").unwrap();
        assert!(prepare(true).is_err() && prepare(false).is_err());
        fs::remove_dir_all(&path).unwrap();
    }
}
