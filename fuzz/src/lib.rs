//! What the fuzz targets share: a folder to put hostile files into, and which panics are expected.

pub mod import;

use std::fs;
use std::path::{Path, PathBuf};

use surgery_core::files::Folder;
use surgery_core::{Kind, Result};

/// A golden model that has one file of weights, and one that has several and an index.
pub const SINGLE: &str = "llama1-mha";
/// The other.
pub const SHARDED: &str = "tinyllama-gqa";

/// A file of the golden models.
pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/models").join(path)
}

/// A folder of this process, which is made anew.
pub struct Scratch {
    path: PathBuf,
    /// The same, to read from.
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

    /// One with the files of a golden model.
    pub fn with_model(variant: &str) -> Self {
        let scratch = Self::new();
        for entry in fs::read_dir(golden(variant)).expect("a golden model") {
            let entry = entry.expect("a golden model");
            fs::copy(entry.path(), scratch.path.join(entry.file_name())).expect("a file can be copied");
        }
        scratch
    }

    /// Writes a file, anew: some file systems flush one that is cut and written over.
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

/// What was read, if anything; what was refused must be refused as bad input, and in words.
pub fn refused<T>(result: Result<T>) -> Option<T> {
    result
        .inspect_err(|error| {
            assert_eq!(error.kind(), Kind::Input, "{error}");
            assert!(!error.to_string().is_empty());
        })
        .ok()
}

/// Lets the panics of the tokenizer library pass, which become errors; every other one ends the process.
pub fn expect_guarded_panics() {
    let otherwise = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !surgery_core::text::is_guarded() {
            otherwise(panic);
        }
    }));
}
