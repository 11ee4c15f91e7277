//! Rules of this repository that no lint knows.

use std::fs;
use std::path::{Path, PathBuf};

/// Longer files are not read in one sitting.
const MOST_LINES: usize = 700;

/// Every file below `folder` of the repository with this extension, with its text.
fn files(folder: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let root = crate::root();
    let mut pending = vec![root.join(folder)];
    let mut files = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a readable folder");
            pending.extend(entries.map(|entry| entry.expect("a readable folder").path()));
        } else if path.extension().is_some_and(|other| other == extension) {
            let text = fs::read_to_string(&path).expect("text");
            files.push((path.strip_prefix(&root).expect("below the root").to_path_buf(), text));
        }
    }
    assert!(!files.is_empty(), "no .{extension} file in {folder}");
    files
}

fn sources() -> Vec<(PathBuf, String)> {
    let folders = ["crates", "datasets", "fuzz/src", "fuzz/targets", "tests", "xtask"];
    folders.into_iter().flat_map(|folder| files(folder, "rs")).collect()
}

#[test]
fn files_are_short_enough_to_read() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= MOST_LINES, "{} has {lines} lines; split it", path.display());
    }
}

#[test]
fn each_program_chooses_backends_in_one_file() {
    let may = [
        "crates/surgery-cli/src/backend.rs",
        "crates/surgery-bench/src/backend.rs",
        "tests/src/bin/parity.rs",
    ];
    // Written so that this file does not hold what it looks for.
    let needle = ["feature", " = \""].concat();
    for (path, text) in sources() {
        let chooses =
            ["ndarray", "wgpu", "cuda"].iter().any(|name| text.contains(&format!("{needle}{name}\"")));
        assert!(
            !chooses || may.iter().any(|place| path == Path::new(place)),
            "{} depends on a backend's feature",
            path.display()
        );
    }
}

#[test]
fn core_names_no_backend_and_prints_nothing() {
    let words = ["burn-ndarray", "burn-wgpu", "burn-cuda", "surgery-ndarray", "surgery-wgpu", "surgery-cuda"];
    for (path, text) in files("crates/surgery-core", "toml") {
        for word in words {
            assert!(!text.contains(word), "{} names {word}", path.display());
        }
    }
    for (path, text) in files("crates/surgery-core/src", "rs") {
        for word in ["println!", "print!", "dbg!", "std::net"] {
            assert!(!text.contains(word), "{} holds {word}", path.display());
        }
    }
}

/// What each block relies on, clippy asks for.
#[test]
fn only_kernels_and_drivers_are_unsafe() {
    let may = [
        "crates/surgery-ndarray/src/attention.rs",
        // A setting of the allocator.
        "crates/surgery-ndarray/src/buffer.rs",
        "crates/surgery-ndarray/src/gemm/",
        "crates/surgery-ndarray/src/simd.rs",
        // A library is loaded, to see whether it is there.
        "crates/surgery-cuda/src/lib.rs",
        // Another's kernels, to compare with.
        "crates/surgery-gemm/src/main.rs",
    ];
    // Written so that this file does not hold what it looks for.
    let needle = ["unsafe", "_code"].concat();
    for (path, text) in sources() {
        let is_unsafe = text.lines().any(|line| line.trim_start().starts_with('#') && line.contains(&needle));
        let shown = path.to_string_lossy().replace('\\', "/");
        let allowed = may.iter().any(|place| shown.starts_with(place));
        assert!(!is_unsafe || allowed, "{shown} allows unsafe code");
    }
}

#[test]
fn continuous_integration_runs_tasks_only() {
    for (path, text) in files(".github/workflows", "yml") {
        let runs = text.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("run: "));
        for command in runs {
            let is_task = command.starts_with("cargo xtask ") || command.starts_with("rustup ");
            assert!(is_task, "{} runs {command:?}; make it a task", path.display());
        }
    }
}
