//! Unchanged tensors are written back bit for bit; unreadable files are refused by name.

use std::fs;
use std::path::{Path, PathBuf};

use surgery_core::checkpoint::{Checkpoint, SaveDtype};
use surgery_core::config::LlamaConfig;
use surgery_core::files::Folder;
use surgery_core::model::Llama;
use surgery_core::platform::Platform;
use surgery_core::recipe::Precision;
use surgery_core::text::TextEncoder;
use surgery_core::{Kind, Result};
use surgery_tests::{Cpu, Infer, VARIANTS, golden, load, open};

/// Creates an empty folder for a test.
fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        fs::remove_dir_all(&path).unwrap();
    }
    fs::create_dir_all(&path).unwrap();
    path
}

fn copy_model(variant: &str, name: &str) -> PathBuf {
    let target = scratch(name);
    for entry in fs::read_dir(golden(&format!("models/{variant}"))).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
    }
    target
}

/// Every tensor of a folder: name, dtype, shape and bytes.
fn contents(folder: &Path) -> Vec<(String, String, Vec<usize>, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let bytes = fs::read(&path).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            found.extend(file.tensors().into_iter().map(|(name, view)| {
                (name, view.dtype().to_string(), view.shape().to_vec(), view.data().to_vec())
            }));
        }
    }
    found.sort();
    found
}

#[test]
fn every_variant_is_written_back_bit_for_bit() {
    for variant in VARIANTS {
        let (folder, _, _) = open(variant);
        let output = scratch(&format!("round-trip-{variant}"));
        let checkpoint = Checkpoint::open(&folder).unwrap();
        load(variant).save(&output, &folder, Some(&checkpoint), SaveDtype::Input).unwrap();
        let input = golden(&format!("models/{variant}"));
        assert_eq!(contents(&output), contents(&input), "{variant}");
        for entry in fs::read_dir(&input).unwrap() {
            let name = entry.unwrap().file_name();
            let (content, written) = (fs::read(input.join(&name)).unwrap(), output.join(&name));
            assert!(written.exists(), "{variant}: {name:?} written missing");
            let untied = variant == "tied-other-head" && name == "config.json";
            if !name.to_string_lossy().contains("safetensors") && !untied {
                assert_eq!(content, fs::read(written).unwrap(), "{variant}: {name:?}");
            }
        }
    }
}

/// transformers compares the head of a tied model with the embedding, and keeps a head that differs.
#[test]
fn a_head_that_differs_from_the_embedding_unties_the_model() {
    let (folder, config, _) = open("tied-other-head");
    assert!(!config.tie_word_embeddings);
    assert!(
        config.conflicts[0].contains("`tie_word_embeddings`")
            && config.conflicts[0].contains("`lm_head.weight`")
    );
    let output = Folder::Disk(scratch("untied"));
    let checkpoint = Checkpoint::open(&folder).unwrap();
    load("tied-other-head")
        .save(Path::new(&output.label("")), &folder, Some(&checkpoint), SaveDtype::Input)
        .unwrap();
    let (before, after) = (folder.json("config.json").unwrap(), output.json("config.json").unwrap());
    assert_eq!(
        (&before["tie_word_embeddings"], &after["tie_word_embeddings"]),
        (&true.into(), &false.into())
    );
    let again = LlamaConfig::load(&output).unwrap();
    assert_eq!((again.tie_word_embeddings, again.conflicts.len()), (false, 0));
    // A head equal to the embedding is no conflict.
    let (_, tied, _) = open("tied-extra-head");
    assert!(tied.tie_word_embeddings && tied.conflicts.is_empty());
}

