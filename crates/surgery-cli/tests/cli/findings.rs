//! What may be wrong with the data is told, counted, and stops nothing.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{data, data_with, fail, golden, model, scratch, succeed, surgery};

/// A file of the golden data with `more` lines behind its own.
fn with_more(file: &str, more: &[Value]) -> String {
    let mut text = fs::read_to_string(golden("steps/data").join(file)).unwrap();
    more.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    text
}

/// The golden data with one fault of each kind that is in the data.
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
    data
}

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
fn findings_are_told_counted_and_stop_nothing() {
    let folder = scratch("findings");
    let (model, data) = (model("llama1-mha"), faulty(&folder));
    let arguments = ["run", "paper", "--model", &model, "--data", &data, "--set", "train.max_tokens=24"];
    let told = |more: &[&str]| {
        let output = surgery(&folder, &[&arguments[..], more].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{errors}");
        (String::from_utf8(output.stdout).unwrap(), errors)
    };
    let expected = [
        ("near_duplicate", "unlearn.jsonl", "nearly the same as one of retain.jsonl"),
        ("update_without_subject", "edit_update.jsonl", "\"silent\" about \"Zeno Quill\""),
        ("unpaired_edit", "edit_update.jsonl", "whose subject no document of edit_unlearn.jsonl has"),
        ("answer_not_in_text", "questions/unlearn.jsonl", "\"unanswerable\": \"Xyzzy Plugh\""),
        ("document_split", "retain.jsonl", "longer than a window of 24 tokens"),
    ];
    let (plan, warnings) = told(&["--dry-run"]);
    let (json, _) = told(&["--dry-run", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let (report, running) = told(&["--output", "out", "--json", "--set", "train.steps=1"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    let page = fs::read_to_string(folder.join("out/report.html")).unwrap();
    assert!(page.contains("What may be wrong with the data"));
    for (kind, file, told) in expected {
        let one = finding(&json["findings"], kind, file);
        assert!(one["count"].as_u64() >= Some(1), "{one}");
        assert_eq!(finding(&report["findings"], kind, file), one, "a run counts what a dry run counts");
        let warning = format!("warning: {file}: {} ", one["count"]);
        for warnings in [&warnings, &running] {
            let line = warnings.lines().find(|line| line.starts_with(&warning) && line.contains(told));
            assert!(line.is_some(), "{kind} in {warnings}");
        }
        let counted = format!("{file}: {} {}", one["count"], one["problem"].as_str().unwrap());
        assert!(plan.contains(&format!("finding: {counted}")), "{kind} in {plan}");
        assert!(page.contains(&counted.replace('/', "&#x2f;")), "{kind} in the page");
    }
    let split: u64 = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["kind"] == "document_split")
        .map(|finding| finding["count"].as_u64().unwrap())
        .sum();
    assert_eq!(report["documents_split"], split);
    let (_, quiet) = told(&["--dry-run", "-q"]);
    assert_eq!(quiet, "");
}

#[test]
fn a_text_that_must_go_and_stay_stops_a_run_and_its_plan() {
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
        // With no weight on what should stay there is no contradiction, but still something to be told.
        let plan = [&run[..], &["--dry-run", "--json", "-q", "--set", "objective.retain=0"]].concat();
        let plan: Value = serde_json::from_str(&succeed(&folder, &plan)).unwrap();
        finding(&plan["findings"], "near_duplicate", &format!("{set}.jsonl"));
    }
}

#[test]
fn tokens_that_the_model_cannot_read_are_told() {
    let folder = scratch("rows");
    let copy = folder.join("model");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(model("llama1-mha")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
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
