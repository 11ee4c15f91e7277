//! `model.safetensors`: wrong headers, truncated files, and files of other formats.

use std::fs::{self, File};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Fault, SINGLE, refuse_models};

const FILE: &str = "model.safetensors";
const NORM: &str = "model.norm.weight";
const DOWN: &str = "model.layers.0.mlp.down_proj.weight";

fn write(folder: &Path, bytes: impl AsRef<[u8]>) {
    fs::write(folder.join(FILE), bytes).unwrap();
}

/// The header of the file, and the data after it.
fn parts(folder: &Path) -> (String, Vec<u8>) {
    let bytes = fs::read(folder.join(FILE)).unwrap();
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (String::from_utf8(bytes[8..end].to_vec()).unwrap(), bytes[end..].to_vec())
}

fn join(header: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

/// Changes the header, but not the data.
fn header(change: impl Fn(&mut Map<String, Value>) + 'static) -> Box<dyn Fn(&Path)> {
    Box::new(move |folder| {
        let (header, data) = parts(folder);
        let mut header: Value = serde_json::from_str(&header).unwrap();
        change(header.as_object_mut().unwrap());
        write(folder, join(header.to_string(), &data));
    })
}

/// Changes a key of one tensor in the header.
fn tensor(name: &'static str, key: &'static str, value: Value) -> Box<dyn Fn(&Path)> {
    header(move |header| header[name][key] = value.clone())
}

/// Overwrites the last value of the file, which belongs to the norm.
fn last(value: f32) -> Box<dyn Fn(&Path)> {
    Box::new(move |folder| {
        let mut bytes = fs::read(folder.join(FILE)).unwrap();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&value.to_le_bytes());
        write(folder, bytes);
    })
}

/// A file with the header length `header` and `length` bytes, most of them a hole that takes no disk space.
fn sparse(header: u64, length: u64) -> Box<dyn Fn(&Path)> {
    Box::new(move |folder| {
        write(folder, header.to_le_bytes());
        File::options().write(true).open(folder.join(FILE)).unwrap().set_len(length).unwrap();
    })
}

fn content(bytes: impl AsRef<[u8]> + 'static) -> Box<dyn Fn(&Path)> {
    Box::new(move |folder| write(folder, &bytes))
}

#[test]
fn a_header_longer_than_the_file_is_refused() {
    let faults: Vec<Fault> = vec![
        ("empty", content([]), &[FILE, "0 bytes"]),
        ("short", content([1, 2, 3, 4, 5]), &[FILE, "5 bytes"]),
        ("bomb", content(u64::MAX.to_le_bytes()), &[FILE, "header of 18446744073709551615 bytes"]),
        ("one-less", Box::new(|folder| write(folder, &join("{}", &[])[..9])), &[FILE, "header of 2 bytes"]),
        ("longer", sparse(1000, 1007), &[FILE, "header of 1000 bytes"]),
        ("huge", sparse(100_000_001, 300_000_000), &[FILE, "header of 100000001 bytes"]),
        ("large-nothing", sparse(50_000_000, 300_000_000), &[FILE, "bad header"]),
        ("no-header", content(0u64.to_le_bytes()), &[FILE, "bad header"]),
        ("list", content(join("[]", &[])), &[FILE, "bad header"]),
        ("latin1", content(join(b"{\"\xe9\": 1}", &[])), &[FILE, "bad header"]),
        ("cut", content(join("{\"a\": {\"dtype\": \"F32\"", &[])), &[FILE, "bad header"]),
        ("deep", content(join("[".repeat(1 << 20), &[])), &[FILE, "bad header"]),
        (
            "deep-tensor",
            content(join(format!("{{\"a\": {}", "[".repeat(1 << 20)), &[])),
            &[FILE, "bad header", "`a`"],
        ),
        (
            "deep-metadata",
            content(join(format!("{{\"__metadata__\": {}", "[".repeat(1 << 20)), &[])),
            &[FILE, "__metadata__"],
        ),
        ("no-tensors", content(join("{}", &[])), &["model.embed_tokens.weight", "missing"]),
        (
            "folder",
            Box::new(|folder| {
                fs::remove_file(folder.join(FILE)).unwrap();
                fs::create_dir(folder.join(FILE)).unwrap();
            }),
            &["holds neither model.safetensors"],
        ),
        (
            "pickle-inside",
            content(*b"\x80\x02}q\x00X\x05\x00\x00\x00model"),
            &[FILE, "not a safetensors file"],
        ),
        (
            "zip-inside",
            content(*b"PK\x03\x04\x00\x00\x08\x08archive/data.pkl"),
            &[FILE, "not a safetensors file"],
        ),
        (
            "cloned-by-git",
            content("version https://git-lfs.github.com/spec/v1\n"),
            &[FILE, "not a safetensors"],
        ),
    ];
    refuse_models("headers", SINGLE, faults);
}

