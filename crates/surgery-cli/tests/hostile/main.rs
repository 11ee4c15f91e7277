//! Hostile files: the binary refuses each with exit code 3 and by name, without a panic, quickly, and with little memory.

#[path = "../common/mod.rs"]
mod common;
mod config;
mod data;
mod index;
mod recipe;
mod tokenizer;
mod weights;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

/// Maximum time of a refusal. It takes far less, but the machine may be busy.
const SOON: Duration = Duration::from_secs(5);

/// The address space of a command in KiB, if the system can limit it. The program takes 100 MiB; the largest line that is
/// read takes 200 MiB.
const MEMORY: usize = 512 << 10;

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(path)
}

/// An empty folder with this name for one test. Its commands run there.
fn scratch(name: &str) -> PathBuf {
    common::scratch("hostile", name)
}

/// A golden model with one file of weights, and one with several files and an index.
const SINGLE: &str = "llama1-mha";
const SHARDED: &str = "tinyllama-gqa";

/// Copies a golden model to `folder`, which is created if it is missing.
fn copy_model(variant: &str, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for entry in fs::read_dir(golden(&format!("models/{variant}"))).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
}

/// Edits a file that is a JSON object.
fn edit(folder: &Path, file: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    let path = folder.join(file);
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(value.as_object_mut().unwrap());
    fs::write(path, value.to_string()).unwrap();
}

/// A change of a copy of a model, and the words that the refusal must contain.
type Fault<'a> = (&'a str, Box<dyn Fn(&Path)>, &'a [&'a str]);

/// A command that reads a whole model folder must refuse each fault.
#[track_caller]
fn refuse_models(test: &str, variant: &str, faults: Vec<Fault>) {
    let scratch = scratch(test);
    for (name, fault, named) in faults {
        let folder = scratch.join(name);
        copy_model(variant, &folder);
        fault(&folder);
        refuse(&scratch, name, &["generate", "--model", name, "--prompt", "A text."], named);
    }
}

/// Runs a command that must end with an input error.
#[track_caller]
fn refuse(folder: &Path, case: &str, arguments: &[&str], named: &[&str]) {
    let started = Instant::now();
    let output = bounded(env!("CARGO_BIN_EXE_surgery")).args(arguments).current_dir(folder).output().unwrap();
    let took = started.elapsed();
    let errors = String::from_utf8(output.stderr).expect("messages are UTF-8");
    assert_eq!(output.status.code(), Some(3), "{case}: {:?} {errors}", output.status);
    assert!(!errors.contains("panic") && !errors.contains("internal error"), "{case}: {errors}");
    assert!(output.stdout.is_empty(), "{case} printed {:?}", String::from_utf8_lossy(&output.stdout));
    assert!(errors.chars().count() < 5000, "{case}: a message of {} bytes", errors.len());
    let obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    assert!(!errors.contains(obeyed), "{case}: {errors:?} holds what a terminal obeys");
    for named in named {
        assert!(errors.contains(named), "{case}: {errors:?} does not name {named:?}");
    }
    assert!(took < SOON, "{case} took {took:?}");
}

/// A command with limited memory.
fn bounded(program: &str) -> Command {
    if !cfg!(target_os = "linux") {
        return Command::new(program);
    }
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {MEMORY} && exec \"$0\" \"$@\""), program]);
    command
}

/// The unchanged models are accepted, so the refusals above come from the changes.
#[test]
fn unchanged_models_are_accepted() {
    let folder = scratch("nothing");
    for variant in [SINGLE, SHARDED] {
        let model = golden(&format!("models/{variant}"));
        let arguments =
            ["generate", "--model", model.to_str().unwrap(), "--prompt", "A text.", "--max-new-tokens", "1"];
        let output =
            bounded(env!("CARGO_BIN_EXE_surgery")).args(arguments).current_dir(&folder).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
