//! The benchmark and the models that are compiled into the binary, described in README.md.

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

/// The model that was trained on the benchmark's texts, θ_pre, as a Hugging Face folder.
pub fn model() -> Vec<File> {
    files(&MODEL)
}

/// The base model that θ_pre was trained from. It has never seen the people to unlearn or to edit.
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
