//! Tests of the card's script with programs that succeed, fail and hang, and of the stored record.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use serde_json::{Value, json};

use super::results::{file, read};
use super::{ARCHIVE, SCRIPT, lay_out, parse, programs, settings};

/// Creates an empty folder for a test.
fn scratch(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("surgery-card-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A card whose programs are shell scripts.
fn card(name: &str, settings: &str, programs: &[(&str, &str)]) -> PathBuf {
    let card = scratch(name);
    fs::write(card.join("run.sh"), SCRIPT).unwrap();
    fs::write(card.join("settings"), settings).unwrap();
    let place = card.join("programs");
    fs::create_dir(&place).unwrap();
    for (program, script) in programs {
        fs::write(place.join(program), format!("#!/usr/bin/env bash\n{script}\n")).unwrap();
    }
    let names = programs.iter().map(|(name, _)| name);
    let made = [
        Command::new("chmod").args(["-R", "+x"]).arg(&place).status().unwrap(),
        Command::new("tar")
            .arg("-cJf")
            .arg(card.join(ARCHIVE))
            .arg("-C")
            .arg(&place)
            .args(names)
            .status()
            .unwrap(),
    ];
    assert!(made.iter().all(ExitStatus::success));
    card
}

fn run(card: &Path, seconds: &str) -> Output {
    let mut command = Command::new("bash");
    command.arg(card.join("run.sh")).arg(card.join("out")).arg(seconds);
    command.env("PYTHON", card.join("programs/python")).env("CUDA_HOME", card.join("toolkit"));
    command.env_remove("CUDA_PATH").output().unwrap()
}

fn part<'a>(result: &'a Value, name: &str) -> &'a Value {
    let parts = result["parts"].as_array().unwrap();
    parts.iter().find(|part| part["part"] == name).unwrap_or_else(|| panic!("no part {name}: {result:#}"))
}

/// A report of the benchmark with the keys that are read.
fn report(peer: Value) -> Value {
    let evaluation = json!({"questions": 60, "seconds": 0.1});
    let step = json!({"seconds": 0.25, "memory_bytes": 4e8});
    let shape =
        json!({"shape": "1m", "step": step, "evaluation": evaluation, "floor": {"share": 0.5}, "peer": peer});
    json!({"precision": "f32", "shapes": [shape]})
}

const PEER: &str = r#"{"step_seconds": 0.5, "batched_evaluation_seconds": 0.3, "memory_bytes": 800000000}"#;

#[test]
#[cfg(target_os = "linux")]
fn a_part_that_fails_or_hangs_does_not_affect_the_others() {
    let doctor = json!({
        "backends": [{"name": "cuda", "devices": ["device 0: NVIDIA Card \"5\" \\ö, 70 GiB free"]}],
        "hub": {"endpoint": "somewhere"},
    });
    let bench = report(Value::Null);
    let beside = report(serde_json::from_str(PEER).unwrap());
    let card = card(
        "parts",
        "backend=cuda profile=dev commit=abc seconds=480 parity_limit=1 operation_limit=60\n\
         benches=(\"60 1m f32\" \"60 1m f32 peer\")",
        &[
            (
                "surgery",
                &format!(
                    "[ \"$1\" = doctor ] && echo '{doctor}' && exit\n\
                     mkdir \"${{@: -1}}\"; echo '{{\"step\":1}}' >\"${{@: -1}}/metrics.jsonl\"\n\
                     printf 'a \"quoted\" word\\tand \\\\ \\033[1mcolour\\n\\nno newline \\377' >&2; exit 5"
                ),
            ),
            ("parity", "echo \"golden values in $SURGERY_GOLDEN\"; sleep 60"),
            (
                "surgery-bench",
                &format!("case \"$*\" in *--peer*) echo '{beside}';; *) echo '{bench}';; esac"),
            ),
            ("python", "case \"$*\" in *torch*) echo '{\"torch\": \"2\"}';; esac"),
        ],
    );
    fs::create_dir_all(card.join("toolkit/include")).unwrap();
    fs::write(card.join("toolkit/include/cuda_runtime.h"), "").unwrap();
    let output = run(&card, "480");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let out = card.join("out");
    let result = read(&out).unwrap();
    assert_eq!(result["device"], "NVIDIA Card \"5\" \\ö");
    assert_eq!(result["commit"], "abc");
    assert_eq!(result["command"], "bash run.sh OUT 480");
    assert_eq!(result["machine"]["cuda_path"], "CARD/toolkit");
    assert!(part(&result, "doctor")["stdout"].get("hub").is_none());
    assert_eq!(part(&result, "doctor")["command"], "WORK/surgery doctor --json");
    let parity = part(&result, "parity");
    assert_eq!(parity["ended"], "stopped at its limit of 1 s");
    assert_eq!(parity["stdout"], json!(["golden values in CARD/golden"]));
    let operation = part(&result, "operation");
    assert_eq!(operation["ended"], "failed with exit code 5");
    let stderr = ["a \"quoted\" word\tand \\ [1mcolour", "", "no newline \u{fffd}"];
    assert_eq!(operation["stderr"], json!(stderr));
    assert_eq!(fs::read_to_string(out.join("metrics.jsonl")).unwrap(), "{\"step\":1}\n");
    assert_eq!(part(&result, "bench-1m-f32")["stdout"], bench);
    assert_eq!(part(&result, "bench-1m-f32-peer")["ended"], "done");
    let rows = [
        "| 1m, f32, a step | 250 ms | 500 ms | 2.00 |",
        "| 1m, f32, 60 questions | 600 a second | 200 a second | 3.00 |",
        "| 1m, f32, memory of a step | 400 MB | 800 MB | 2.00 |",
        "| 1m, f32, floor / step | 50 % |  |  |",
    ];
    assert_eq!(result["table"], json!(rows));

    // A second run does not overwrite the record.
    assert!(!run(&card, "480").status.success());
    assert_eq!(read(&out).unwrap(), result);

    // The record is stored once, under date and device.
    let root = card.join("repository");
    file(&root, &out).unwrap();
    let error = file(&root, &out).unwrap_err();
    assert!(error.contains("nvidia-card-5.json exists already"), "{error}");
    let filed =
        fs::read_dir(root.join("crates/surgery-bench/results")).unwrap().next().unwrap().unwrap().path();
    let filed: Value = serde_json::from_str(&fs::read_to_string(filed).unwrap()).unwrap();
    assert_eq!(filed, result);
    fs::remove_dir_all(card).unwrap();
}

