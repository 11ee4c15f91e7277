//! What does not fit in memory is refused before it is loaded, with what would fit; the address space is limited by the
//! shell that starts the program.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
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
#[track_caller]
fn missing(refusal: &str) -> u64 {
    let number = |before: &str| -> u64 {
        let (_, after) = refusal.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {refusal}"));
        after.split_whitespace().next().unwrap().parse().unwrap()
    };
    number("would take ") - number("has room for ")
}

/// Gives a command little more than what a process can start in, and then what each refusal says is missing, until it
/// succeeds: the KiB that it then had, and the refusals.
#[track_caller]
fn climb(folder: &Path, arguments: &[&str]) -> (u64, Vec<String>) {
    // What a refusal cannot tell, for it sees no room at all: what the threads will reserve.
    let threads = std::thread::available_parallelism().unwrap().get() as u64 + 1;
    let mut limit = (40 + 66 * threads) << 10;
    let mut refusals = Vec::new();
    loop {
        let output = within(folder, limit, arguments);
        if output.status.code() == Some(0) {
            return (limit, refusals);
        }
        let refused = refusal(&output);
        assert!(refused.contains("ulimit -v") && refusals.len() < 8, "{refused} after {refusals:?}");
        // Both figures are rounded.
        limit += (missing(&refused) + 2) << 10;
        refusals.push(refused);
    }
}

/// A folder with what a model needs besides its weights, of a golden model's tokenizer and another shape.
pub(super) fn shape(folder: &Path, name: &str, changes: &Value) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir(&path).unwrap();
    let like = golden("models/llama1-mha");
    fs::copy(like.join("tokenizer.json"), path.join("tokenizer.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(like.join("config.json")).unwrap()).unwrap();
    let entries = config.as_object_mut().unwrap();
    entries.remove("head_dim");
    entries.extend(changes.as_object().unwrap().clone());
    fs::write(path.join("config.json"), config.to_string()).unwrap();
    path
}

/// A checkpoint of hundreds of gigabytes that takes no place.
fn giant(folder: &Path) -> String {
    let changes = json!({
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 1000, "vocab_size": 32000,
        "num_attention_heads": 32, "num_key_value_heads": 32, "tie_word_embeddings": true,
    });
    hollow(folder, "giant", &changes);
    folder.join("giant").to_str().unwrap().to_owned()
}

/// A checkpoint of a golden model's tokenizer and another shape, with as many key heads as query heads and a tied head.
/// It takes no place: its one file has a header and a hole.
pub(super) fn hollow(folder: &Path, name: &str, changes: &Value) {
    let path = shape(folder, name, changes);
    let size = |key: &str| changes[key].as_u64().unwrap();
    let (hidden, wide) = (size("hidden_size"), size("intermediate_size"));
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![size("vocab_size"), hidden])];
    for layer in 0..size("num_hidden_layers") {
        let mut add =
            |name: &str, shape: Vec<u64>| shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
        for name in ["input_layernorm", "post_attention_layernorm"] {
            add(name, vec![hidden]);
        }
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            add(&format!("self_attn.{name}"), vec![hidden, hidden]);
        }
        for name in ["gate_proj", "up_proj"] {
            add(&format!("mlp.{name}"), vec![wide, hidden]);
        }
        add("mlp.down_proj", vec![hidden, wide]);
    }
    shapes.push(("model.norm.weight".into(), vec![hidden]));
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in shapes {
        let start = end;
        end += 2 * shape.iter().product::<u64>();
        header.insert(name, json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] }));
    }
    let header = Value::Object(header).to_string();
    let mut file = File::create(path.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
}

#[test]
fn a_run_is_refused_until_it_has_what_it_asks_for() {
    let folder = scratch("memory-run");
    let (model, data) = (model("llama1-mha"), data());
    let run = ["run", "paper", "--model", &model, "--data", &data, "--output", "out", "-q"];
    let (limit, refusals) = climb(&folder, &[&run[..], &["--set", "train.steps=2"]].concat());
    assert!(!refusals.is_empty());
    assert!(folder.join("out/model/model.safetensors").exists());
    // No more was asked for than such a process may be expected to take.
    let threads = std::thread::available_parallelism().unwrap().get() as u64;
    assert!(limit < (300 + 66 * threads) << 10, "{limit} KiB");
}

