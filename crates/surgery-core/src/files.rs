//! Input folders, on disk or embedded in the binary, and atomic writes of output files and folders.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// A file of an embedded folder: its name relative to the folder, with `/`, and its bytes.
pub type EmbeddedFile = (&'static str, &'static [u8]);

/// A folder to read from.
#[derive(Debug, Clone)]
pub enum Folder {
    /// A folder on disk.
    Disk(PathBuf),
    /// Files compiled into the binary.
    Embedded {
        /// The folder's name in messages.
        name: String,
        /// The files.
        files: Vec<EmbeddedFile>,
    },
}

/// Something that can be read from any position.
pub trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

impl Folder {
    /// The name of a file in messages; that of the folder if `file` is empty.
    pub fn label(&self, file: &str) -> String {
        match self {
            Folder::Disk(path) if file.is_empty() => path.display().to_string(),
            Folder::Disk(path) => path.join(file).display().to_string(),
            Folder::Embedded { name, .. } if file.is_empty() => name.clone(),
            Folder::Embedded { name, .. } => format!("{name}/{file}"),
        }
    }

    /// Whether the folder holds `file`.
    pub fn has(&self, file: &str) -> bool {
        match self {
            Folder::Disk(path) => path.join(file).is_file(),
            Folder::Embedded { files, .. } => files.iter().any(|(name, _)| *name == file),
        }
    }

    /// Whether the folder has a subfolder `sub`.
    pub fn has_folder(&self, sub: &str) -> bool {
        match self {
            Folder::Disk(path) => path.join(sub).is_dir(),
            Folder::Embedded { files, .. } => {
                files.iter().any(|(name, _)| name.strip_prefix(sub).is_some_and(|rest| rest.starts_with('/')))
            }
        }
    }

    /// The names of the files directly in `sub` (empty for the folder itself), sorted.
    pub fn list(&self, sub: &str) -> Result<Vec<String>> {
        let mut names = match self {
            Folder::Disk(path) => {
                let path = path.join(sub);
                let failed = |source| Error::Read { path: path.display().to_string(), source };
                let mut names = Vec::new();
                for entry in std::fs::read_dir(&path).map_err(failed)? {
                    let entry = entry.map_err(failed)?;
                    if entry.path().is_file() {
                        names.push(entry.file_name().to_string_lossy().into_owned());
                    }
                }
                names
            }
            Folder::Embedded { files, .. } => {
                let inside = |name: &'static str| match sub {
                    "" => Some(name),
                    _ => name.strip_prefix(sub).and_then(|rest| rest.strip_prefix('/')),
                };
                files
                    .iter()
                    .filter_map(|(name, _)| inside(name))
                    .filter(|name| !name.contains('/'))
                    .map(str::to_owned)
                    .collect()
            }
        };
        names.sort();
        Ok(names)
    }

    /// Opens `file` and returns its size in bytes.
    pub fn open(&self, file: &str) -> Result<(Box<dyn ReadSeek>, u64)> {
        let failed = |source| Error::Read { path: self.label(file), source };
        match self {
            Folder::Disk(path) => {
                let mut handle = File::open(path.join(file)).map_err(failed)?;
                let length = handle.seek(SeekFrom::End(0)).map_err(failed)?;
                handle.rewind().map_err(failed)?;
                Ok((Box::new(handle), length))
            }
            Folder::Embedded { files, .. } => {
                let (_, bytes) = files
                    .iter()
                    .find(|(name, _)| *name == file)
                    .ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
                Ok((Box::new(Cursor::new(*bytes)), bytes.len() as u64))
            }
        }
    }

    /// Reads `file`, and refuses more than `limit` bytes.
    pub fn read(&self, file: &str, limit: u64) -> Result<Vec<u8>> {
        let (handle, length) = self.open(file)?;
        let too_large = |size: String| Error::Data {
            path: self.label(file),
            problem: format!("has {size} bytes, more than the {limit} such a file may have"),
            remedy: "check that it is the right file".into(),
        };
        if length > limit {
            return Err(too_large(length.to_string()));
        }
        let mut bytes = Vec::with_capacity(length as usize);
        // A device, for instance, may hold more bytes than its length says.
        let mut handle = handle.take(limit.saturating_add(1));
        handle.read_to_end(&mut bytes).map_err(|source| Error::Read { path: self.label(file), source })?;
        match bytes.len() as u64 > limit {
            true => Err(too_large(format!("at least {}", bytes.len()))),
            false => Ok(bytes),
        }
    }

    /// Copies `file` into the folder `to` with [`write_atomically`], creating subfolders.
    pub fn copy(&self, file: &str, to: &Path) -> Result<()> {
        let bytes = self.read(file, u64::MAX)?;
        let path = to.join(file);
        create_parent(&path)?;
        write_atomically(&path, |writer| writer.write_all(&bytes))
    }

    /// The SHA-256 of `file` in hexadecimal digits.
    pub fn sha256(&self, file: &str) -> Result<String> {
        let failed = |source| Error::Read { path: self.label(file), source };
        let (mut handle, _) = self.open(file)?;
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
        loop {
            match handle.read(&mut buffer).map_err(failed)? {
                0 => return Ok(hex(&hash.finalize())),
                count => hash.update(&buffer[..count]),
            }
        }
    }

    /// Parses `file` as JSON. It may contain Python's `NaN` and `Infinity`; where such a value is used as a number,
    /// it is refused.
    pub fn json(&self, file: &str) -> Result<serde_json::Value> {
        crate::json::parse(&self.read(file, JSON_LIMIT)?).map_err(|error| Error::Data {
            path: self.label(file),
            problem: format!("is not valid JSON ({error})"),
            remedy: "restore the file from where the folder came from".into(),
        })
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Maximum size of a JSON file in bytes, since parsing takes many times the size in memory. An index of 100,000
/// tensors has 10 MB.
const JSON_LIMIT: u64 = 16 << 20;

/// Writes a text with [`write_atomically`].
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    write_atomically(path, |writer| writer.write_all(text.as_bytes()))
}

