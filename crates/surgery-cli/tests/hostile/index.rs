//! `model.safetensors.index.json`: shards outside the folder, missing shards, and shards with other tensors.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Fault, SHARDED, edit, refuse_models};

const FILE: &str = "model.safetensors.index.json";
const NORM: &str = "model.norm.weight";
/// The message for a shard outside the model's folder.
const OWN: &str = "own folder";
const FIRST: &str = "model-00001-of-00003.safetensors";

/// Sets the shard of the norm in the index.
fn norm_in(shard: impl Into<Value>) -> Box<dyn Fn(&Path)> {
    let shard = shard.into();
    Box::new(move |folder| edit(folder, FILE, |index| index["weight_map"][NORM] = shard.clone()))
}

fn content(text: impl AsRef<[u8]> + 'static) -> Box<dyn Fn(&Path)> {
    Box::new(move |folder| fs::write(folder.join(FILE), &text).unwrap())
}

#[test]
fn shards_outside_the_models_folder_are_refused() {
    let faults: Vec<Fault> = vec![
        ("above", norm_in("../model-00001-of-00003.safetensors"), &[FILE, NORM, OWN]),
        ("far-above", norm_in("../../../../../../etc/passwd"), &[FILE, NORM, OWN]),
        ("absolute", norm_in("/etc/passwd"), &[FILE, NORM, OWN]),
        ("below", norm_in("shards/model.safetensors"), &[FILE, NORM, OWN]),
        ("through", norm_in("x/../model-00001-of-00003.safetensors"), &[FILE, NORM, OWN]),
        ("windows", norm_in("C:\\model.safetensors"), &[FILE, NORM, OWN]),
        ("backslash", norm_in("..\\model.safetensors"), &[FILE, NORM, OWN]),
        ("hidden", norm_in(".model.safetensors.tmp"), &[FILE, NORM, OWN]),
        ("dots", norm_in(".."), &[FILE, NORM, OWN]),
        ("nameless", norm_in(""), &[FILE, NORM, OWN]),
        ("no-name", norm_in(3), &[FILE, NORM, "names no file"]),
        ("many", norm_in(json!([FIRST])), &[FILE, NORM, "names no file"]),
        ("nul", norm_in("model\0.safetensors"), &[FILE, NORM, "missing"]),
        ("long", norm_in("x".repeat(1 << 20)), &[FILE, NORM, "xxxx"]),
        ("missing", norm_in("model-00004-of-00003.safetensors"), &[FILE, NORM, "00004", "missing"]),
        ("obeyed", norm_in("\u{1b}[2J"), &[FILE, NORM, "missing"]),
        (
            "removed",
            Box::new(|folder| fs::remove_file(folder.join(FIRST)).unwrap()),
            &[FILE, FIRST, "missing"],
        ),
    ];
    refuse_models("shards", SHARDED, faults);
}

#[test]
fn an_index_that_contradicts_its_shards_is_refused() {
    let copy = |folder: &Path| {
        fs::copy(folder.join(FIRST), folder.join("copy.safetensors")).unwrap();
    };
    let faults: Vec<Fault> = vec![
        ("elsewhere", norm_in(FIRST), &[FILE, NORM, "should be in", FIRST]),
        (
            "two-shards",
            Box::new(move |folder| {
                copy(folder);
                norm_in("copy.safetensors")(folder);
            }),
            &[FIRST, "is in copy.safetensors too"],
        ),
        (
            "unknown",
            Box::new(|folder| edit(folder, FILE, |index| index["weight_map"]["model.x"] = FIRST.into())),
            &[FILE, "model.x", "should be in"],
        ),
        ("not-a-shard", norm_in("config.json"), &["config.json", "claims a header"]),
        (
            "pickle",
            Box::new(|folder| {
                fs::write(folder.join("pytorch_model.bin"), b"\x80\x02}q\x00X\x05\x00\x00\x00model").unwrap();
                norm_in("pytorch_model.bin")(folder);
            }),
            &["pytorch_model.bin", "not a safetensors file"],
        ),
        (
            "cut-shard",
            Box::new(|folder| {
                let bytes = fs::read(folder.join(FIRST)).unwrap();
                fs::write(folder.join(FIRST), &bytes[..bytes.len() - 1]).unwrap();
            }),
            &[FIRST, "tensor `", "bytes"],
        ),
        (
            "swapped",
            Box::new(|folder| {
                fs::copy(folder.join("model-00002-of-00003.safetensors"), folder.join(FIRST)).unwrap();
            }),
            &["model-00002-of-00003.safetensors", FIRST, "too"],
        ),
        ("no-tensor", content(r#"{"weight_map": {}}"#), &["model.embed_tokens.weight", "missing"]),
        ("no-map", content(r#"{"metadata": {}}"#), &[FILE, "weight_map"]),
        ("list", content(r#"{"weight_map": []}"#), &[FILE, "weight_map"]),
        ("text", content(r#""weight_map""#), &[FILE, "weight_map"]),
        ("empty", content(""), &[FILE, "JSON"]),
        ("cut", content(r#"{"weight_map": {"#), &[FILE, "JSON"]),
        ("latin1", content(b"{\"\xe9\": 1}"), &[FILE, "JSON"]),
        ("deep", content("[".repeat(1 << 20)), &[FILE, "JSON"]),
        ("large", content(vec![b' '; 17 << 20]), &[FILE, "17825792 bytes"]),
    ];
    refuse_models("index", SHARDED, faults);
}
