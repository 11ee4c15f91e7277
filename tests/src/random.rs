//! Random models and documents, the same on every backend.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use surgery_core::config::LlamaConfig;
use surgery_core::data::{Example, Set};
use surgery_core::model::Llama;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::Precision;
use surgery_core::step::StepDocuments;

/// Shapes with edge cases: one head and many, shared keys, sizes that do not fill a register, a tied head.
pub fn shapes() -> Vec<(&'static str, LlamaConfig)> {
    let shape = |name, changes: Value| {
        let mut config = json!({
            "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 172, "vocab_size": 301, "max_position_embeddings": 1024,
            "initializer_range": 0.1,
        });
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        (name, LlamaConfig::parse(name, &config).unwrap())
    };
    vec![
        shape("plain", json!({})),
        shape("grouped", json!({ "num_attention_heads": 8, "num_key_value_heads": 2 })),
        shape("one key head", json!({ "num_key_value_heads": 1, "tie_word_embeddings": true })),
        shape("odd", json!({ "hidden_size": 70, "num_attention_heads": 5, "intermediate_size": 97 })),
        shape("wide", json!({ "hidden_size": 288, "num_attention_heads": 3, "vocab_size": 1100 })),
        shape("own head size", json!({ "head_dim": 24, "num_hidden_layers": 3 })),
    ]
}

/// Documents of every set: some short, some longer than any block that the operations work in.
pub fn documents(vocab: usize, seed: u64) -> Vec<(Set, Example)> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let lengths = [2, 3, 31, 57, 300, 7, 112, 113, 400, 64, 29, 5];
    let examples = lengths.map(|length| {
        Example::of_text((0..length).map(|_| generator.random_range(0..vocab as u32)).collect())
    });
    Set::TRAINED.into_iter().cycle().zip(examples).collect()
}

/// A step that draws `documents`.
pub fn step(documents: &[(Set, Example)], recompute: bool) -> StepDocuments<'_> {
    let documents = documents.iter().map(|(set, example)| (*set, example));
    StepDocuments { recompute, ..StepDocuments::new(documents, 280) }
}

/// A model to train, and a different one as reference.
pub fn models<P: Platform>(config: &LlamaConfig, device: &DeviceOf<P>) -> (Llama<P::Train>, Llama<P::Infer>) {
    (Llama::random(config, 1, Precision::F32, device), Llama::random(config, 2, Precision::F32, device))
}
