//! The benchmark and the models that are compiled into the binary. See README.md beside this crate for what
//! they are and how they were made.

use include_dir::{Dir, include_dir};

/// A file: its name relative to its folder, with `/`, and its bytes.
pub type File = (&'static str, &'static [u8]);

static BENCHMARK: Dir = include_dir!("$CARGO_MANIFEST_DIR/benchmark");
static BASE: Dir = include_dir!("$CARGO_MANIFEST_DIR/models/base");
static MODEL: Dir = include_dir!("$CARGO_MANIFEST_DIR/models/pre");

/// The data folder: documents and questions.
pub fn benchmark() -> Vec<File> {
    files(&BENCHMARK)
}

/// The model that knows the benchmark's texts, a Hugging Face folder.
pub fn model() -> Vec<File> {
    files(&MODEL)
}

/// The model that this one was made from, which has never seen the people to forget or to edit.
pub fn base() -> Vec<File> {
    files(&BASE)
}

fn files(folder: &'static Dir) -> Vec<File> {
    let mut found: Vec<File> = folder
        .files()
        .map(|file| (file.path().to_str().expect("names are ASCII"), file.contents()))
        .collect();
    found.extend(folder.dirs().flat_map(files));
    found
}
