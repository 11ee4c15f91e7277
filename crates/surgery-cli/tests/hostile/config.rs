//! `config.json` and `generation_config.json`: absurd or contradictory numbers, and other architectures.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Fault, SINGLE, copy_model, edit, refuse, refuse_models, scratch};

const FILE: &str = "config.json";
const GENERATION: &str = "generation_config.json";

#[test]
fn impossible_values_are_refused_by_key() {
    let folder = scratch("config-values");
    let rope = |value: Value| ("rope_scaling", value);
    let llama3 = |low: f64, factor: f64| json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": 4.0});
    // The key, its value, and other names in the refusal: another key or file that contradicts the value.
    let cases: Vec<((&str, Value), &str)> = vec![
        (("num_hidden_layers", json!(1_000_000_000_000u64)), "1024"),
        (("num_hidden_layers", json!(u64::MAX)), "1024"),
        (("num_hidden_layers", json!(1e300)), "1024"),
        (("num_hidden_layers", json!(0)), "1 to"),
        (("num_hidden_layers", json!(-1)), "1 to"),
        (("num_hidden_layers", json!(1.5)), "1 to"),
        (("num_hidden_layers", json!("2")), "1 to"),
        (("num_hidden_layers", json!([2])), "1 to"),
        (("hidden_size", json!(1u64 << 40)), "1 to"),
        (("hidden_size", json!(25)), "num_attention_heads"),
        (("intermediate_size", json!(1u64 << 40)), "1 to"),
        (("num_attention_heads", json!(5)), "hidden_size"),
        (("num_attention_heads", json!(0)), "1 to"),
        (("num_key_value_heads", json!(2)), "num_attention_heads"),
        (("num_key_value_heads", json!(6)), "num_attention_heads"),
        (("head_dim", json!(7)), "even"),
        (("head_dim", json!(0)), "1 to"),
        (("head_dim", json!(1u64 << 40)), "1 to"),
        (("vocab_size", json!(1u64 << 40)), "1 to"),
        (("max_position_embeddings", json!(1)), "2 or more"),
        (("max_position_embeddings", json!(1u64 << 40)), "1 to"),
        (("rms_norm_eps", json!(0)), "positive"),
        (("rms_norm_eps", json!("small")), "positive"),
        (("initializer_range", json!(-0.1)), "positive"),
        (("rope_theta", json!(-1e4)), "positive"),
        (rope(json!("linear")), "object"),
        (rope(json!({"rope_type": "yarn", "factor": 2.0})), "llama3"),
        (rope(json!({"rope_type": 3})), "rope_type"),
        (rope(json!({"type": "linear"})), "factor"),
        (rope(json!({"type": "linear", "factor": 0.0})), "factor"),
        (rope(llama3(4.0, 8.0)), "high_freq_factor"),
        (rope(llama3(1.0, -8.0)), "factor"),
        (("tie_word_embeddings", json!(1)), "true or false"),
        (("eos_token_id", json!("</s>")), "token id"),
        (("eos_token_id", json!([2, -1])), "token id"),
        (("eos_token_id", json!(1u64 << 40)), "token id"),
        (("model_type", json!("gpt2")), "llama"),
        (("model_type", json!(7)), "llama"),
        (("architectures", json!(["GPT2LMHeadModel"])), "LlamaForCausalLM"),
        (("architectures", json!([])), "LlamaForCausalLM"),
        (("hidden_act", json!("gelu")), "silu"),
        (("hidden_act", json!(1)), "silu"),
        (("attention_bias", json!(1)), "true or false"),
        (("mlp_bias", json!("yes")), "true or false"),
        (("quantization_config", json!({"bits": 4})), "quantised"),
        (("partial_rotary_factor", json!(0.5)), "1.0"),
        (("vocab_size", json!("x".repeat(1 << 20))), "xxxx"),
    ];
    for (number, ((key, value), also)) in cases.into_iter().enumerate() {
        let name = number.to_string();
        let model = folder.join(&name);
        copy_model(SINGLE, &model);
        edit(&model, FILE, |config| drop(config.insert(key.into(), value.clone())));
        let case = format!("{key} = {:.60}", value.to_string());
        refuse(&folder, &case, &["generate", "--model", &name, "--prompt", "A text."], &[FILE, key, also]);
    }
}

