//! `tokenizer.json`: files that the tokenizer library cannot read or panics at, replacements that lengthen texts without
//! limit, and tokens without a row.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Fault, SINGLE, edit, refuse_models};

const FILE: &str = "tokenizer.json";
/// A model whose tokenizer.json is used unchanged. From that of [`SINGLE`], as in transformers, only the vocabulary, the
/// merges and the post-processor are used.
const AS_IT_STANDS: &str = "mistral";

fn content(text: impl AsRef<[u8]> + 'static) -> Box<dyn Fn(&Path)> {
    Box::new(move |folder| fs::write(folder.join(FILE), &text).unwrap())
}

fn with(key: &'static str, value: Value) -> Box<dyn Fn(&Path)> {
    changed(move |tokenizer| drop(tokenizer.insert(key.into(), value.clone())))
}

fn changed(change: impl Fn(&mut Map<String, Value>) + 'static) -> Box<dyn Fn(&Path)> {
    Box::new(move |folder| edit(folder, FILE, &change))
}

fn template(single: Value, special: Value) -> Value {
    json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": special})
}

/// `part` nested `depth` times.
fn nested(part: &str, key: &str, depth: usize) -> Value {
    (0..depth).fold(
        Value::Null,
        |inner, _| json!({"type": part, key: if inner.is_null() { vec![] } else { vec![inner] }}),
    )
}

#[test]
fn files_that_are_not_a_tokenizer_are_refused() {
    let faults = || -> Vec<Fault> {
        vec![
            ("missing", Box::new(|folder| fs::remove_file(folder.join(FILE)).unwrap()), &[FILE]),
            (
                "sentencepiece",
                Box::new(|folder| {
                    fs::rename(folder.join(FILE), folder.join("tokenizer.model")).unwrap();
                }),
                &["tokenizer.model", "SentencePiece"],
            ),
            ("empty", content(""), &[FILE]),
            ("cut", content("{\"version\": \"1.0\", "), &[FILE]),
            ("list", content("[]"), &[FILE]),
            ("object", content("{}"), &[FILE]),
            ("latin1", content(b"{\"caf\xe9\": 1}"), &[FILE]),
            ("deep", content("{\"model\":".repeat(1 << 18)), &[FILE]),
            ("deep-normalizer", with("normalizer", nested("Sequence", "normalizers", 500)), &[FILE]),
            ("version", with("version", json!("9.0")), &[FILE]),
            ("no-model", changed(|tokenizer| drop(tokenizer.remove("model"))), &[FILE]),
            ("model-type", changed(|tokenizer| tokenizer["model"]["type"] = json!("Oracle")), &[FILE]),
            ("merge", changed(|tokenizer| tokenizer["model"]["merges"] = json!([["not", "there"]])), &[FILE]),
            ("id-negative", changed(|tokenizer| tokenizer["model"]["vocab"]["a"] = json!(-1)), &[FILE]),
            ("id-large", changed(|tokenizer| tokenizer["model"]["vocab"]["a"] = json!(1u64 << 40)), &[FILE]),
        ]
    };
    refuse_models("tokenizer-files", AS_IT_STANDS, faults());
    refuse_models("tokenizer-files-rebuilt", SINGLE, faults());
    let faults: Vec<Fault> = vec![
        (
            "regex",
            with(
                "pre_tokenizer",
                json!({"type": "Split", "pattern": {"Regex": "(("},
            "behavior": "Isolated", "invert": false}),
            ),
            &[FILE],
        ),
        (
            "regex-bomb",
            with(
                "pre_tokenizer",
                json!({"type": "Split", "pattern": {"Regex": "(((a{1000}){1000}){1000})"},
            "behavior": "Isolated", "invert": false}),
            ),
            &[FILE],
        ),
    ];
    refuse_models("tokenizer-regex", AS_IT_STANDS, faults);
}

#[test]
fn files_that_the_tokenizer_library_panics_at_are_refused() {
    let unknown = json!([{"SpecialToken": {"id": "<nothing>", "type_id": 0}}]);
    let faults: Vec<Fault> = vec![
        ("template", with("post_processor", template(unknown, json!({}))), &[FILE, "malformed"]),
        (
            "charsmap",
            with("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
            &[FILE, "malformed"],
        ),
    ];
    refuse_models("tokenizer-panics", AS_IT_STANDS, faults);
}

#[test]
fn tokens_without_a_row_in_the_model_are_refused() {
    let shifted = |by: u64| {
        changed(move |tokenizer| {
            let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
            for id in vocabulary.values_mut() {
                *id = (id.as_u64().unwrap() + by).into();
            }
        })
    };
    let ids = |ids: &[u64]| {
        let special = json!({"<s>": {"id": "<s>", "ids": ids, "tokens": vec!["<s>"; ids.len()]}});
        template(
            json!([{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]),
            special,
        )
    };
    let faults: Vec<Fault> = vec![
        ("shifted", shifted(1000), &[FILE, "rows for 368 tokens"]),
        ("shifted-far", shifted(4_000_000_000), &[FILE, "rows for 368 tokens"]),
        ("one-beyond", with("post_processor", ids(&[368])), &[FILE, "token 368", "rows for 368 tokens"]),
        ("largest", with("post_processor", ids(&[u64::from(u32::MAX)])), &[FILE, "token 4294967295"]),
    ];
    refuse_models("tokenizer-ids", AS_IT_STANDS, faults);
}

#[test]
fn replacements_that_lengthen_texts_without_limit_are_refused() {
    let doubling = |part: &str, key: &str| {
        let replace = json!({"type": "Replace", "pattern": {"String": "e"}, "content": "ee"});
        json!({"type": part, key: vec![replace; 60]})
    };
    let long = json!({"type": "Replace", "pattern": {"Regex": ""}, "content": "x".repeat(1 << 20)});
    let faults: Vec<Fault> = vec![
        (
            "normalizer",
            with("normalizer", doubling("Sequence", "normalizers")),
            &[FILE, "`normalizer`", "times as long"],
        ),
        ("decoder", with("decoder", doubling("Sequence", "decoders")), &[FILE, "`decoder`", "times as long"]),
        ("long", with("normalizer", long), &[FILE, "`normalizer`", "times as long"]),
    ];
    refuse_models("tokenizer-growth", AS_IT_STANDS, faults);
}
