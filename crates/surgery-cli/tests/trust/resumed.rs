//! A resumed run ends as an undisturbed one, whatever part of its state the recipe adds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{ends_in, golden, left, operation, resumption, scratch, signal, start, wait_for_lines};

#[test]
fn a_resumed_run_that_trains_a_part_of_the_model_has_the_same_results() {
    const DOWN: &str = "model.layers.0.mlp.down_proj.weight";
    let folder = scratch("frozen");
    let part = ["-q", "--set", "train.trainable=[\"model.layers.{0..0}.mlp.down_proj.weight\"]"];
    ends_in(0, &folder, &operation("undisturbed", &part));
    let child = start(&folder, &operation("frozen", &part));
    wait_for_lines(&folder.join("frozen/metrics.jsonl"), 12);
    signal(&child, "INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    ends_in(0, &folder, &resumption("frozen"));
    assert_eq!(left(&folder, "frozen"), left(&folder, "undisturbed"));

    let file = |path: &Path| fs::read(path.join("model.safetensors")).unwrap();
    let (before, after) = (file(Path::new(&golden("models/llama1-mha"))), file(&folder.join("frozen/model")));
    let (before, after) = (tensors(&before), tensors(&after));
    let changed: Vec<&String> = before.keys().filter(|name| before[*name] != after[*name]).collect();
    assert_eq!(changed, [DOWN]);
}

/// The bytes of each tensor of a safetensors file.
fn tensors(file: &[u8]) -> BTreeMap<String, &[u8]> {
    let (length, rest) = file.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    let header: BTreeMap<String, Value> = serde_json::from_slice(header).unwrap();
    let entries = header.into_iter().filter(|(name, _)| name != "__metadata__");
    let place = |entry: &Value, side: usize| entry["data_offsets"][side].as_u64().unwrap() as usize;
    entries.map(|(name, entry)| (name, &data[place(&entry, 0)..place(&entry, 1)])).collect()
}

#[test]
fn a_resumed_run_keeps_its_batches() {
    let folder = scratch("batches");
    // The number was chosen by the memory available at the time, which may differ now.
    let chosen = ["--set", "train.batch_tokens=48"];
    ends_in(0, &folder, &operation("undisturbed", &chosen));
    let child = start(&folder, &operation("out", &chosen));
    wait_for_lines(&folder.join("out/metrics.jsonl"), 7);
    signal(&child, "INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    // The recipe is given again, without the number.
    ends_in(0, &folder, &operation("out", &["--resume"]));
    assert_eq!(left(&folder, "out"), left(&folder, "undisturbed"));
    let recipe = fs::read_to_string(folder.join("out/recipe.toml")).unwrap();
    assert!(recipe.contains("batch_tokens = 48"), "{recipe}");

    let files = format!("data.files=[{:?}]", golden("pretrain/documents.jsonl"));
    let (model, steps) = (golden("models/llama1-mha"), "train.steps=100000");
    let pretrain = ["pretrain", "--model", &model, "--set", &files, "--output", "pre", "--set", steps];
    let pretrain = |more: &[&str]| [&pretrain[..], more].concat().iter().map(|word| (*word).into()).collect();
    let interrupted = |arguments: Vec<String>, lines: usize| {
        let child = start(&folder, &arguments);
        wait_for_lines(&folder.join("pre/metrics.jsonl"), lines);
        signal(&child, "INT");
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(130), "{}", String::from_utf8_lossy(&ended.stderr));
    };
    interrupted(pretrain(&chosen), 3);
    let done = fs::read_to_string(folder.join("pre/metrics.jsonl")).unwrap().lines().count();
    interrupted(pretrain(&["--resume"]), done + 3);
    // A given number must be the run's.
    let other = pretrain(&["--resume", "--set", "train.batch_tokens=49"]);
    assert!(ends_in(3, &folder, &other).contains("batch_tokens = 49"));
}

#[test]
fn a_resumed_run_keeps_its_dual_variable() {
    let folder = scratch("dual");
    let pdu = ["objective.forget=pdu", "objective.pdu.epsilon=0.01", "objective.pdu.rate=5.0"];
    let pdu = pdu.map(|setting| ["--set", setting]).concat();
    ends_in(0, &folder, &operation("undisturbed", &pdu));
    let child = start(&folder, &operation("out", &pdu));
    wait_for_lines(&folder.join("out/metrics.jsonl"), 12);
    signal(&child, "KILL");
    child.wait_with_output().unwrap();
    ends_in(0, &folder, &resumption("out"));
    assert_eq!(left(&folder, "out"), left(&folder, "undisturbed"));
    let metrics = fs::read_to_string(folder.join("out/metrics.jsonl")).unwrap();
    let lambdas = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lambdas: Vec<f64> = lambdas.map(|line| line["lambda"].as_f64().unwrap()).collect();
    assert!(lambdas.iter().any(|lambda| *lambda != lambdas[0]), "{lambdas:?}");
}
