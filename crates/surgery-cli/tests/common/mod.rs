//! Shared code of the test programs of the command line.

use std::fs;
use std::path::{Path, PathBuf};

/// An empty folder for one test of a test program.
pub fn scratch(program: &str, name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(program).join(name);
    if path.exists() {
        fs::remove_dir_all(&path).unwrap();
    }
    fs::create_dir_all(&path).unwrap();
    path
}
