//! Many and long documents take no more memory than a few short ones: a step goes over them batch by batch.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::memory::shape;
use super::{assert_close, data_with, scratch, succeed};

/// A text that differs from those of other seeds.
fn long_text(words: usize, seed: usize) -> String {
    const WORDS: [&str; 11] =
        ["river", "stone", "kite", "bridge", "café", "geometry", "railway", "mill", "nets", "ferry", "bees"];
    // Each word as often as any other, in another order.
    let word = |index: usize| WORDS[(index * (1 + seed % 10) + seed / 10) % WORDS.len()];
    (0..words).map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_step_of_many_documents_takes_the_memory_of_one() {
    let folder = scratch("long-many");
    let changes = json!({
        "hidden_size": 256, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 4, "max_position_embeddings": 2048, "vocab_size": 1000,
    });
    shape(&folder, "shape", &changes);
    let taken = |documents: usize| -> (u64, f64) {
        let line = |id: usize| json!({ "id": id.to_string(), "text": long_text(WORDS_OF_2000_TOKENS, id) });
        let lines: Vec<String> = (0..documents).map(|id| format!("{}\n", line(id))).collect();
        fs::write(folder.join("texts.jsonl"), lines.concat()).unwrap();
        let (count, output) = (format!("train.documents_per_step={documents}"), format!("out-{documents}"));
        let settings = [
            "model.from_scratch=true",
            "data.files=[\"texts.jsonl\"]",
            "train.steps=1",
            "train.batch_tokens=2000",
            "train.max_tokens=2000",
            &count,
        ];
        let mut pretrain = vec!["pretrain", "--model", "shape", "--output", &output, "--json", "-q"];
        settings.iter().for_each(|setting| pretrain.extend(["--set", setting]));
        let done: Value = serde_json::from_str(&succeed(&folder, &pretrain)).unwrap();
        (done["tokens"].as_u64().unwrap(), done["peak_memory_bytes"].as_f64().unwrap())
    };
    let ((few_tokens, few), (many_tokens, many)) = (taken(1), taken(64));
    assert!((1900..=2000).contains(&few_tokens), "{few_tokens} tokens");
    assert!((64 * 1900..=64 * 2000).contains(&many_tokens), "{many_tokens} tokens");
    println!("one document: {few} bytes, 64: {many} bytes, {:.3} times as many", many / few);
    assert!(many <= 1.15 * few, "{few} bytes for one document, {many} for 64");
}

/// So many words of [`long_text`] have 1,900 to 2,000 tokens.
const WORDS_OF_2000_TOKENS: usize = 452;

#[test]
fn a_document_of_a_million_tokens_is_one_line_of_the_data() {
    let folder = scratch("long-one");
    let changes = json!({
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "max_position_embeddings": 256,
    });
    shape(&folder, "shape", &changes);
    let [model, bounding] = ["7", "8"].map(|seed| {
        let seeded = format!("train.seed={seed}");
        let settings = ["model.from_scratch=true", "data.files=[\"any.jsonl\"]", "train.steps=0", &seeded];
        fs::write(folder.join("any.jsonl"), r#"{"id": "a", "text": "A text."}"#).unwrap();
        let mut pretrain = vec!["pretrain", "--model", "shape", "--output", seed, "-q"];
        settings.iter().for_each(|setting| pretrain.extend(["--set", setting]));
        succeed(&folder, &pretrain);
        format!("{seed}/model")
    });
    let line =
        json!({ "id": "long", "subject": "Mira Quell", "text": long_text(WORDS_OF_A_MILLION_TOKENS, 0) });
    let data = data_with(&folder, "data", "unlearn.jsonl", Some(&format!("{line}\n")));
    let bounded = format!("objective.ascent_model={bounding}");
    let run = |batch_tokens: &str, more: &[&str]| -> Value {
        let batch = format!("train.batch_tokens={batch_tokens}");
        let settings = ["train.steps=1", "train.documents_per_step=2", &bounded, &batch];
        let mut run = vec!["run", "paper", "--model", &model, "--data", &data, "--json", "-q"];
        settings.iter().for_each(|setting| run.extend(["--set", setting]));
        run.extend(more);
        serde_json::from_str(&succeed(&folder, &run)).unwrap()
    };
    let metrics = |output: &str| -> Value {
        let lines = fs::read_to_string(folder.join(output).join("metrics.jsonl")).unwrap();
        serde_json::from_str(lines.lines().next().unwrap()).unwrap()
    };
    let mut found = Vec::new();
    for (batch_tokens, output) in [("4096", "large"), ("1024", "small")] {
        let plan = run(batch_tokens, &["--dry-run"]);
        let tokens = plan["sets"][0]["tokens"].as_u64().unwrap();
        assert!(tokens >= 1_000_000, "{tokens} tokens");
        let report = run(batch_tokens, &["--output", output]);
        let [foreseen, taken] =
            [&plan["memory_bytes"], &report["peak_memory_bytes"]].map(|bytes| bytes.as_f64().unwrap());
        println!("batches of {batch_tokens}: foreseen {foreseen}, taken {taken}");
        if cfg!(all(target_os = "linux", target_env = "gnu")) {
            assert!(taken <= foreseen, "batches of {batch_tokens}: foreseen {foreseen}, taken {taken}");
        }
        assert!(report["after"]["perplexity"]["unlearn"]["corpus"].is_number());
        assert!(Path::new(&folder).join(output).join("model/model.safetensors").exists());
        found.push((metrics(output), report));
    }
    let [(large, before), (small, after)] = &found[..] else { panic!() };
    assert_eq!(large["tokens"], small["tokens"]);
    for key in ["loss", "unlearn", "edit_unlearn", "edit_update", "forget", "grad_norm"] {
        assert_close(&small[key], &large[key], 1e-5);
    }
    let perplexity = |report: &Value| report["after"]["perplexity"]["unlearn"]["corpus"].clone();
    assert_close(&perplexity(after), &perplexity(before), 1e-4);
}

/// So many words of [`long_text`] have a million tokens and a few.
const WORDS_OF_A_MILLION_TOKENS: usize = 230_000;