#[test]
fn missing_keys_without_a_default_are_refused() {
    let folder = scratch("config-keys");
    for key in [
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_hidden_layers",
        "vocab_size",
        "model_type",
    ] {
        let model = folder.join(key);
        copy_model(SINGLE, &model);
        edit(&model, FILE, |config| drop(config.remove(key)));
        refuse(&folder, key, &["generate", "--model", key, "--prompt", "A text."], &[FILE, key, "missing"]);
    }
}

/// Sets keys of `config.json`.
fn with(values: Value) -> Box<dyn Fn(&Path)> {
    Box::new(move |folder| {
        edit(folder, FILE, |config| {
            config.extend(values.as_object().unwrap().clone());
        });
    })
}

fn content(file: &'static str, text: impl AsRef<[u8]> + 'static) -> Box<dyn Fn(&Path)> {
    Box::new(move |folder| fs::write(folder.join(file), &text).unwrap())
}

#[test]
fn sizes_are_compared_with_the_weights_before_anything_is_allocated() {
    let faults: Vec<Fault> = vec![
        ("layers", with(json!({"num_hidden_layers": 1024})), &["model.layers.2.", "missing"]),
        (
            "fewer-layers",
            with(json!({"num_hidden_layers": 1})),
            &["model.layers.1.", "belongs to no parameter"],
        ),
        ("vocabulary", with(json!({"vocab_size": 1 << 22})), &["model.embed_tokens.weight", "[4194304, 24]"]),
        ("wide", with(json!({"intermediate_size": 1 << 20})), &["mlp", "1048576"]),
        ("heads", with(json!({"head_dim": 4096})), &["self_attn", "12288"]),
        ("hidden", with(json!({"hidden_size": 3 << 15})), &["model.embed_tokens.weight", "98304"]),
        (
            "all",
            with(
                json!({"hidden_size": 1 << 17, "intermediate_size": 1 << 20, "num_attention_heads": 1 << 12,
                "num_hidden_layers": 1 << 10}),
            ),
            &[FILE, "parameters"],
        ),
        (
            "tied",
            with(json!({"tie_word_embeddings": true, "vocab_size": 369})),
            &["model.embed_tokens", "369"],
        ),
    ];
    refuse_models("config-sizes", SINGLE, faults);
}

#[test]
fn files_that_are_not_a_configuration_are_refused() {
    let remove = |folder: &Path| fs::remove_file(folder.join(FILE)).unwrap();
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut faults: Vec<Fault> = vec![
        ("missing", Box::new(remove), &[FILE]),
        ("empty", content(FILE, ""), &[FILE, "JSON"]),
        ("cut", content(FILE, "{\"hidden_size\": 24"), &[FILE, "JSON"]),
        ("list", content(FILE, "[1]"), &[FILE, "object"]),
        ("latin1", content(FILE, b"{\"caf\xe9\": 1}"), &[FILE, "JSON"]),
        ("infinite", content(FILE, "{\"rms_norm_eps\": 1e999}"), &[FILE, "JSON"]),
        ("deep", content(FILE, "{\"a\":".repeat(1 << 18)), &[FILE, "JSON"]),
        ("large", content(FILE, vec![b' '; 17 << 20]), &[FILE, "17825792 bytes"]),
        ("generation-cut", content(GENERATION, "{"), &[GENERATION, "JSON"]),
        ("generation-list", content(GENERATION, "[]"), &[GENERATION, "object"]),
        ("generation-eos", content(GENERATION, r#"{"eos_token_id": "</s>"}"#), &[GENERATION, "eos_token_id"]),
        (
            "generation-id",
            content(GENERATION, r#"{"eos_token_id": [2, 1e12]}"#),
            &[GENERATION, "eos_token_id"],
        ),
        ("generation-deep", content(GENERATION, "[".repeat(1 << 20)), &[GENERATION, "JSON"]),
    ];
    // The system reports its length as 0, and it never ends.
    #[cfg(unix)]
    faults.push((
        "endless",
        Box::new(move |folder| {
            remove(folder);
            std::os::unix::fs::symlink("/dev/zero", folder.join(FILE)).unwrap();
        }),
        &[FILE, "at least"],
    ));
    refuse_models("config-files", SINGLE, faults);
}