#[test]
fn the_remedies_that_a_refusal_names_do_fit() {
    let folder = scratch("memory-remedies");
    let wider = json!({
        "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 4,
        "num_key_value_heads": 4,
    });
    shape(&folder, "shape", &wider);
    // Long texts of few questions: what a step keeps is most of what it takes.
    let line =
        |id: usize| json!({ "id": id.to_string(), "text": format!("{id} {}", "a long text ".repeat(60)) });
    let texts: Vec<String> = (0..16).map(|id| line(id).to_string()).collect();
    fs::write(folder.join("texts.jsonl"), texts.join("\n")).unwrap();
    let pretrain = ["pretrain", "--model", "shape", "-q", "--set", "model.from_scratch=true"];
    let pretrain =
        [&pretrain[..], &["--set", "data.files=[\"texts.jsonl\"]", "--set", "train.steps=2"]].concat();
    let pretrain = [&pretrain[..], &["--set", "train.documents_per_step=16"]].concat();
    // Left to the program, the batches become smaller until the step fits.
    let pretrain = [&pretrain[..], &["--set", "train.batch_tokens=1000000"]].concat();
    let (limit, refusals) = climb(&folder, &[&pretrain[..], &["--output", "whole"]].concat());
    let last = refusals.last().unwrap();
    assert!(last.contains("train.recompute = true"), "{last}");

    // A third less: each remedy that is named then completes.
    let less = limit - limit / 3;
    let refused = refusal(&within(&folder, less, &pretrain));
    let (_, named) = refused.split_once("would fit with ").unwrap_or_else(|| panic!("{refused}"));
    let remedies: Vec<String> =
        named.split('`').skip(1).step_by(2).map(|remedy| remedy.replace(' ', "")).collect();
    assert!(remedies.iter().any(|remedy| remedy == "train.recompute=true"), "{refused}");
    for (number, remedy) in remedies.iter().enumerate() {
        let output = format!("remedied-{number}");
        let with = [&pretrain[..], &["--set", remedy, "--output", &output]].concat();
        let done = within(&folder, less, &with);
        assert_eq!(done.status.code(), Some(0), "{remedy}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn commands_that_train_nothing_are_refused_too() {
    let folder = scratch("memory-others");
    let (one, data) = (model("llama1-mha"), data());
    fs::write(folder.join("in.jsonl"), r#"{"id": "a", "text": "A text."}"#).unwrap();
    let commands: [&[&str]; 5] = [
        &["eval", "--model", &one, "--data", &data],
        &["eval", "--model", &one, "--reference", &one, "--data", &data],
        &["score", "--model", &one, "--input", "in.jsonl"],
        &["generate", "--model", &one, "--prompt", "A text", "--max-new-tokens", "4"],
        &["compare", &one, &one, "--data", &data, "--output", "compared"],
    ];
    for command in commands {
        let (_, refusals) = climb(&folder, &[command, &["-q"]].concat());
        assert!(!refusals.is_empty(), "{command:?}");
    }
    let reproduce = ["reproduce", "--model", &one, "--base", &one, "--data", &data, "--output", "table"];
    let refused = refusal(&within(&folder, 120 << 10, &reproduce));
    assert!(refused.contains("the operation"), "{refused}");
    assert!(!folder.join("table").exists());
}

#[test]
fn a_long_prompt_takes_memory_in_proportion_to_its_length() {
    let folder = scratch("memory-prompt");
    let changes = json!({
        "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 32,
        "num_key_value_heads": 32, "head_dim": 4, "max_position_embeddings": 8192,
    });
    shape(&folder, "shape", &changes);
    fs::write(folder.join("texts.jsonl"), r#"{"id": "a", "text": "A text."}"#).unwrap();
    let files = "data.files=[\"texts.jsonl\"]";
    let pretrain = ["pretrain", "--model", "shape", "--output", "made", "-q", "--set", files];
    let fresh = ["--set", "model.from_scratch=true", "--set", "train.steps=0"];
    super::succeed(&folder, &[&pretrain[..], &fresh].concat());
    // Its scores alone would be 32 heads of some thousand tokens by as many: more than a gigabyte.
    let prompt = "a long text ".repeat(600);
    let generate = ["generate", "--model", "made/model", "--prompt", &prompt, "--max-new-tokens", "2", "-q"];
    let (limit, refusals) = climb(&folder, &[&generate[..], &["--json"]].concat());
    assert!(!refusals.is_empty());
    let threads = std::thread::available_parallelism().unwrap().get() as u64;
    assert!(limit < (400 + 66 * threads) << 10, "{limit} KiB");
}

#[test]
fn a_giant_is_refused_before_it_is_loaded() {
    let folder = scratch("memory-giant");
    let (giant, data) = (giant(&folder), data());
    let output = ["--output", "out"];
    let files = format!("data.files=[{:?}]", golden("pretrain/documents.jsonl").to_str().unwrap());
    for command in [
        &["run", "paper", "--model", &giant, "--data", &data][..],
        &["pretrain", "--model", &giant, "--set", "model.from_scratch=true", "--set", &files],
        &["eval", "--model", &giant, "--data", &data],
        &["generate", "--model", &giant, "--prompt", "A text"],
    ] {
        let output = if matches!(command[0], "run" | "pretrain") { &output[..] } else { &[] };
        let refused = refusal(&surgery(&folder, &[command, output].concat()));
        assert!(refused.contains("GiB") && refused.contains("smaller model"), "{refused}");
    }
    assert!(!folder.join("out").exists());
    // A plan of it is shown all the same.
    let plan = surgery(&folder, &["run", "paper", "--model", &giant, "--data", &data, "--dry-run", "--json"]);
    refusal(&plan);
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!((&plan["fits"], &plan["train_seconds"]), (&json!(false), &json!(null)));
    assert!(plan["memory_bytes"].as_f64().unwrap() > 1e12 && plan["memory_room_bytes"].is_number());
}
