//! A dry run refuses everything that a run refuses before it reads a weight, with the same exit code and message, and
//! writes nothing. It also estimates the time.

use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use super::{data, golden, model, scratch, succeed, surgery};

/// A copy of a golden model under another name, with other entries in its config.json.
fn changed(folder: &Path, name: &str, variant: &str, changes: &Value) {
    let (from, to) = (golden(&format!("models/{variant}")), folder.join(name));
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let mut config: Value = serde_json::from_slice(&fs::read(to.join("config.json")).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    fs::write(to.join("config.json"), config.to_string()).unwrap();
}

/// A copy of the golden data under another name, in which one file has another text.
fn changed_data(folder: &Path, name: &str, file: &str, text: &str) {
    let to = folder.join(name);
    fs::create_dir_all(to.join("questions")).unwrap();
    for sub in ["", "questions"] {
        for entry in fs::read_dir(golden("steps/data").join(sub)).unwrap().map(Result::unwrap) {
            if entry.path().is_file() {
                fs::copy(entry.path(), to.join(sub).join(entry.file_name())).unwrap();
            }
        }
    }
    fs::write(to.join(file), text).unwrap();
}

/// The exit code of a command, and the lines of its error message.
fn end(folder: &Path, arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    let output = surgery(folder, arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!errors.contains("internal error"), "{arguments:?}: {errors}");
    (
        output.status.code(),
        errors.lines().skip_while(|line| !line.starts_with("error")).map(str::to_owned).collect(),
    )
}

#[test]
fn a_dry_run_refuses_what_a_run_refuses() {
    let folder = scratch("refusals");
    changed(&folder, "deeper", "llama1-mha", &json!({ "num_hidden_layers": 7 }));
    changed(&folder, "wider", "llama1-mha", &json!({ "intermediate_size": 96 }));
    changed(&folder, "other", "llama1-mha", &json!({ "model_type": "gpt2" }));
    changed(&folder, "narrow", "mistral", &json!({ "sliding_window": 4 }));
    changed(&folder, "few", "llama1-mha", &json!({ "vocab_size": 10 }));
    changed(&folder, "pickled", "llama1-mha", &json!({}));
    fs::rename(folder.join("pickled/model.safetensors"), folder.join("pickled/pytorch_model.bin")).unwrap();
    changed(&folder, "mute", "llama1-mha", &json!({}));
    fs::remove_file(folder.join("mute/tokenizer.json")).unwrap();
    changed_data(&folder, "empty", "unlearn.jsonl", "");
    changed_data(&folder, "broken", "retain.jsonl", "{\"id\": \"a\", \"text\": \n");
    let asked =
        json!({ "id": "q", "question": "Which?", "options": ["a", "b"], "answer": 2, "split": "test" });
    changed_data(&folder, "unanswered", "questions/retain.jsonl", &asked.to_string());
    let first = fs::read_to_string(golden("steps/data/unlearn.jsonl")).unwrap();
    changed_data(&folder, "contradicting", "retain.jsonl", first.lines().next().unwrap());
    changed_data(&folder, "lacking", "unlearn.jsonl", "");
    fs::remove_file(folder.join("lacking/unlearn.jsonl")).unwrap();
    changed_data(
        &folder,
        "sound",
        "retain_heldout.jsonl",
        r#"{"id": "h", "text": "A text that is held out."}"#,
    );
    fs::create_dir(folder.join("taken")).unwrap();
    fs::write(folder.join("taken/recipe.toml"), "").unwrap();
    fs::create_dir(folder.join("full")).unwrap();
    fs::write(folder.join("full/notes"), "mine").unwrap();
    fs::write(folder.join("file"), "").unwrap();
    fs::write(folder.join("bad.toml"), "[train]\nstep = 3\n").unwrap();
    fs::write(folder.join("runs"), "a file instead of the folder of runs").unwrap();

    let (sound, data) = (model("llama1-mha"), data());
    let model = |name: &'static str| vec!["--model", name];
    let on_data = |name: &'static str| vec!["--data", name];
    let to = |name: &'static str| vec!["--output", name];
    let set = |item: &'static str| vec!["--set", item];
    let cases: Vec<(i32, Vec<&str>)> = vec![
        (3, set("train.step=3")),
        (3, set("train.steps=-1")),
        (3, set("objective.retain=-1")),
        (3, set("replay.max_tokens=0")),
        (3, set("train.trainable=[]")),
        (3, set("train.trainable=[\"model.layers.{7..9}.*\"]")),
        (4, set("model.precision=bf16")),
        (4, vec!["--device", "7"]),
        (3, model("nowhere")),
        (3, model("file")),
        (3, model("deeper")),
        (3, model("wider")),
        (3, model("other")),
        (3, model("narrow")),
        (3, model("few")),
        (3, model("pickled")),
        (3, model("mute")),
        (3, set("objective.ascent_model=nowhere")),
        (3, set("objective.ascent_model=deeper")),
        (3, set("objective.ascent_model=wider")),
        (3, set("objective.ascent_model=embedded")),
        (3, on_data("nowhere")),
        (3, on_data("empty")),
        (3, on_data("broken")),
        (3, on_data("unanswered")),
        (3, on_data("contradicting")),
        (3, on_data("lacking")),
        (3, to("taken")),
        (3, to("full")),
        (3, to("file")),
        (3, vec!["--data", "sound", "--output", "sound"]),
        (3, to("missing/..")),
        (8, to("file/out")),
        // The default folder is `runs`, which is a file here.
        (8, vec![]),
    ];
    let listing = || {
        let mut names: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = listing();
    for (code, case) in cases {
        let mut run = vec!["run", "paper"];
        for (option, value) in [("--model", sound.as_str()), ("--data", &data), ("--output", "new")] {
            if !(case.contains(&option) || case.is_empty() && option == "--output") {
                run.extend([option, value]);
            }
        }
        run.extend(&case);
        let ran = end(&folder, &run);
        assert_eq!(ran.0, Some(code), "{case:?}: {:?}", ran.1);
        assert!(!ran.1.is_empty(), "{case:?}");
        run.push("--dry-run");
        assert_eq!(end(&folder, &run), ran, "{case:?}");
        assert_eq!(listing(), before, "{case:?} left something");
    }
    let glob = ["--set", "train.trainable=[\"*\", \"model.layers.{7..9}.*\"]"];
    let (_, errors) =
        end(&folder, &[&["run", "paper", "--model", &sound, "--data", &data][..], &glob].concat());
    for named in ["train.trainable", "`model.layers.{7..9}.*`", "`model.layers.1.mlp.down_proj.weight`"] {
        assert!(errors.concat().contains(named), "{errors:?} does not name {named}");
    }
    let by_file = ["run", "bad.toml", "--model", &sound, "--data", &data, "--output", "new"];
    let ran = end(&folder, &by_file);
    assert_eq!(ran.0, Some(3));
    assert_eq!(end(&folder, &[&by_file[..], &["--dry-run"]].concat()), ran);
}

#[test]
fn a_dry_run_refuses_a_folder_without_write_permission() {
    use std::os::unix::fs::PermissionsExt;
    let folder = scratch("locked");
    let locked = folder.join("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::create_dir(locked.join("may")).is_ok() {
        println!("not run: this user may write everywhere");
        return;
    }
    let (model, data) = (model("llama1-mha"), data());
    for output in ["locked/out", "locked"] {
        let run = ["run", "paper", "--model", &model, "--data", &data, "--output", output];
        let ran = end(&folder, &run);
        assert_eq!(ran.0, Some(8), "{:?}", ran.1);
        assert_eq!(end(&folder, &[&run[..], &["--dry-run"]].concat()), ran);
    }
}

#[test]
fn a_dry_run_of_a_large_shape_takes_seconds() {
    let folder = scratch("large");
    // 1.2 GB of weights that nobody reads: a header, and a hole in the file.
    let changes = json!({
        "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24, "num_attention_heads": 16,
        "num_key_value_heads": 16, "head_dim": 64, "vocab_size": 32000, "tie_word_embeddings": true,
    });
    super::memory::hollow(&folder, "large", &changes);
    let data = data();
    let started = Instant::now();
    let arguments = ["run", "paper", "--model", "large", "--data", &data, "--dry-run", "--json"];
    let plan: Value = serde_json::from_str(&succeed(&folder, &arguments)).unwrap();
    let seconds = started.elapsed().as_secs_f64();
    assert!(
        plan["train_seconds"].as_f64().unwrap() > 1.0 && plan["evaluate_seconds"].as_f64().unwrap() > 0.1
    );
    assert!(plan["time_basis"].as_str().unwrap().contains("stand-in"), "{plan}");
    // It takes 5 s on a busy machine with two cores. Timing the model's own head and blocks would take much longer.
    assert!(seconds < 30.0, "{seconds} s");
}