/// Writes `path` so that the name appears only when its content is on disk: writes a temporary file beside it, syncs
/// it, renames it, and syncs the folder.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut std::io::BufWriter<File>) -> std::io::Result<()>,
) -> Result<()> {
    let temporary = temporary(path);
    let attempt = || -> std::io::Result<()> {
        let mut writer = std::io::BufWriter::with_capacity(1 << 20, File::create(&temporary)?);
        write(&mut writer)?;
        writer.flush()?;
        writer.get_ref().sync_all()?;
        std::fs::rename(&temporary, path)?;
        sync_parent(path)
    };
    attempt().map_err(|source| {
        // A failure to remove the temporary file is ignored.
        let _ = std::fs::remove_file(&temporary);
        Error::Write { path: path.to_path_buf(), source }
    })
}

/// Writes the folder `path` so that the name appears only when all its content is on disk. `write` fills a temporary
/// folder beside it, which is then renamed to `path`. An existing folder `path` is renamed first and removed last, so
/// that at any moment the old or the new one is on disk. If the process ends in between, [`mend`] restores a
/// consistent state.
pub fn replace_folder(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let (temporary, previous) = (temporary(path), beside(path, PREVIOUS));
    remove_folder(&temporary)?;
    put_back(path, &previous)?;
    std::fs::create_dir_all(&temporary).map_err(Error::write(&temporary))?;
    write(&temporary).inspect_err(|_| {
        // A failure to remove the temporary folder is ignored.
        let _ = std::fs::remove_dir_all(&temporary);
    })?;
    // An empty folder can simply be removed.
    if std::fs::remove_dir(path).is_err() && path.exists() {
        std::fs::rename(path, &previous).map_err(Error::write(path))?;
    }
    rename(&temporary, path).inspect_err(|_| {
        let _ = std::fs::remove_dir_all(&temporary);
        let _ = put_back(path, &previous);
    })?;
    remove_folder(&previous)
}

/// Cleans `folder` after processes killed during [`write_atomically`], [`replace_folder`] or [`remove_folder`]: a
/// folder whose replacement was not completed gets its name back, and temporary files and folders are removed. No
/// other process may write there.
pub fn mend(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let failed = Error::write(folder);
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    for entry in entries.map_err(failed)? {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let Some((stem, ending)) = name.strip_prefix('.').and_then(|name| name.rsplit_once('.')) else {
            continue;
        };
        match ending {
            PREVIOUS => put_back(&folder.join(stem), &path)?,
            TEMPORARY | REMOVED if path.is_dir() => {
                std::fs::remove_dir_all(&path).map_err(Error::write(&path))?;
            }
            TEMPORARY => std::fs::remove_file(&path).map_err(Error::write(&path))?,
            _ => {}
        }
    }
    Ok(())
}

/// Renames `previous`, the folder that was to be replaced, back to `path`, or removes it if `path` exists.
fn put_back(path: &Path, previous: &Path) -> Result<()> {
    match (previous.exists(), path.exists()) {
        (false, _) => Ok(()),
        (true, false) => rename(previous, path),
        (true, true) => remove_folder(previous),
    }
}

