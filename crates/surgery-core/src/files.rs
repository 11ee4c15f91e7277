//! Where input files come from: a folder on disk, or one embedded in the binary; and how output files
//! are written so that a name never stands for half a file.

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
    /// Files compiled into the binary, under a name to show in messages.
    Embedded {
        /// What messages call the folder.
        name: String,
        /// The files.
        files: Vec<EmbeddedFile>,
    },
}

/// Something that can be read from any position.
pub trait ReadSeek: Read + Seek {}
impl<T: Read + Seek> ReadSeek for T {}

impl Folder {
    /// How messages name a file of this folder; the folder itself for an empty `file`.
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

    /// Opens `file` and says how many bytes it has.
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

    /// The whole of `file`, refused where it is larger than `limit` bytes.
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
        // What is no plain file, such as a device, may hold more than the length it tells.
        let mut handle = handle.take(limit.saturating_add(1));
        handle.read_to_end(&mut bytes).map_err(|source| Error::Read { path: self.label(file), source })?;
        match bytes.len() as u64 > limit {
            true => Err(too_large(format!("at least {}", bytes.len()))),
            false => Ok(bytes),
        }
    }

    /// Copies `file` into `to`, as [`write_atomically`] writes.
    pub fn copy(&self, file: &str, to: &Path) -> Result<()> {
        let bytes = self.read(file, u64::MAX)?;
        write_atomically(&to.join(file), |writer| writer.write_all(&bytes))
    }

    /// The SHA-256 of `file`, in hexadecimal.
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

    /// The whole of `file` as JSON: a configuration, or the index of a checkpoint. It may hold `NaN` and `Infinity`, as
    /// Python writes them; where one is used as a number, it is refused there.
    pub fn json(&self, file: &str) -> Result<serde_json::Value> {
        crate::json::parse(&self.read(file, JSON_LIMIT)?).map_err(|error| Error::Data {
            path: self.label(file),
            problem: format!("is not valid JSON ({error})"),
            remedy: "restore the file from where the folder came from".into(),
        })
    }
}

/// Bytes in hexadecimal, as checksums are written.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The largest JSON file that is read as such: it takes many times its size in memory. An index of a hundred
/// thousand tensors has 10 MB.
const JSON_LIMIT: u64 = 16 << 20;

/// Writes a text as [`write_atomically`] does.
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    write_atomically(path, |writer| writer.write_all(text.as_bytes()))
}

/// Writes `path` so that the name appears only once its content is on the disk: a temporary file beside
/// it, `write`, fsync, rename, fsync of the folder.
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
        // What is left behind is only the temporary file; that it cannot be removed adds nothing.
        let _ = std::fs::remove_file(&temporary);
        Error::Write { path: path.to_path_buf(), source }
    })
}

/// Writes the folder `path` so that the name appears only once all of it is on the disk: `write` fills a folder
/// beside it, which takes the name, and the place of a folder that had it.
pub fn replace_folder(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let temporary = temporary(path);
    remove_folder(&temporary)?;
    std::fs::create_dir_all(&temporary).map_err(Error::write(&temporary))?;
    write(&temporary).inspect_err(|_| {
        // What is left behind would only take room; that it cannot be removed adds nothing.
        let _ = std::fs::remove_dir_all(&temporary);
    })?;
    remove_folder(path)?;
    std::fs::rename(&temporary, path).and_then(|()| sync_parent(path)).map_err(Error::write(path))
}

/// Copies a folder and all in it, in the place of one that may be at `to`.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            let to = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                std::fs::create_dir(&to)?;
                copy(&entry.path(), &to)?;
            } else {
                std::fs::copy(entry.path(), &to)?;
                std::fs::File::open(&to)?.sync_all()?;
            }
        }
        Ok(())
    }
    replace_folder(to, |folder| copy(from, folder).map_err(Error::write(to)))
}

/// Removes a folder, if it is there; its name is gone before its files are.
pub fn remove_folder(path: &Path) -> Result<()> {
    let doomed = path.with_file_name(format!(".{}.old", file_name(path)));
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

/// What a file or folder is called until it is whole.
pub fn temporary(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}.tmp", file_name(path)))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().trim_start_matches('.').to_owned()
}

/// Makes the names in the folder of `path` last.
fn sync_parent(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) && folder.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_copied_with_all_in_it() {
        let scratch = std::env::temp_dir().join(format!("surgery-copy-{}", std::process::id()));
        let (from, to) = (scratch.join("from"), scratch.join("to"));
        std::fs::create_dir_all(from.join("0.10.0/device")).unwrap();
        std::fs::write(from.join("0.10.0/device/matmul.json.log"), "chosen").unwrap();
        std::fs::create_dir_all(&to).unwrap();
        std::fs::write(to.join("older"), "").unwrap();
        copy_folder(&from, &to).unwrap();
        let copied = std::fs::read_to_string(to.join("0.10.0/device/matmul.json.log")).unwrap();
        assert_eq!((copied.as_str(), to.join("older").exists()), ("chosen", false));
        std::fs::remove_dir_all(&scratch).unwrap();
    }
}