#[test]
fn entries_of_a_header_that_contradict_the_file_are_refused() {
    let faults: Vec<Fault> = vec![
        ("overlap", tensor(DOWN, "data_offsets", json!([0, 5376])), &[FILE, "starts at byte 0 and overlaps"]),
        ("same-place", tensor("lm_head.weight", "data_offsets", json!([35328, 70656])), &[FILE, "gap"]),
        ("reversed", tensor(DOWN, "data_offsets", json!([76128, 70752])), &[FILE, DOWN, "before it begins"]),
        ("beyond", tensor(NORM, "data_offsets", json!([0, 1u64 << 62])), &[FILE, NORM]),
        ("overflow", tensor(NORM, "data_offsets", json!([u64::MAX, u64::MAX])), &[FILE, NORM, "gap"]),
        (
            "wrapped",
            tensor("lm_head.weight", "data_offsets", json!([0, u64::MAX])),
            &[FILE, "lm_head.weight"],
        ),
        ("negative", tensor(NORM, "data_offsets", json!([-1, 96])), &[FILE, NORM]),
        ("one-offset", tensor(NORM, "data_offsets", json!([96])), &[FILE, NORM]),
        ("float-offset", tensor(NORM, "data_offsets", json!([0.5, 96])), &[FILE, NORM]),
        (
            "no-offsets",
            header(|header| drop(header[NORM].as_object_mut().unwrap().remove("data_offsets"))),
            &[FILE, NORM, "data_offsets"],
        ),
        ("shape-overflow", tensor(NORM, "shape", json!([1u64 << 63, 1u64 << 63])), &[FILE, NORM, "shape"]),
        ("shape-times-dtype", tensor(NORM, "shape", json!([1u64 << 62])), &[FILE, NORM, "shape"]),
        ("shape-of-none", tensor(NORM, "shape", json!([0, u64::MAX])), &[FILE, NORM, "shape"]),
        ("shape-too-large", tensor(NORM, "shape", json!([25])), &[FILE, NORM, "[25]"]),
        ("shape-negative", tensor(NORM, "shape", json!([-24])), &[FILE, NORM, "-24"]),
        ("shape-float", tensor(NORM, "shape", json!([24.5])), &[FILE, NORM]),
        ("shape-long", tensor(NORM, "shape", json!(vec![1; 100_000])), &[FILE, NORM, "shape"]),
        ("transposed", tensor(DOWN, "shape", json!([56, 24])), &[FILE, DOWN, "[24, 56]", "config.json"]),
        ("dtype-size", tensor(NORM, "dtype", json!("F64")), &[FILE, NORM, "F64"]),
        ("dtype-kind", tensor(NORM, "dtype", json!("I32")), &[FILE, NORM, "I32", "BF16"]),
        ("dtype-bits", tensor(NORM, "dtype", json!("F4")), &[FILE, NORM, "F4"]),
        ("dtype-unknown", tensor(NORM, "dtype", json!("F33")), &[FILE, NORM, "F33"]),
        ("dtype-long", tensor(NORM, "dtype", json!("F".repeat(1 << 20))), &[FILE, NORM]),
        ("not-an-object", header(|header| header[NORM] = json!(7)), &[FILE, NORM]),
        ("metadata", header(|header| header["__metadata__"] = json!({"format": 7})), &[FILE, "__metadata__"]),
        (
            "twice",
            Box::new(|folder| {
                let (header, data) = parts(folder);
                let twice = header.replacen("model.embed_tokens.weight", "lm_head.weight", 1);
                write(folder, join(twice, &data));
            }),
            &[FILE, "`lm_head.weight` occurs twice"],
        ),
        (
            "missing",
            header(|header| {
                let norm = header.remove(NORM).unwrap();
                header.insert("model.norm.wrong".into(), norm);
            }),
            &[NORM, "missing"],
        ),
        ("removed", header(|header| drop(header.remove(NORM))), &[FILE, "bytes of tensors"]),
        (
            "extra",
            header(|header| {
                let nothing = json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]});
                header.insert("model.layers.0.self_attn.q_proj.bias".into(), nothing);
            }),
            &["self_attn.q_proj.bias", "belongs to no parameter"],
        ),
        (
            "escape",
            header(|header| {
                let norm = header.remove(NORM).unwrap();
                header.insert("model.\u{1b}[2J\u{7}\r".into(), norm);
                header[DOWN]["dtype"] = json!("F32");
            }),
            &[NORM, "missing"],
        ),
        (
            "obeyed",
            header(|header| {
                let nothing = json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]});
                header.insert("extra.\u{1b}[2J\u{7}\r\u{9b}31m".into(), nothing);
            }),
            &["extra.", "belongs to no parameter"],
        ),
        (
            "long-name",
            header(|header| {
                let nothing = json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]});
                header.insert("x".repeat(1 << 20), nothing);
            }),
            &["xxxx"],
        ),
    ];
    refuse_models("tensors", SINGLE, faults);
}

