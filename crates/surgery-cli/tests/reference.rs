//! Tests of the binary with both forms of the reference: the results are the same, and its files are removed.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The report of a short run with this form of the reference, and the lines of its metrics.
fn run(folder: &Path, form: &str) -> (Value, Vec<Value>) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let output = Command::new(env!("CARGO_BIN_EXE_surgery"))
        .args(["run", "paper", "--output", form, "--json", "-q"])
        .args([
            "--set",
            "train.steps=4",
            "--set",
            "train.documents_per_step=2",
            "--set",
            "train.max_tokens=40",
        ])
        .args(["--set", &format!("train.reference={form}")])
        .arg("--model")
        .arg(golden.join("models/llama1-mha"))
        .arg("--data")
        .arg(golden.join("steps/data"))
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = serde_json::from_slice(&output.stdout).unwrap();
    let metrics = fs::read_to_string(folder.join(form).join("metrics.jsonl")).unwrap();
    (report, metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn both_forms_of_the_reference_give_the_same_run() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reference-forms");
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&folder).unwrap();
    let (cached, cached_steps) = run(&folder, "cached");
    let (live, live_steps) = run(&folder, "live");
    assert!(!folder.join("cached/reference").exists() && !folder.join("live/reference").exists());
    assert_eq!(cached["before"], live["before"]);
    let close = |what: &str, found: &Value, expected: &Value| {
        let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
        assert!((found - expected).abs() <= 1e-4 * expected.abs() + 1e-7, "{what}: {found} and {expected}");
    };
    for set in ["retain", "retain_heldout"] {
        close(set, &cached["after"]["kl"][set], &live["after"]["kl"][set]);
    }
    assert_eq!(cached_steps.len(), 4);
    for (found, expected) in cached_steps.iter().zip(&live_steps) {
        for key in ["loss", "retain_kl", "grad_norm"] {
            close(key, &found[key], &expected[key]);
        }
    }
}
