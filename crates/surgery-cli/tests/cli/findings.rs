//! Probable mistakes in the data are reported and counted, and do not stop a command.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{data, data_with, fail, golden, model, scratch, succeed, surgery};

/// A file of the golden data, with the lines `more` appended.
fn with_more(file: &str, more: &[Value]) -> String {
    let mut text = fs::read_to_string(golden("steps/data").join(file)).unwrap();
    more.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    text
}

/// The golden data with one mistake of each kind.
fn faulty(folder: &Path) -> String {
    let unlearn: Value = fs::read_to_string(golden("steps/data/unlearn.jsonl"))
        .unwrap()
        .lines()
        .next()
        .map(|line| serde_json::from_str(line).unwrap())
        .unwrap();
    let nearly = format!("As is well known: {}", unlearn["text"].as_str().unwrap().to_lowercase());
    let retain = with_more("retain.jsonl", &[json!({ "id": "near", "text": nearly })]);
    let data = data_with(folder, "data", "retain.jsonl", Some(&retain));
    let update =
        json!({ "id": "silent", "subject": "Zeno Quill", "text": "He is a potter, and lives by the sea." });
    fs::write(Path::new(&data).join("edit_update.jsonl"), with_more("edit_update.jsonl", &[update])).unwrap();
    let question = json!({
        "id": "unanswerable", "question": "Who?", "options": ["Xyzzy Plugh", "nobody"], "answer": 0, "split": "test",
    });
    let file = "questions/unlearn.jsonl";
    fs::write(Path::new(&data).join(file), with_more(file, &[question])).unwrap();
    faulty_to_read(&data);
    data
}

/// Adds mistakes that matter for an evaluation: unusable questions, and control tokens in texts.
fn faulty_to_read(data: &str) {
    let question = |id: &str, question: &str, options: [&str; 3]| json!({ "id": id, "question": question, "options": options, "answer": 1, "split": "test" });
    let file = "questions/general.jsonl";
    let more = [
        question("twice", "Which tree is it?", ["elm", "oak", " oak\u{200b}"]),
        question("long", &"tree ".repeat(300), ["elm", "oak", "ash"]),
        question("spelt", "Which tree is it?", ["elm", "oak</s>", "ash"]),
    ];
    fs::write(Path::new(data).join(file), with_more(file, &more)).unwrap();
    let file = "unlearn.jsonl";
    let more = [
        json!({ "id": "begun", "subject": "Zeno Quill", "text": "<s>Zeno Quill sells pots by the sea. [INST]" }),
    ];
    fs::write(Path::new(data).join(file), with_more(file, &more)).unwrap();
}

/// The findings about the mistakes of [`faulty_to_read`]: kind, file and a part of the message.
const TO_READ: [(&str, &str, &str); 5] = [
    ("equal_options", "questions/general.jsonl", "\"twice\": options 1 and 2 are \"oak\", one of them right"),
    (
        "question_beyond_context",
        "questions/general.jsonl",
        "longer, with an option, than the model's context of 256",
    ),
    ("control_token", "unlearn.jsonl", "that contain \"<s>\", a control token of this model (\"begun\")"),
    ("foreign_control_token", "unlearn.jsonl", "that contain \"[INST]\", a control token of other models"),
    (
        "control_token",
        "questions/general.jsonl",
        "that contain \"</s>\", a control token of this model (\"spelt\")",
    ),
];

/// The finding of a kind about a file.
#[track_caller]
fn finding<'a>(findings: &'a Value, kind: &str, file: &str) -> &'a Value {
    let is_it = |finding: &&Value| finding["kind"] == kind && finding["file"] == file;
    findings
        .as_array()
        .unwrap()
        .iter()
        .find(is_it)
        .unwrap_or_else(|| panic!("no {kind} in {file}: {findings}"))
}