#[test]
#[cfg(target_os = "linux")]
fn without_pytorch_or_time_the_rest_is_measured() {
    let quick = ("surgery", "echo '{}'");
    let settings = "backend=ndarray profile=dev commit=abc seconds=480 parity_limit=60 operation_limit=60\n\
                    benches=(\"60 1m f32 peer\")";
    let programs =
        [quick, ("parity", ""), ("surgery-bench", "echo '{}'"), ("python", "echo 'No module' >&2; exit 1")];
    let card = card("without", settings, &programs);
    assert!(run(&card, "480").status.success());
    let result = read(&card.join("out")).unwrap();
    assert_eq!(part(&result, "pytorch")["stderr"], json!(["No module"]));
    let skipped = "skipped: PyTorch is missing or does not run; see the part pytorch";
    assert_eq!(part(&result, "bench-1m-f32-peer")["ended"], skipped);
    assert_eq!(part(&result, "bench-1m-f32")["ended"], "done");

    fs::remove_dir_all(card.join("out")).unwrap();
    assert!(run(&card, "12").status.success());
    let result = read(&card.join("out")).unwrap();
    assert_eq!(part(&result, "parity")["ended"], "skipped: no time was left");
    assert_eq!(part(&result, "bench-1m-f32")["ended"], "skipped: no time was left");
    fs::remove_dir_all(card).unwrap();
}

/// Runs on the CPU with the programs that `cargo xtask test` has built and with `surgery-gemm`, which continuous
/// integration builds first. If a program is missing, the test prints that it did not run.
#[test]
#[cfg(target_os = "linux")]
fn the_real_programs_are_measured() {
    let built = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_path_buf();
    if let Some(missing) = programs("ndarray").find(|program| !built.join(program).exists()) {
        println!("not run: {missing} is not built");
        return;
    }
    let card = scratch("programs");
    let settings = "backend=ndarray profile=dev commit=abc seconds=200 parity_limit=5 operation_limit=5\n\
                    benches=(\"120 1m f32\")";
    lay_out(&crate::root(), &built, &card, programs("ndarray"), settings).unwrap();
    assert!(run(&card, "200").status.success());
    let result = read(&card.join("out")).unwrap();
    assert_eq!(part(&result, "doctor")["stdout"]["backends"][2]["name"], "ndarray");
    let parity = part(&result, "parity");
    assert_eq!(parity["ended"], "stopped at its limit of 5 s");
    assert!(parity["stdout"][0].as_str().unwrap().starts_with("ndarray, in f32"), "{parity:#}");
    assert_eq!(part(&result, "operation")["ended"], "stopped at its limit of 5 s");
    assert_eq!(result["table"].as_array().unwrap().len(), 4, "{result:#}");
    fs::remove_dir_all(card).unwrap();
}

#[test]
fn the_output_of_an_interrupted_part_is_stored() {
    let folder = scratch("cut");
    let error = read(&folder).unwrap_err();
    assert!(error.contains("expected the record that run.sh leaves"), "{error}");
    fs::write(folder.join("card.jsonl"), "{\"part\":\"doctor\"}\n").unwrap();
    let error = read(&folder).unwrap_err();
    assert!(error.contains("line 1: expected {\"card\":1,…}"), "{error}");

    let head = r#"{"card":1,"date":"2026-01-02T03:04:05Z","backend":"cuda","cpu":"a CPU","folders":{}}"#;
    fs::write(folder.join("card.jsonl"), format!("{head}\n{{\"part\":\"doc")).unwrap();
    fs::write(folder.join("parity.stdout"), "one item\n").unwrap();
    let result = read(&folder).unwrap();
    assert_eq!(result["device"], "unknown device of cuda");
    assert_eq!(part(&result, "the record")["ended"], "its last line is cut");
    assert_eq!(part(&result, "parity")["ended"], "cut off with the script");
    assert_eq!(part(&result, "parity")["stdout"], json!(["one item"]));

    fs::write(folder.join("card.jsonl"), format!("{head}\nno JSON\n{{\"part\":\"doctor\"}}\n")).unwrap();
    let error = read(&folder).unwrap_err();
    assert!(error.contains("card.jsonl line 2"), "{error}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_card_is_for_cuda_unless_another_backend_is_named() {
    assert_eq!(parse(&[]), Ok(("cuda", "release")));
    assert_eq!(parse(&["--backend", "ndarray", "--profile", "dev"]), Ok(("ndarray", "dev")));
    for wrong in [&["--backend", "gpu"][..], &["--backend"], &["--files", "folder"]] {
        assert!(parse(wrong).unwrap_err().contains("is not an option"), "{wrong:?}");
    }
    let settings = settings("cuda", "release", "abc");
    assert!(
        settings.contains("seconds=480\n") && settings.contains("\"200 llama2-7b bf16 peer\"\n"),
        "{settings}"
    );
}