/// Renames a file or folder durably.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).and_then(|()| sync_parent(to)).map_err(Error::write(to))
}

/// Creates the parent folder of `path` if it is missing.
pub fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new(""));
    if parent.as_os_str().is_empty() || parent.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(parent).and_then(|()| sync_parent(parent)).map_err(Error::write(parent))
}

/// Removes a folder if it exists. It is renamed before its files are deleted.
pub fn remove_folder(path: &Path) -> Result<()> {
    let doomed = beside(path, REMOVED);
    let attempt = || -> std::io::Result<()> {
        if !path.exists() {
            return Ok(());
        }
        if doomed.exists() {
            std::fs::remove_dir_all(&doomed)?;
        }
        std::fs::rename(path, &doomed)?;
        std::fs::remove_dir_all(&doomed)
    };
    attempt().map_err(Error::write(path))
}

/// Endings of temporary names: for files and folders being written, being removed, and being replaced.
const TEMPORARY: &str = "tmp";
const REMOVED: &str = "old";
const PREVIOUS: &str = "previous";

/// The temporary name of a file or folder while it is written.
pub fn temporary(path: &Path) -> PathBuf {
    beside(path, TEMPORARY)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    path.with_file_name(format!(".{}.{ending}", file_name(path)))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().trim_start_matches('.').to_owned()
}

/// Syncs the folder of `path`, which makes new names durable.
fn sync_parent(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => sync_folder(Path::new(".")),
        Some(folder) => sync_folder(folder),
        None => Ok(()),
    }
}

/// Syncs a folder, on systems that support it.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// A file's folder and its name there.
pub fn file_in_folder(path: &Path) -> (Folder, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    (Folder::Disk(path.parent().unwrap_or(Path::new("")).to_path_buf()), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates an empty folder.
    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("surgery-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Creates a folder with one file, named `content`.
    fn put(path: &Path, content: &str) {
        std::fs::create_dir_all(path).unwrap();
        std::fs::write(path.join("content"), content).unwrap();
    }

    fn content(path: &Path) -> String {
        std::fs::read_to_string(path.join("content")).unwrap()
    }

    /// The names in a folder, sorted.
    fn names(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_old_or_the_new_folder_exists_at_any_moment_of_a_replacement() {
        let scratch = scratch("replace");
        let path = scratch.join("model");
        for text in ["first", "second"] {
            replace_folder(&path, |folder| {
                put(folder, text);
                Ok(())
            })
            .unwrap();
            assert_eq!((content(&path).as_str(), names(&scratch)), (text, vec!["model".to_owned()]));
        }
        // A failed write leaves the old folder in place.
        let full = |folder: &Path| {
            Err(Error::Write { path: folder.into(), source: std::io::ErrorKind::StorageFull.into() })
        };
        assert!(replace_folder(&path, full).is_err());
        assert_eq!((content(&path).as_str(), names(&scratch)), ("second", vec!["model".to_owned()]));

        // Killed between the two renames, and killed after both.
        for (is_named, expected) in [(false, "old"), (true, "new")] {
            std::fs::remove_dir_all(&path).unwrap();
            put(&scratch.join(".model.previous"), "old");
            put(&scratch.join(if is_named { "model" } else { ".model.tmp" }), "new");
            mend(&scratch).unwrap();
            assert_eq!((content(&path).as_str(), names(&scratch)), (expected, vec!["model".to_owned()]));
        }
        // The next replacement also works without `mend`.
        std::fs::rename(&path, scratch.join(".model.previous")).unwrap();
        assert!(replace_folder(&path, full).is_err());
        assert_eq!((content(&path).as_str(), names(&scratch)), ("new", vec!["model".to_owned()]));
        std::fs::remove_dir_all(&scratch).unwrap();
    }

    #[test]
    fn mend_removes_leftovers_and_nothing_else() {
        let scratch = scratch("mend");
        put(&scratch.join(".a.tmp"), "half");
        put(&scratch.join(".b.old"), "half");
        std::fs::write(scratch.join(".c.json.tmp"), "{").unwrap();
        put(&scratch.join("d"), "whole");
        for name in [".hidden", "e.tmp", ".f.other"] {
            std::fs::write(scratch.join(name), "mine").unwrap();
        }
        mend(&scratch).unwrap();
        assert_eq!(names(&scratch), [".f.other", ".hidden", "d", "e.tmp"]);
        mend(&scratch.join("missing")).unwrap();
        std::fs::remove_dir_all(&scratch).unwrap();
    }
}