#[test]
fn truncated_or_damaged_data_is_refused() {
    let ends_at = |change: fn(&mut Vec<u8>)| -> Box<dyn Fn(&Path)> {
        Box::new(move |folder| {
            let mut bytes = fs::read(folder.join(FILE)).unwrap();
            change(&mut bytes);
            write(folder, bytes);
        })
    };
    let faults: Vec<Fault> = vec![
        ("cut", ends_at(|bytes| bytes.truncate(bytes.len() - 5)), &[FILE, NORM, "bytes"]),
        ("cut-short", ends_at(|bytes| bytes.truncate(5000)), &[FILE, "lm_head.weight"]),
        ("cut-in-header", ends_at(|bytes| bytes.truncate(500)), &[FILE, "claims a header"]),
        ("more", ends_at(|bytes| bytes.extend([0; 3])), &[FILE, "bytes of tensors"]),
        ("nan", last(f32::NAN), &[FILE, NORM, "NaN", "element 23"]),
        ("infinite", last(f32::NEG_INFINITY), &[FILE, NORM, "-inf", "element 23"]),
    ];
    refuse_models("damaged", SINGLE, faults);
}

#[test]
fn pickles_are_never_loaded() {
    let renamed = |name: &'static str| -> Box<dyn Fn(&Path)> {
        Box::new(move |folder| fs::rename(folder.join(FILE), folder.join(name)).unwrap())
    };
    let faults: Vec<Fault> = vec![
        ("bin", renamed("pytorch_model.bin"), &["pytorch_model.bin", "pickle", "save_pretrained"]),
        (
            "shard",
            renamed("pytorch_model-00001-of-00002.bin"),
            &["pytorch_model-00001-of-00002.bin", "pickle"],
        ),
        ("pt", renamed("model.pt"), &["model.pt", "pickle"]),
        ("pth", renamed("consolidated.00.pth"), &["consolidated.00.pth", "pickle"]),
        ("ckpt", renamed("model.ckpt"), &["model.ckpt", "pickle"]),
        ("none", Box::new(|folder| fs::remove_file(folder.join(FILE)).unwrap()), &["holds neither", FILE]),
    ];
    refuse_models("pickles", SINGLE, faults);
}
