//! Shared code of the fuzz targets: a folder for hostile files, and the expected panics.

pub mod import;

use std::fs;
use std::path::{Path, PathBuf};

use surgery_core::files::Folder;
use surgery_core::{Kind, Result};

/// A golden model with one weight file.
pub const SINGLE: &str = "llama1-mha";
/// A golden model with several weight files and an index.
pub const SHARDED: &str = "tinyllama-gqa";

/// A file of the golden models.
pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/models").join(path)
}

/// A folder of this process, created empty.
pub struct Scratch {
    path: PathBuf,
    /// The same folder, for reading.
    pub folder: Folder,
}

impl Scratch {
    /// An empty folder.
    pub fn new() -> Self {
        let name = format!("target/scratch/{}", std::process::id());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        if path.exists() {
            fs::remove_dir_all(&path).expect("its own folder can be removed");
        }
        fs::create_dir_all(path.join("questions")).expect("a folder can be made");
        Self { folder: Folder::Disk(path.clone()), path }
    }

    /// A folder with the files of a golden model.
    pub fn with_model(variant: &str) -> Self {
        let scratch = Self::new();
        for entry in fs::read_dir(golden(variant)).expect("a golden model") {
            let entry = entry.expect("a golden model");
            fs::copy(entry.path(), scratch.path.join(entry.file_name())).expect("a file can be copied");
        }
        scratch
    }

    /// Writes a new file. Some file systems flush a file that is truncated and overwritten.
    pub fn put(&self, file: &str, bytes: &[u8]) {
        let path = self.path.join(file);
        let _ = fs::remove_file(&path);
        fs::write(path, bytes).expect("a file can be written");
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// The value, if it was read. An error must be of kind `Input` and have a message.
pub fn refused<T>(result: Result<T>) -> Option<T> {
    result
        .inspect_err(|error| {
            assert_eq!(error.kind(), Kind::Input, "{error}");
            assert!(!error.to_string().is_empty());
        })
        .ok()
}

/// Ignores the panics of the tokenizer library that are converted into errors. Every other panic ends the process.
pub fn expect_guarded_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !surgery_core::text::is_guarded() {
            default(panic);
        }
    }));
}