#[test]
fn companions_of_the_model_are_copied_and_nothing_else() {
    let input = copy_model("llama3-gqa", "companions-in");
    let companions =
        ["LICENSE", "NOTICE", "USE_POLICY.md", "tekken.json", "additional_chat_templates/rag.jinja"];
    let others =
        ["README.md", "pytorch_model.bin", "additional_chat_templates/notes.txt", "more/chat_template.jinja"];
    for file in companions.iter().chain(&others) {
        fs::create_dir_all(input.join(file).parent().unwrap()).unwrap();
        fs::write(input.join(file), file).unwrap();
    }
    let embedded = |path: &Path| -> surgery_core::files::EmbeddedFile {
        let name = path.strip_prefix(&input).unwrap().to_str().unwrap().to_owned();
        (name.leak(), fs::read(path).unwrap().leak())
    };
    let mut files: Vec<_> =
        companions.iter().chain(&others).map(|file| embedded(&input.join(file))).collect();
    files.extend(
        fs::read_dir(&input)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| embedded(&path)),
    );
    for (name, folder) in [
        ("companions-disk", Folder::Disk(input.clone())),
        ("companions-embedded", Folder::Embedded { name: "embedded".into(), files }),
    ] {
        let output = scratch(name);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        load("llama3-gqa").save(&output, &folder, Some(&checkpoint), SaveDtype::Input).unwrap();
        for file in companions {
            assert_eq!(fs::read_to_string(output.join(file)).unwrap(), file, "{name}");
        }
        for file in others {
            assert!(!output.join(file).exists(), "{name}: {file}");
        }
    }
}

#[test]
fn another_dtype_is_written_on_request() {
    let (folder, config, _) = open("llama3-gqa");
    let output = scratch("other-dtype");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    load("llama3-gqa").save(&output, &folder, Some(&checkpoint), SaveDtype::F32).unwrap();
    assert!(contents(&output).iter().all(|(_, dtype, _, _)| dtype == "F32"));
    let written = Folder::Disk(output);
    assert_eq!(written.json("config.json").unwrap()["torch_dtype"], "float32");
    let again: Llama<Infer> =
        Llama::load(&config, &Checkpoint::open(&written).unwrap(), Precision::F32, &Cpu::device(0).unwrap())
            .unwrap();
    let values = |model: &Llama<Infer>| -> Vec<f32> { model.head().into_data().to_vec().unwrap() };
    assert_eq!(values(&again), values(&load("llama3-gqa")));
}

/// Loads a model folder as the program does.
fn load_folder(path: &Path) -> Result<Llama<Infer>> {
    let folder = Folder::Disk(path.to_path_buf());
    let config = LlamaConfig::load(&folder)?;
    TextEncoder::load(&folder, config.vocab_size)?;
    Llama::load(&config, &Checkpoint::open(&folder)?, Precision::F32, &Cpu::device(0)?)
}

