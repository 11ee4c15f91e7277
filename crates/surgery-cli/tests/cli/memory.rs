//! What does not fit in memory is refused before it is loaded, with what would fit; the address space is limited by the
//! shell that starts the program.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::{data, golden, model, scratch, surgery};

/// Runs a command that may map so many KiB.
fn within(folder: &Path, limit: u64, arguments: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {limit}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_surgery")]);
    command.args(arguments).current_dir(folder).output().unwrap()
}

/// What a refusal says, after it has been held to be one.
#[track_caller]
fn refusal(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(6), "{errors}");
    for bad in ["allocation", "panic", "internal error"] {
        assert!(!errors.contains(bad), "{errors}");
    }
    errors
}

/// The MiB that a refusal says are missing.
fn missing(refusal: &str) -> u64 {
    let number = |before: &str| -> u64 {
        let (_, after) = refusal.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {refusal}"));
        after.split_whitespace().next().unwrap().parse().unwrap()
    };
    number("would fill ") - number("has room for ")
}

/// Gives a command as little as a process can start in, and then what each refusal says is missing, until it is no
/// longer refused: the last output, the limit in KiB, and the refusals.
#[track_caller]
fn climb(folder: &Path, arguments: &[&str]) -> (Output, u64, Vec<String>) {
    let mut limit = 120 << 10;
    let mut refusals = Vec::new();
    for _ in 0..4 {
        let output = within(folder, limit, arguments);
        if output.status.code() == Some(0) {
            return (output, limit, refusals);
        }
        let refused = refusal(&output);
        assert!(refused.contains("ulimit -v"), "{refused}");
        // Both figures are rounded.
        limit += (missing(&refused) + 2) << 10;
        refusals.push(refused);
    }
    panic!("still refused: {refusals:?}");
}

#[test]
fn a_run_is_refused_with_what_would_fit_and_completes_with_what_it_asked_for() {
    let folder = scratch("memory-run");
    let run = ["run", "--set", "train.documents_per_step=48", "--set", "train.steps=2", "-q"];
    // A small benchmark, for the time that its evaluation takes.
    let data = data();
    let run = [&run[..], &["--model", &model("llama1-mha"), "--data", &data]].concat();
    let (output, limit, refusals) = climb(&folder, &[&run[..], &["--output", "out"]].concat());
    assert!(!refusals.is_empty());
    assert_eq!(output.status.code(), Some(0));
    assert!(folder.join("out/model/model.safetensors").exists());
    assert!(limit < 64 << 20, "{limit} KiB: what was asked for is no more than it may be");
}
