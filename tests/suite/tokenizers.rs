//! Tokenizer folders with contradictory files or with settings beyond tokenizer.json: read as in transformers, or
//! refused.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use surgery_core::Kind;
use surgery_core::files::Folder;
use surgery_core::text::TextEncoder;
use surgery_tests::{golden, golden_json, ids};

/// More rows than any token here needs.
const ROWS: usize = 1000;

/// A folder with the tokenizer.json and config.json of a golden model and with these files; keys of config.json are
/// merged.
fn folder(name: &str, model: &str, files: &Value) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tokenizers").join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    for file in ["tokenizer.json", "config.json"] {
        fs::copy(golden(&format!("models/{model}/{file}")), path.join(file)).unwrap();
    }
    for (file, content) in files.as_object().unwrap() {
        let mut content = content.clone();
        if file == "config.json" {
            let mut config: Value = serde_json::from_slice(&fs::read(path.join(file)).unwrap()).unwrap();
            config.as_object_mut().unwrap().append(content.as_object_mut().unwrap());
            content = config;
        }
        fs::write(path.join(file), content.to_string()).unwrap();
    }
    path
}

#[test]
fn tokenizers_equal_those_of_transformers() {
    let cases = golden_json("expected/tokenizers.json");
    let cases = cases.as_array().unwrap();
    assert!(cases.len() > 20);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let path = folder(name, case["model"].as_str().unwrap(), &case["files"]);
        let encoder =
            TextEncoder::load(&Folder::Disk(path), ROWS).unwrap_or_else(|error| panic!("{name}: {error}"));
        for text in case["texts"].as_array().unwrap() {
            let content = text["text"].as_str().unwrap();
            assert_eq!(encoder.encode(content).unwrap(), ids(&text["ids"]), "{name}: {content:?}");
            let decoded = encoder.decode(&ids(&text["ids"])).unwrap();
            assert_eq!(decoded, text["decoded"].as_str().unwrap(), "{name}: {content:?}");
        }
        // transformers follows tokenizer.json; the contradictory key is reported.
        let ignored = ["file-as-it-is", "mistral"].contains(&name);
        assert_eq!(encoder.conflicts().len(), usize::from(ignored), "{name}: {:?}", encoder.conflicts());
        assert!(encoder.conflicts().iter().all(|conflict| conflict.contains("`add_prefix_space` is false")));
    }
}

#[test]
fn settings_that_contradict_the_tokenizer_are_refused_by_name() {
    let token = |id: &str| json!({ "added_tokens_decoder": { id: { "content": "<new>", "special": true } } });
    let cases = [
        ("id", "llama3-gqa", json!({ "tokenizer_config.json": token("900") }), vec!["<new>", "900", "303"]),
        (
            "legacy-id",
            "llama2-bf16",
            json!({ "tokenizer_config.json": { "tokenizer_class": "LlamaTokenizer" }, "added_tokens.json": { "<new>": 5 } }),
            vec!["added_tokens.json", "<new>", "5"],
        ),
        (
            "class",
            "llama3-gqa",
            json!({ "tokenizer_config.json": { "tokenizer_class": "BertTokenizer" } }),
            vec!["tokenizer_class", "BertTokenizer", "PreTrainedTokenizerFast"],
        ),
        (
            "named",
            "llama3-gqa",
            json!({ "tokenizer_config.json": { "bos_token": 3 } }),
            vec!["bos_token", "3"],
        ),
        (
            "not-a-token",
            "llama3-gqa",
            json!({ "tokenizer_config.json": { "eos_token": {} } }),
            vec!["eos_token"],
        ),
        (
            "decoder",
            "llama3-gqa",
            json!({ "tokenizer_config.json": { "added_tokens_decoder": { "303": "<new>" } } }),
            vec!["added_tokens_decoder"],
        ),
        (
            "extra",
            "llama3-gqa",
            json!({ "tokenizer_config.json": { "extra_special_tokens": "<new>" } }),
            vec!["extra_special_tokens", "<new>"],
        ),
        (
            "flag",
            "llama2-bf16",
            json!({ "tokenizer_config.json": { "tokenizer_class": "LlamaTokenizer", "add_prefix_space": "no" } }),
            vec!["add_prefix_space", "no"],
        ),
        (
            "list",
            "llama3-gqa",
            json!({ "special_tokens_map.json": [] }),
            vec!["special_tokens_map.json", "object"],
        ),
    ];
    for (name, model, files, named) in cases {
        let path = folder(&format!("refused-{name}"), model, &files);
        let error = TextEncoder::load(&Folder::Disk(path), ROWS).expect_err(name);
        assert_eq!(error.kind(), Kind::Input, "{name}: {error}");
        for part in named {
            assert!(error.to_string().contains(part), "{name}: {error} does not name {part:?}");
        }
    }
}