/// A name, a change to a copy of a model folder, and what the refusal must contain.
type Fault = (&'static str, fn(&Path), &'static [&'static str]);

fn edit_config(folder: &Path, edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
    let path = folder.join("config.json");
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(value.as_object_mut().unwrap());
    fs::write(path, value.to_string()).unwrap();
}

fn set(key: &'static str, value: serde_json::Value) -> impl FnOnce(&Path) {
    move |folder| {
        edit_config(folder, |config| {
            config.insert(key.into(), value);
        })
    }
}

/// Rewrites the only shard with another header.
fn edit_header(folder: &Path, edit: impl FnOnce(String) -> String) {
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = edit(String::from_utf8(bytes[8..8 + length].to_vec()).unwrap());
    let mut changed = (header.len() as u64).to_le_bytes().to_vec();
    changed.extend(header.as_bytes());
    changed.extend(&bytes[8 + length..]);
    fs::write(path, changed).unwrap();
}

#[test]
fn faults_of_a_model_folder_are_refused_by_name() {
    let faults: &[Fault] = &[
        ("heads", |f| set("num_key_value_heads", 2.into())(f), &["config.json", "num_key_value_heads", "2"]),
        ("layers", |f| set("num_hidden_layers", 1_000_000_000_000u64.into())(f), &["num_hidden_layers"]),
        ("hidden", |f| set("hidden_size", "big".into())(f), &["hidden_size", "big"]),
        ("type", |f| set("model_type", "gpt2".into())(f), &["model_type", "gpt2", "llama"]),
        ("bias", |f| set("attention_bias", true.into())(f), &["model.layers.0.self_attn.q_proj.bias"]),
        ("activation", |f| set("hidden_act", "gelu".into())(f), &["hidden_act", "gelu", "silu"]),
        (
            "rope",
            |f| set("rope_scaling", serde_json::json!({"rope_type": "yarn", "factor": 2.0}))(f),
            &["rope_type", "yarn", "llama3"],
        ),
        (
            "rope-nested",
            |f| set("rope_parameters", serde_json::json!({"full_attention": {"rope_type": "default"}}))(f),
            &["rope_parameters", "full_attention"],
        ),
        (
            "infinite",
            |f| {
                let config = fs::read_to_string(f.join("config.json")).unwrap();
                fs::write(f.join("config.json"), config.replace("1e-06", "Infinity")).unwrap();
            },
            &["rms_norm_eps", "is Infinity", "positive number"],
        ),
        ("rope-type", |f| set("rope_scaling", serde_json::json!({"rope_type": 3}))(f), &["rope_type", "3"]),
        ("shape", |f| set("intermediate_size", 7.into())(f), &["mlp", "shape", "7"]),
        ("json", |f| fs::write(f.join("config.json"), "{").unwrap(), &["config.json", "JSON"]),
        ("no-config", |f| fs::remove_file(f.join("config.json")).unwrap(), &["config.json"]),
        ("no-weights", |f| fs::remove_file(f.join("model.safetensors")).unwrap(), &["model.safetensors"]),
        (
            "pickle",
            |f| fs::rename(f.join("model.safetensors"), f.join("pytorch_model.bin")).unwrap(),
            &["pytorch_model.bin", "save_pretrained"],
        ),
        ("tokenizer", |f| fs::write(f.join("tokenizer.json"), "[]").unwrap(), &["tokenizer.json"]),
        (
            "missing",
            |f| edit_header(f, |h| h.replace("model.norm.weight", "model.norm.wrong1")),
            &["model.norm.weight", "missing"],
        ),
        (
            "truncated",
            |f| {
                let path = f.join("model.safetensors");
                let bytes = fs::read(&path).unwrap();
                fs::write(path, &bytes[..bytes.len() - 5]).unwrap();
            },
            &["model.safetensors", "bytes"],
        ),
        (
            "bomb",
            |f| fs::write(f.join("model.safetensors"), u64::MAX.to_le_bytes()).unwrap(),
            &["model.safetensors", "header"],
        ),
        (
            "nan",
            |f| {
                let path = f.join("model.safetensors");
                let mut bytes = fs::read(&path).unwrap();
                let end = bytes.len();
                bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
                fs::write(path, bytes).unwrap();
            },
            &["NaN", "tensor `"],
        ),
    ];
    for (name, damage, named) in faults {
        let folder = copy_model("llama1-mha", &format!("fault-{name}"));
        damage(&folder);
        let error = load_folder(&folder).expect_err(name);
        assert_eq!(error.kind(), Kind::Input, "{name}: {error}");
        for named in *named {
            assert!(error.to_string().contains(named), "{name}: {error:?} does not name {named:?}");
        }
    }
}

#[test]
fn faults_of_an_index_are_refused_by_name() {
    for (shard, named) in
        [("../model.safetensors", "own folder"), ("/etc/passwd", "own folder"), ("x", "missing")]
    {
        let folder = copy_model("tinyllama-gqa", "fault-index");
        let path = folder.join("model.safetensors.index.json");
        let mut index: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        index["weight_map"]["model.norm.weight"] = shard.into();
        fs::write(path, index.to_string()).unwrap();
        let error = load_folder(&folder).unwrap_err();
        assert!(error.to_string().contains(named), "{error}");
        assert!(error.to_string().contains("model.norm.weight"), "{error}");
    }
}

#[test]
fn a_tokenizer_of_another_model_is_refused_when_used() {
    let (folder, _, _) = open("llama1-mha");
    let encoder = TextEncoder::load(&folder, 40).unwrap();
    let error = encoder.encode("A long enough text to need many tokens.").unwrap_err();
    assert!(error.to_string().contains("rows for 40 tokens"), "{error}");
}
