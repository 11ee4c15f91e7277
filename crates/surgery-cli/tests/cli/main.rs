//! Tests of the binary: results, exit codes and output files of commands.

#[path = "../common/mod.rs"]
mod common;
mod documents;
#[cfg(target_os = "linux")]
mod dry_run;
mod findings;
#[cfg(target_os = "linux")]
mod long;
#[cfg(target_os = "linux")]
mod memory;
mod objectives;
mod reports;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(path)
}

fn golden_json(path: &str) -> Value {
    serde_json::from_slice(&fs::read(golden(path)).unwrap()).unwrap()
}

fn model(variant: &str) -> String {
    golden(&format!("models/{variant}")).to_str().unwrap().to_owned()
}

fn data() -> String {
    golden("steps/data").to_str().unwrap().to_owned()
}

/// An empty folder with this name for one test. Its commands run there.
fn scratch(name: &str) -> PathBuf {
    common::scratch("cli", name)
}

fn surgery(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_surgery")).args(arguments).current_dir(folder).output().unwrap()
}

/// Runs a command that must succeed, and returns its standard output.
#[track_caller]
fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let output = surgery(folder, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail with this code and name all of `named`, without a panic and without standard output.
#[track_caller]
fn fail(folder: &Path, arguments: &[&str], code: i32, named: &[&str]) {
    let output = surgery(folder, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert!(!errors.contains("panic") && !errors.contains("internal error"), "{errors}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed {:?}", String::from_utf8_lossy(&output.stdout));
    for named in named {
        assert!(errors.contains(named), "{arguments:?}: {errors:?} does not name {named:?}");
    }
}

#[track_caller]
fn assert_close(found: &Value, expected: &Value, relative: f64) {
    let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
    assert!((found - expected).abs() <= relative * expected.abs(), "found {found}, expected {expected}");
}

#[test]
fn a_run_leaves_what_the_contract_says() {
    let folder = scratch("run");
    let (model, data) = (model("llama1-mha"), data());
    let recipe = golden("steps/paper/recipe.toml");
    let arguments = [
        "run",
        recipe.to_str().unwrap(),
        "--model",
        &model,
        "--data",
        &data,
        "--output",
        "out",
        "--json",
        "-q",
    ];
    let printed: Value = serde_json::from_str(&succeed(&folder, &arguments)).unwrap();
    let out = folder.join("out");

    let report: Value = serde_json::from_slice(&fs::read(out.join("report.json")).unwrap()).unwrap();
    assert_eq!(printed, report);
    for key in ["train_seconds", "evaluate_seconds", "tokens_per_second", "peak_memory_bytes"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert_eq!(report["steps"], 6);
    for part in ["before", "after", "difference"] {
        for set in ["unlearn", "edit_unlearn", "edit_update", "retain", "retain_heldout"] {
            for key in ["mean", "corpus", "median"] {
                assert!(report[part]["perplexity"][set][key].is_number(), "{part} {set} {key}");
            }
            assert!(report[part]["accuracy"][set]["test"].is_number(), "{part} {set}");
        }
        assert!(report[part]["accuracy"]["general"]["test"].is_number(), "other questions are evaluated too");
    }
    assert_eq!(report["before"]["kl"]["retain"], 0.0);
    assert!(report["after"]["kl"]["retain"].as_f64().unwrap() > 0.0);
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("edit_update"));

    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = golden_json("steps/paper/expected.json");
    assert_eq!(lines.len(), 6);
    for (line, expected) in lines.iter().zip(expected["steps"].as_array().unwrap()) {
        for key in
            ["step", "loss", "unlearn", "edit_unlearn", "edit_update", "grad_norm", "learning_rate", "tokens"]
        {
            assert_close(&line[key], &expected[key], 1e-3);
        }
        assert!(line["retain_kl"].is_number() && line["seconds"].is_number());
    }

    // The resolved recipe reproduces the run, bit for bit.
    succeed(&folder, &["run", "out/recipe.toml", "--output", "again", "-q"]);
    let weights = |run: &str| fs::read(folder.join(run).join("model/model.safetensors")).unwrap();
    assert!(weights("out") == weights("again"), "the same recipe gave other weights");

    // The evaluation "after" equals one of the written model.
    let found = succeed(
        &folder,
        &["eval", "--model", "out/model", "--data", &data, "--reference", &model, "--json", "-q"],
    );
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found, report["after"]);

    // A folder with a run is refused, and so is an input folder.
    let again = ["run", "--model", &model, "--data", &data, "--output"];
    fail(&folder, &[&again[..], &["out"]].concat(), 3, &["out", "--output"]);
    fail(&folder, &[&again[..], &[&data]].concat(), 3, &["input folder"]);
    fail(&folder, &[&again[..], &["out/missing/.."]].concat(), 3, &["out/missing/.."]);
    // A folder that cannot be created is refused before any work.
    fs::write(folder.join("file"), "").unwrap();
    fail(&folder, &[&again[..], &["file/out"]].concat(), 8, &["file/out"]);
}

#[test]
fn a_run_of_no_steps_changes_nothing() {
    let folder = scratch("no-steps");
    let (model, data) = (model("llama2-bf16"), data());
    let arguments =
        ["run", "paper", "--model", &model, "--data", &data, "--set", "train.steps=0", "--json", "-q"];
    let report: Value = serde_json::from_str(&succeed(&folder, &arguments)).unwrap();
    assert_eq!(report["output"], "runs/0001");
    assert_eq!(report["before"], report["after"]);
    let read = |path: PathBuf| fs::read(path).unwrap();
    let written = read(folder.join("runs/0001/model/config.json"));
    assert!(written == read(Path::new(&model).join("config.json")));
}

#[test]
fn a_dry_run_prints_a_plan_and_writes_nothing() {
    let folder = scratch("dry-run");
    let (model, data) = (model("llama1-mha"), data());
    let arguments = ["run", "paper", "--model", &model, "--data", &data, "--dry-run", "--json"];
    let plan: Value = serde_json::from_str(&succeed(&folder, &arguments)).unwrap();
    assert_eq!(plan["recipe"]["train"]["steps"], 120);
    assert_eq!(plan["sets"][0]["set"], "unlearn");
    for key in ["memory_bytes", "train_seconds", "evaluate_seconds"] {
        assert!(plan[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn mid_run_evaluations_are_written() {
    let folder = scratch("mid-run");
    let (model, data) = (model("mqa"), data());
    let overrides = ["--set", "train.steps=4", "--set", "train.evaluate_every=2"];
    let arguments = ["run", "paper", "--model", &model, "--data", &data, "--output", "out", "-q"];
    succeed(&folder, &[&arguments[..], &overrides].concat());
    let text = fs::read_to_string(folder.join("out/evaluations.jsonl")).unwrap();
    let steps: Vec<Value> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["step"].clone()).collect();
    assert_eq!(steps, [2, 4]);
}

#[test]
fn score_prints_one_line_for_each_text_in_order() {
    let folder = scratch("score");
    for variant in ["smollm2-tied", "llama2-bf16"] {
        let expected = golden_json(&format!("expected/{variant}.json"));
        let texts = expected["texts"].as_array().unwrap();
        let lines: Vec<String> = texts
            .iter()
            .enumerate()
            .map(|(id, text)| serde_json::json!({ "id": id.to_string(), "text": text }).to_string())
            .collect();
        fs::write(folder.join("in.jsonl"), lines.join("\n")).unwrap();
        let printed = succeed(&folder, &["score", "--model", &model(variant), "--input", "in.jsonl", "-q"]);
        let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), texts.len());
        for (index, line) in lines.iter().enumerate() {
            assert_eq!(line["id"], index.to_string());
            assert_eq!(line["tokens"], expected["tokens"][index]);
            match expected["nll"][index].is_null() {
                true => assert!(line["nll"].is_null()),
                false => assert_close(&line["nll"], &expected["nll"][index], 1e-4),
            }
        }
    }
}

#[test]
fn generation_equals_that_of_transformers() {
    let folder = scratch("generate");
    for variant in ["llama32-tied", "mistral"] {
        let expected = golden_json(&format!("expected/{variant}.json"));
        let case = &expected["generate"][0];
        let prompt = case["prompt"].as_str().unwrap();
        let arguments =
            ["generate", "--model", &model(variant), "--prompt", prompt, "--max-new-tokens", "24", "--json"];
        let printed: Value = serde_json::from_str(&succeed(&folder, &arguments)).unwrap();
        assert_eq!(printed["tokens"], case["new_ids"], "{variant}");
    }
}

#[test]
fn pretraining_writes_a_model_that_loads() {
    let folder = scratch("pretrain");
    let documents = golden("pretrain/documents.jsonl");
    let recipe = format!(
        "[model]\nsource = {:?}\nfrom_scratch = true\n[data]\nfiles = [{:?}]\n[train]\nsteps = 3\ndocuments_per_step = 2\n",
        model("llama32-tied"),
        documents.to_str().unwrap()
    );
    fs::write(folder.join("recipe.toml"), recipe).unwrap();
    succeed(&folder, &["pretrain", "recipe.toml", "--output", "a", "-q"]);
    succeed(&folder, &["pretrain", "recipe.toml", "--output", "b", "-q"]);
    let weights = |run: &str| fs::read(folder.join(run).join("model/model.safetensors")).unwrap();
    assert!(weights("a") == weights("b"), "one seed, one result");
    succeed(&folder, &["pretrain", "recipe.toml", "--output", "c", "-q", "--set", "train.seed=7"]);
    assert!(weights("a") != weights("c"));
    assert_eq!(fs::read_to_string(folder.join("a/metrics.jsonl")).unwrap().lines().count(), 3);
    succeed(&folder, &["generate", "--model", "a/model", "--prompt", "The", "--max-new-tokens", "3"]);

    // Without a recipe, the model is trained further, in the dtype of its checkpoint.
    let files = format!("data.files=[{:?}]", documents.to_str().unwrap());
    let model = model("llama3-gqa");
    let arguments =
        ["pretrain", "--model", &model, "--set", &files, "--set", "train.steps=1", "--json", "-q"];
    let printed: Value = serde_json::from_str(&succeed(&folder, &arguments)).unwrap();
    assert_eq!(printed["steps"], 1);
}

#[test]
fn recipes_and_the_machine_are_described() {
    let folder = scratch("describe");
    let list = succeed(&folder, &["recipe", "ls"]);
    for name in ["default", "paper", "pretrain-embedded"] {
        assert!(list.contains(name));
        assert!(succeed(&folder, &["recipe", "show", name]).contains("[train]"));
    }
    let doctor: Value = serde_json::from_str(&succeed(&folder, &["doctor", "--json"])).unwrap();
    assert_eq!(doctor["default_backend"], "ndarray");
    assert!(succeed(&folder, &["completions", "bash"]).contains("surgery"));
    assert!(succeed(&folder, &["--help"]).contains("Exit codes"));
}

#[test]
fn usage_errors_end_in_2() {
    let folder = scratch("usage");
    fail(&folder, &["operate"], 2, &["operate"]);
    fail(&folder, &["run", "--backend", "tpu"], 2, &["tpu", "ndarray"]);
    fail(&folder, &["generate", "--prompt", "x", "--temperature", "nan"], 2, &["temperature"]);
    fail(&folder, &["recipe", "show", "nothing"], 2, &["nothing", "paper"]);
}

#[test]
fn an_unavailable_backend_ends_in_4() {
    let folder = scratch("backend");
    let (model, data) = (model("mqa"), data());
    let eval = ["eval", "--model", &model, "--data", &data];
    let doctor: Value = serde_json::from_str(&succeed(&folder, &["doctor", "--json"])).unwrap();
    for backend in
        doctor["backends"].as_array().unwrap().iter().filter(|backend| backend["compiled"] == false)
    {
        let (name, rebuild) = (backend["name"].as_str().unwrap(), backend["rebuild"].as_str().unwrap());
        assert!(rebuild.contains(&format!("--features {name}")));
        fail(&folder, &[&eval[..], &["--backend", name]].concat(), 4, &[name, rebuild]);
    }
    fail(&folder, &[&eval[..], &["--backend", "ndarray", "--device", "3"]].concat(), 4, &["device 3"]);
    let run = ["run", "paper", "--model", &model, "--data", &data, "--set", "model.precision=bf16"];
    fail(&folder, &[&run[..], &["--backend", "ndarray"]].concat(), 4, &["bf16", "f32"]);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "a refused run writes nothing");
}

/// A copy of the golden data folder with one file changed.
fn data_with(folder: &Path, name: &str, file: &str, content: Option<&str>) -> String {
    let target = folder.join(name);
    fs::create_dir_all(target.join("questions")).unwrap();
    for sub in ["", "questions"] {
        for entry in fs::read_dir(golden("steps/data").join(sub)).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                fs::copy(entry.path(), target.join(sub).join(entry.file_name())).unwrap();
            }
        }
    }
    match content {
        Some(content) => fs::write(target.join(file), content).unwrap(),
        None => fs::remove_file(target.join(file)).unwrap(),
    }
    target.to_str().unwrap().to_owned()
}