#[test]
fn findings_are_reported_and_counted_and_stop_no_command() {
    let folder = scratch("findings");
    let (model, data) = (model("llama1-mha"), faulty(&folder));
    let arguments = ["run", "paper", "--model", &model, "--data", &data, "--set", "train.max_tokens=24"];
    let outputs = |more: &[&str]| {
        let output = surgery(&folder, &[&arguments[..], more].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{errors}");
        (String::from_utf8(output.stdout).unwrap(), errors)
    };
    let expected = [
        ("near_duplicate", "unlearn.jsonl", "nearly the same as one of retain.jsonl"),
        ("update_without_subject", "edit_update.jsonl", "\"silent\" about \"Zeno Quill\""),
        ("unpaired_edit", "edit_update.jsonl", "whose subject has no document in edit_unlearn.jsonl"),
        ("answer_not_in_text", "questions/unlearn.jsonl", "\"unanswerable\": \"Xyzzy Plugh\""),
        ("document_split", "retain.jsonl", "longer than a window of 24 tokens"),
    ];
    let expected = [&expected[..], &TO_READ].concat();
    let (plan, warnings) = outputs(&["--dry-run"]);
    let (json, _) = outputs(&["--dry-run", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let (report, warnings_of_run) = outputs(&["--output", "out", "--json", "--set", "train.steps=1"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    let page = fs::read_to_string(folder.join("out/report.html")).unwrap();
    assert!(page.contains("Problems in the data"));
    for (kind, file, message) in expected {
        let one = finding(&json["findings"], kind, file);
        assert!(one["count"].as_u64() >= Some(1), "{one}");
        assert_eq!(finding(&report["findings"], kind, file), one, "a run has the findings of a dry run");
        let warning = format!("warning: {file}: {} ", one["count"]);
        for warnings in [&warnings, &warnings_of_run] {
            let line = warnings.lines().find(|line| line.starts_with(&warning) && line.contains(message));
            assert!(line.is_some(), "{kind} in {warnings}");
        }
        let counted = format!("{file}: {} {}", one["count"], one["problem"].as_str().unwrap());
        assert!(plan.contains(&format!("finding: {counted}")), "{kind} in {plan}");
        let in_page =
            counted.replace('/', "&#x2f;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
        assert!(page.contains(&in_page.replace('\'', "&#x27;")), "{kind} in the page");
    }
    let split: u64 = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["kind"] == "document_split")
        .map(|finding| finding["count"].as_u64().unwrap())
        .sum();
    assert_eq!(report["documents_split"], split);
    let (_, quiet) = outputs(&["--dry-run", "-q"]);
    assert_eq!(quiet, "");
}

#[test]
fn every_command_that_reads_texts_checks_them() {
    let folder = scratch("read");
    let model = model("llama1-mha");
    let data = data_with(&folder, "data", "retain.jsonl", Some(&with_more("retain.jsonl", &[])));
    faulty_to_read(&data);
    let warned = |arguments: &[&str]| {
        let output = surgery(&folder, arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
        let all: Vec<String> =
            errors.lines().filter(|line| line.starts_with("warning: ")).map(str::to_owned).collect();
        all
    };
    let compare = ["compare", &model, &model, "--data", &data, "--output", "compared"];
    for arguments in [&["eval", "--model", &model, "--data", &data, "--json"][..], &compare] {
        let warnings = warned(arguments);
        assert_eq!(warnings.len(), TO_READ.len(), "{warnings:?}");
        for (_, file, message) in TO_READ {
            let begins = format!("warning: {file}: ");
            assert!(
                warnings.iter().any(|line| line.starts_with(&begins) && line.contains(message)),
                "{warnings:?}"
            );
        }
    }
    let report: Value =
        serde_json::from_slice(&fs::read(folder.join("compared/report.json")).unwrap()).unwrap();
    assert_eq!(report["findings"].as_array().unwrap().len(), TO_READ.len());

    let texts = [
        json!({ "id": "a", "text": "<s>pots and pans" }),
        json!({ "id": "b", "text": "pots</s> and <b>pans</b>" }),
        json!({ "id": "c", "text": "pots and pans" }),
    ];
    fs::write(folder.join("in.jsonl"), texts.map(|text| format!("{text}\n")).concat()).unwrap();
    let expected = [
        "warning: in.jsonl: 1 text(s) that contain \"</s>\", a control token of this model (\"b\")",
        "warning: in.jsonl: 1 text(s) that contain \"<s>\", a control token of this model (\"a\")",
    ];
    let pretrain = [
        "pretrain",
        "--model",
        &model,
        "--set",
        "data.files=[\"in.jsonl\"]",
        "--set",
        "train.steps=1",
        "--output",
        "p",
    ];
    for arguments in [&["score", "--model", &model, "--input", "in.jsonl"][..], &pretrain] {
        let warnings = warned(arguments);
        assert!(
            warnings.len() == 2
                && warnings.iter().zip(expected).all(|(line, expected)| line.starts_with(expected)),
            "{warnings:?}"
        );
    }
}

#[test]
fn replay_starts_from_the_eos_token_if_there_is_no_bos_token_and_is_refused_without_both() {
    let folder = scratch("bos");
    let (model, data) = (model("smollm2-tied"), data());
    let of = |model: &str, more: &[&str]| -> Vec<String> {
        let run = [
            "run",
            "paper",
            "--model",
            model,
            "--data",
            &data,
            "--set",
            "train.steps=1",
            "--set",
            "replay.documents=4",
            "--set",
            "replay.max_tokens=24",
            "--output",
            "out",
            "--json",
        ];
        run.iter().chain(more).map(|&argument| argument.to_owned()).collect()
    };
    let run = |model: &str, more: &[&str]| {
        surgery(&folder, &of(model, more).iter().map(String::as_str).collect::<Vec<_>>())
    };
    for more in [&["--dry-run"][..], &[]] {
        let output = run(&model, more);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(fs::read_to_string(folder.join("out/written.jsonl")).unwrap().lines().count(), 4);

    let copy = copy_of(&model, &folder);
    for file in ["config.json", "generation_config.json"] {
        let path = copy.join(file);
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        // If the key were missing, transformers' default would apply.
        for key in ["bos_token_id", "eos_token_id"] {
            config[key] = Value::Null;
        }
        fs::write(path, config.to_string()).unwrap();
    }
    for more in [&["--dry-run"][..], &[]] {
        let arguments = of("model", more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        fail(
            &folder,
            &arguments,
            3,
            &["`replay.documents`: must be 0 for this model: its tokenizer has no BOS token"],
        );
    }
}

#[test]
fn unlearn_documents_without_a_subject_are_reported_if_replay_is_enabled() {
    let folder = scratch("subjects");
    let data = data_with(
        &folder,
        "data",
        "unlearn.jsonl",
        Some(&with_more(
            "unlearn.jsonl",
            &[json!({ "id": "nobody's", "text": "The pots of the potter by the sea are blue." })],
        )),
    );
    let model = model("llama1-mha");
    let arguments = ["run", "paper", "--model", &model, "--data", &data, "--dry-run", "--json"];
    let replay = [&arguments[..], &["--set", "replay.documents=4"]].concat();
    let plan: Value = serde_json::from_str(&succeed(&folder, &replay)).unwrap();
    let found = finding(&plan["findings"], "forget_without_subject", "unlearn.jsonl");
    assert_eq!((&found["count"], &found["examples"]), (&json!(1), &json!(["\"nobody's\""])));
    let plan: Value = serde_json::from_str(&succeed(&folder, &arguments)).unwrap();
    assert!(!plan["findings"].to_string().contains("forget_without_subject"));
}

/// A copy of a model's folder.
fn copy_of(model: &str, folder: &Path) -> PathBuf {
    let copy = folder.join("model");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(model).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    copy
}

#[test]
fn a_text_to_unlearn_and_to_retain_is_refused_by_a_run_and_a_dry_run() {
    let folder = scratch("contradiction");
    let model = model("llama1-mha");
    for set in ["unlearn", "edit_unlearn"] {
        let same = fs::read_to_string(golden(&format!("steps/data/{set}.jsonl"))).unwrap();
        let line: Value = serde_json::from_str(same.lines().nth(1).unwrap()).unwrap();
        let kept = with_more("retain.jsonl", &[json!({ "id": "kept", "text": line["text"] })]);
        let data = data_with(&folder, set, "retain.jsonl", Some(&kept));
        let run = ["run", "paper", "--model", &model, "--data", &data, "--output", "out"];
        let named = [line["id"].as_str().unwrap(), "kept", "same text", "retain.jsonl"];
        fail(&folder, &run, 3, &named);
        fail(&folder, &[&run[..], &["--dry-run"]].concat(), 3, &named);
        assert!(!folder.join("out").exists());
        // With weight 0 for retain documents, there is no contradiction, but still a finding.
        let plan = [&run[..], &["--dry-run", "--json", "-q", "--set", "objective.retain=0"]].concat();
        let plan: Value = serde_json::from_str(&succeed(&folder, &plan)).unwrap();
        finding(&plan["findings"], "near_duplicate", &format!("{set}.jsonl"));
    }
}

#[test]
fn tokens_without_a_row_in_the_model_are_reported() {
    let folder = scratch("rows");
    let copy = copy_of(&model("llama1-mha"), &folder);
    let file = copy.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let config: Value = serde_json::from_slice(&fs::read(copy.join("config.json")).unwrap()).unwrap();
    let added = json!({
        "id": config["vocab_size"], "content": "<pad>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    });
    tokenizer["added_tokens"].as_array_mut().unwrap().push(added);
    fs::write(&file, tokenizer.to_string()).unwrap();
    let arguments = ["run", "paper", "--model", "model", "--data", &data(), "--dry-run", "--json"];
    let plan: Value = serde_json::from_str(&succeed(&folder, &arguments)).unwrap();
    let found = finding(&plan["findings"], "token_without_row", "tokenizer.json");
    assert_eq!(found["count"], 1);
    assert_eq!(found["examples"][0], format!("{}: \"<pad>\"", config["vocab_size"]));
}

#[test]
fn the_embedded_benchmark_has_no_findings() {
    let folder = scratch("no-findings");
    let output = surgery(&folder, &["--json", "run", "--dry-run"]);
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["findings"], json!([]));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("warning"));
}
