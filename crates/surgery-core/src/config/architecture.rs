//! The architectures of the Llama family, and what transformers takes where a file of theirs leaves a key out.

use serde_json::Value;

use super::Keys;
use crate::error::Result;

/// The linear layers of each block that have a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Biases {
    /// Queries, keys and values.
    pub inputs: bool,
    /// The layer after attention.
    pub output: bool,
    /// Gate, up and down.
    pub mlp: bool,
}

/// An architecture of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Architecture {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

impl Architecture {
    const ALL: [Self; 4] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3];

    /// Its name under `model_type`, and the one under `architectures`.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Llama => ("llama", "LlamaForCausalLM"),
            Self::Mistral => ("mistral", "MistralForCausalLM"),
            Self::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
            Self::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
        }
    }

    /// Reads it. Refuses other architectures.
    pub(super) fn of(keys: &Keys) -> Result<Self> {
        let list = |name: fn((&'static str, &'static str)) -> &'static str| {
            Self::ALL.map(|architecture| format!("\"{}\"", name(architecture.names()))).join(", ")
        };
        let found = keys.text("model_type");
        let Some(architecture) = Self::ALL.into_iter().find(|one| Some(one.names().0) == found) else {
            let expected = format!("a model of the Llama family: one of {}", list(|names| names.0));
            return Err(keys.wrong("model_type", &expected));
        };
        let is_known = |name: &Value| Self::ALL.iter().any(|one| name.as_str() == Some(one.names().1));
        match keys.get("architectures").and_then(Value::as_array) {
            Some(names) if !names.iter().any(is_known) => {
                Err(keys.wrong("architectures", &format!("one of {}", list(|names| names.1))))
            }
            _ => Ok(architecture),
        }
    }

    /// The default number of key and value heads in transformers; `None` for the number of query heads.
    pub(super) fn num_key_value_heads(self) -> Option<usize> {
        match self {
            Self::Llama => None,
            Self::Mistral => Some(8),
            Self::Qwen2 | Self::Qwen3 => Some(32),
        }
    }

    /// The default size of a head in transformers; `None` for the share of a head in the residual stream.
    pub(super) fn head_dim(self) -> Option<usize> {
        (self == Self::Qwen3).then_some(128)
    }

    /// The default maximum length of a text in transformers.
    pub(super) fn max_position_embeddings(self) -> usize {
        match self {
            Self::Llama => 2048,
            Self::Mistral => 4096 * 32,
            Self::Qwen2 | Self::Qwen3 => 32768,
        }
    }

    /// The size of the sliding window, if there is one. Llama has none, whatever its file says.
    pub(super) fn sliding_window(self, keys: &Keys) -> Result<Option<usize>> {
        match self {
            Self::Llama => Ok(None),
            Self::Mistral => match keys.object.get("sliding_window") {
                Some(Value::Null) => Ok(None),
                None => Ok(Some(4096)),
                Some(_) => keys.size("sliding_window", 1 << 26, None).map(Some),
            },
            Self::Qwen2 | Self::Qwen3 if keys.flag("use_sliding_window")? => Err(keys
                .wrong("use_sliding_window", "false: sliding windows in some blocks only are not supported")),
            Self::Qwen2 | Self::Qwen3 => Ok(None),
        }
    }

    /// The layers with a bias.
    pub(super) fn biases(self, keys: &Keys) -> Result<Biases> {
        let attention = |default| match self {
            Self::Llama | Self::Qwen3 => keys.flag("attention_bias"),
            Self::Mistral | Self::Qwen2 => Ok(default),
        };
        Ok(Biases {
            inputs: attention(self == Self::Qwen2)?,
            output: attention(false)?,
            mlp: self == Self::Llama && keys.flag("mlp_bias")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::LlamaConfig;
    use super::*;
    use serde_json::json;

    fn config(model_type: &str, more: Value) -> Result<LlamaConfig> {
        let mut config = json!({
            "model_type": model_type, "hidden_size": 60, "num_hidden_layers": 1, "num_attention_heads": 32,
            "intermediate_size": 8, "vocab_size": 10,
        });
        let keys = more.as_object().expect("keys").clone();
        config.as_object_mut().expect("an object").extend(keys);
        LlamaConfig::parse("config.json", &config)
    }

    #[test]
    fn missing_keys_mean_what_they_mean_in_transformers() {
        let qwen3 = config("qwen3", json!({})).unwrap();
        assert_eq!(
            (qwen3.head_dim, qwen3.num_key_value_heads, qwen3.max_position_embeddings),
            (128, 32, 32768)
        );
        assert!(qwen3.head_norms);
        let qwen2 = config("qwen2", json!({ "head_dim": 2, "sliding_window": 4 })).unwrap();
        assert_eq!(qwen2.biases, Biases { inputs: true, output: false, mlp: false });
        assert_eq!((qwen2.sliding_window, qwen2.head_norms), (None, false));
        let llama = config("llama", json!({ "head_dim": 2, "attention_bias": true })).unwrap();
        assert_eq!(llama.biases, Biases { inputs: true, output: true, mlp: false });
        assert!(config("llama", json!({})).unwrap_err().to_string().contains("hidden_size"));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_its_key() {
        let refused = |model_type, more| config(model_type, more).unwrap_err().to_string();
        let error = refused("qwen2", json!({ "head_dim": 2, "use_sliding_window": true }));
        assert!(error.contains("use_sliding_window"), "{error}");
        let error = refused("gpt2", json!({}));
        assert!(error.contains("model_type") && error.contains("\"qwen3\""), "{error}");
        let error = refused("llama", json!({ "architectures": ["GPT2LMHeadModel"] }));
        assert!(error.contains("architectures") && error.contains("\"LlamaForCausalLM\""), "{error}");
    }
}