#[test]
fn bad_data_ends_in_3_and_names_file_and_line() {
    let folder = scratch("bad-data");
    let model = model("mqa");
    let good = r#"{"id": "a", "text": "A text."}"#;
    let question = r#""question": "Which?", "split": "test""#;
    let same = fs::read_to_string(golden("steps/data/unlearn.jsonl")).unwrap();
    let cases: Vec<(&str, Option<String>, &[&str])> = vec![
        ("unlearn.jsonl", Some(format!("{good}\n{{\"id\": 3")), &["line 2"]),
        ("unlearn.jsonl", Some(format!("{good}\n\n{{\"id\": \"b\"}}")), &["line 3", "text"]),
        ("unlearn.jsonl", Some(format!("{good}\n{good}")), &["line 2", "\"a\"", "line 1"]),
        ("unlearn.jsonl", Some(r#"{"id": "a", "text": " "}"#.into()), &["line 1", "empty"]),
        ("unlearn.jsonl", Some("\n".into()), &["no document"]),
        ("retain.jsonl", Some(same), &["same text", "retain"]),
        ("retain.jsonl", None, &["retain.jsonl", "missing", "objective.retain = 0"]),
        (
            "questions/unlearn.jsonl",
            Some(format!(r#"{{"id": "q", {question}, "options": ["x", "y"], "answer": 2}}"#)),
            &["line 1", "answer 2", "0 to 1"],
        ),
        (
            "questions/unlearn.jsonl",
            Some(format!(r#"{{"id": "q", {question}, "options": ["x"], "answer": 0}}"#)),
            &["line 1", "1 options"],
        ),
        (
            "questions/unlearn.jsonl",
            Some(format!(r#"{{"id": "q", {question}, "options": ["x", ""], "answer": 0}}"#)),
            &["line 1", "option 1", "empty"],
        ),
    ];
    for (number, (file, content, named)) in cases.into_iter().enumerate() {
        let data = data_with(&folder, &format!("data-{number}"), file, content.as_deref());
        let name = Path::new(file).file_name().unwrap().to_str().unwrap();
        let output = format!("out-{number}");
        let arguments = ["run", "paper", "--model", &model, "--data", &data, "--output", &output];
        fail(&folder, &arguments, 3, &[named, &[name]].concat());
        assert!(!folder.join(output).exists(), "case {number} wrote something");
    }
    fail(&folder, &["eval", "--model", &model, "--data", "nowhere"], 3, &["nowhere"]);
    fs::write(folder.join("latin1.jsonl"), b"{\"id\": \"a\", \"text\": \"caf\xE9\"}").unwrap();
    fail(
        &folder,
        &["score", "--model", &model, "--input", "latin1.jsonl"],
        3,
        &["latin1.jsonl", "line 1", "UTF-8"],
    );
    fail(&folder, &["score", "--model", &model, "--input", "none.jsonl"], 3, &["none.jsonl"]);
}

#[test]
fn lines_with_a_byte_order_mark_and_windows_line_ends_are_read() {
    let folder = scratch("windows-lines");
    let text = "\u{feff}{\"id\": \"a\", \"text\": \"A text.\"}\r\n{\"id\": \"b\", \"text\": \"\"}\r\n";
    fs::write(folder.join("in.jsonl"), text).unwrap();
    let printed = succeed(&folder, &["score", "--model", &model("llama1-mha"), "--input", "in.jsonl", "-q"]);
    let lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1], serde_json::json!({ "id": "b", "tokens": 0, "nll": null }));
}

#[test]
fn bad_recipes_and_models_end_in_3() {
    let folder = scratch("bad-recipes");
    let (model, data) = (model("mqa"), data());
    let run = ["run", "--model", &model, "--data", &data, "--output", "out"];
    let with = |more: &[&str]| -> Vec<String> {
        run.iter().chain(more).map(|argument| argument.to_string()).collect()
    };
    fs::write(folder.join("typo.toml"), "[train]\nsteps = 2\nsed = 1\n").unwrap();
    let cases: [(&[&str], &[&str]); 6] = [
        (&["typo.toml"], &["typo.toml", "sed", "line 3"]),
        (&["nothing.toml"], &["nothing.toml", "paper"]),
        (&["--set", "train.stepz=1"], &["stepz"]),
        (&["--set", "optimizer.schedule=exponential"], &["exponential", "cosine"]),
        (&["--set", "train.documents_per_step=0"], &["documents_per_step"]),
        (&["--set", "objective.ascent_model=embedded"], &["objective.ascent_model", "tokenizer", "none"]),
    ];
    for (more, named) in cases {
        let arguments = with(more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        fail(&folder, &arguments, 3, named);
    }
    assert!(!folder.join("out").exists());
    fail(&folder, &["eval", "--model", "no/such/model", "--data", &data], 3, &["no/such/model"]);
    fail(&folder, &["run", "--model", &data, "--data", &data], 3, &["config.json"]);

    // The tokenizer library panics at both of these. The program must not panic or show a caught panic.
    let broken = folder.join("tokenizer");
    fs::create_dir(&broken).unwrap();
    // The tokenizer.json of this model is used unchanged. Of other models, the normalizer is not even read.
    for entry in fs::read_dir(golden("models/llama3-gqa")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), broken.join(entry.file_name())).unwrap();
    }
    let tokenizer: Value = serde_json::from_slice(&fs::read(broken.join("tokenizer.json")).unwrap()).unwrap();
    let template = serde_json::json!({
        "type": "TemplateProcessing", "single": [{ "SpecialToken": { "id": "<nothing>", "type_id": 0 } }],
        "pair": [], "special_tokens": {},
    });
    let normalizer = serde_json::json!({ "type": "Precompiled", "precompiled_charsmap": "AAAA" });
    for (key, value) in [("post_processor", template), ("normalizer", normalizer)] {
        let mut tokenizer = tokenizer.clone();
        tokenizer[key] = value;
        fs::write(broken.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let arguments = ["generate", "--model", broken.to_str().unwrap(), "--prompt", "A text."];
        fail(&folder, &arguments, 3, &["tokenizer.json", "malformed"]);
    }
}

#[test]
fn a_diverging_run_ends_in_5_and_leaves_no_model() {
    let folder = scratch("diverge");
    let (model, data) = (model("mqa"), data());
    let overrides = ["--set", "optimizer.learning_rate=1e30", "--set", "train.steps=4"];
    let arguments = ["run", "paper", "--model", &model, "--data", &data, "--output", "out", "-q"];
    fail(&folder, &[&arguments[..], &overrides].concat(), 5, &["step", "learning_rate"]);
    assert!(!folder.join("out/model").exists());

    // No later step checks the update of the last step.
    let arguments = ["run", "paper", "--model", &model, "--data", &data, "--output", "last", "-q"];
    let overrides = ["--set", "optimizer.learning_rate=1e39", "--set", "train.steps=1"];
    fail(&folder, &[&arguments[..], &overrides].concat(), 5, &["step 1", "diverged"]);
    assert!(!folder.join("last/model").exists());
}

/// The default operation in the README: unlearn documents are gone, update documents are known, the rest does not change.
#[test]
fn the_default_operation_unlearns_updates_and_retains() {
    let folder = scratch("default");
    let report: Value = serde_json::from_str(&succeed(&folder, &["--json", "-q"])).unwrap();
    let accuracy = |part: &str, set: &str| report[part]["accuracy"][set]["test"].as_f64().unwrap();
    for set in ["unlearn", "edit_unlearn"] {
        assert!(accuracy("before", set) > 75.0, "{set} was known: {}", accuracy("before", set));
        assert!(accuracy("after", set) < 42.0, "{set} is unlearned: {}", accuracy("after", set));
    }
    assert!(accuracy("difference", "edit_update") > 50.0, "{}", accuracy("difference", "edit_update"));
    for set in ["retain", "retain_heldout"] {
        assert!(accuracy("difference", set) > -4.5, "{set} is retained: {}", accuracy("difference", set));
    }
    // Replay documents contain no question and no held-out text.
    let written = fs::read_to_string(folder.join("runs/0001/written.jsonl")).unwrap();
    assert_eq!(written.lines().count(), 1200);
    assert_eq!(report["texts_written"], 1200);
    let benchmark = concat!(env!("CARGO_MANIFEST_DIR"), "/../../datasets/benchmark");
    for line in fs::read_to_string(format!("{benchmark}/retain_heldout.jsonl")).unwrap().lines() {
        let document: Value = serde_json::from_str(line).unwrap();
        assert!(!written.contains(document["text"].as_str().unwrap()), "{line}");
    }
    for set in reports::SETS {
        let path = format!("{benchmark}/questions/{set}.jsonl");
        for line in fs::read_to_string(path).unwrap().lines() {
            let question: Value = serde_json::from_str(line).unwrap();
            let asked = question["question"].as_str().unwrap();
            assert!(!written.contains(asked), "{asked}");
        }
    }
    assert!(report["after"]["kl"]["retain"].as_f64().unwrap() < 0.05);
    assert!(folder.join("runs/0001/model/model.safetensors").exists());
    // A plan estimates the peak memory within 10 %.
    if cfg!(all(target_os = "linux", target_env = "gnu")) {
        let plan: Value = serde_json::from_str(&succeed(&folder, &["run", "--dry-run", "--json"])).unwrap();
        let [foreseen, taken] =
            [&plan["memory_bytes"], &report["peak_memory_bytes"]].map(|bytes| bytes.as_f64().unwrap());
        assert!((foreseen / taken - 1.0).abs() < 0.1, "foreseen {foreseen}, taken {taken}");
    }
}
