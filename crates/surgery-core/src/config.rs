//! `config.json` of a model of the Llama family: LLaMA (arXiv 2302.13971), its successors, Mistral, Qwen2 and Qwen3.
//!
//! Supported are the old form (`rope_theta`, `rope_scaling`, keys missing as in Llama 2's files) and the new one
//! (`rope_parameters`). Unsupported features are refused by name. If two settings disagree, the one that transformers
//! uses takes effect, and [`LlamaConfig::conflicts`] reports it.

mod architecture;
mod rope;

use serde_json::Value;

use crate::checkpoint::{Checkpoint, INDEX, SINGLE};
use crate::error::{Error, Result};
use crate::files::Folder;
use crate::json;

use architecture::Architecture;
pub use architecture::Biases;
pub use rope::{Rope, RopeScaling};

/// Sizes and constants of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Size of the residual stream, `hidden`.
    pub hidden_size: usize,
    /// Size of the gated layer inside each block, `intermediate`.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides the number of query heads.
    pub num_key_value_heads: usize,
    /// Size of one head; even.
    pub head_dim: usize,
    /// Number of rows of the embedding.
    pub vocab_size: usize,
    /// Epsilon of every norm, added to the mean square.
    pub rms_norm_eps: f64,
    /// Rotary position embedding.
    pub rope: Rope,
    /// Maximum length of a text in tokens.
    pub max_position_embeddings: usize,
    /// Whether the head shares the embedding's matrix.
    pub tie_word_embeddings: bool,
    /// The linear layers that have a bias.
    pub biases: Biases,
    /// Whether each query and key head has a norm, before its rotation.
    pub head_norms: bool,
    /// Size of the sliding attention window, if the model has one.
    pub sliding_window: Option<usize>,
    /// Standard deviation of random initial weights.
    pub initializer_range: f64,
    /// The token that starts a text, if there is one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// Warnings for settings of the model folder that disagree: both values, and the one in effect.
    pub conflicts: Vec<String>,
    /// Settings of generation_config.json that change transformers' output but are not applied here: `key = value`.
    pub not_applied: Vec<String>,
}

/// A JSON object with the name of its file for messages.
struct Keys<'a> {
    path: &'a str,
    object: &'a serde_json::Map<String, Value>,
}

impl Keys<'_> {
    fn wrong(&self, key: &str, expected: &str) -> Error {
        let found = match self.object.get(key) {
            None => "missing".to_owned(),
            Some(value) => json::shown(value),
        };
        Error::Config { path: self.path.into(), key: key.into(), found, expected: expected.into() }
    }

    /// The value of `key`. As in transformers, null counts as missing.
    fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn size(&self, key: &str, most: usize, default: Option<usize>) -> Result<usize> {
        let expected = || self.wrong(key, &format!("a whole number from 1 to {most}"));
        match (self.get(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(expected()),
            (Some(value), _) => match value.as_u64() {
                Some(size) if size >= 1 && size <= most as u64 => Ok(size as usize),
                _ => Err(expected()),
            },
        }
    }

    fn positive(&self, key: &str, default: Option<f64>) -> Result<f64> {
        let expected = || self.wrong(key, "a positive number");
        match (self.get(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(expected()),
            (Some(value), _) => match value.as_f64() {
                Some(number) if number.is_finite() && number > 0.0 => Ok(number),
                _ => Err(expected()),
            },
        }
    }

    fn flag(&self, key: &str) -> Result<bool> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// Refuses values of `key` other than `allowed`; the key may be missing.
    fn only(&self, key: &str, allowed: &str, expected: &str) -> Result<()> {
        match self.get(key) {
            None => Ok(()),
            Some(value) if value.as_str() == Some(allowed) => Ok(()),
            Some(_) => Err(self.wrong(key, expected)),
        }
    }

    /// Refuses rotary embeddings that rotate only a part of each head.
    fn only_whole_rotation(&self) -> Result<()> {
        match self.get("partial_rotary_factor") {
            Some(factor) if factor.as_f64() != Some(1.0) => {
                Err(self.wrong("partial_rotary_factor", "1.0, the only value supported"))
            }
            _ => Ok(()),
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    /// The settings of generation_config.json that are not applied here and would change a greedy generation by
    /// transformers. `neutral` is the value without effect in its `GenerationConfig`.
    fn not_applied(&self) -> Vec<String> {
        let neutral = |key: &str| match key {
            "repetition_penalty" | "num_beams" => Some(1.0),
            "no_repeat_ngram_size" | "min_length" | "min_new_tokens" => Some(0.0),
            _ => None,
        };
        let changes =
            |key: &&str| self.get(key).is_some_and(|value| value.as_f64().or(Some(f64::NAN)) != neutral(key));
        GENERATION_KEYS
            .into_iter()
            .filter(changes)
            .map(|key| format!("{key} = {}", json::shown(&self.object[key])))
            .collect()
    }

    /// One token id or a list of them.
    fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match self.get(key) {
            None => Some(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(id).collect(),
            Some(value) => id(value).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.wrong(key, "a token id or a list of token ids"))
    }
}

/// Keys of generation_config.json, besides sampling, that change the tokens which transformers generates.
const GENERATION_KEYS: [&str; 14] = [
    "bad_words_ids",
    "begin_suppress_tokens",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "guidance_scale",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "num_beams",
    "repetition_penalty",
    "sequence_bias",
    "stop_strings",
    "suppress_tokens",
];

/// The embedding, `[vocab, hidden]`.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The head of an untied model, `[vocab, hidden]`.
pub(crate) const HEAD: &str = "lm_head.weight";

/// The most parameters a model may claim: an order of magnitude above the largest Llama.
const MOST_PARAMETERS: u64 = 10_000_000_000_000;

impl LlamaConfig {
    /// Reads `config.json` and, if there is one, `generation_config.json` of a model folder.
    ///
    /// If the folder has weights and they contain a separate head although the config ties it, the head is untied.
    pub fn load(folder: &Folder) -> Result<Self> {
        let mut config = Self::parse(&folder.label("config.json"), &folder.json("config.json")?)?;
        if folder.has("generation_config.json") {
            let path = folder.label("generation_config.json");
            let value = folder.json("generation_config.json")?;
            let keys = Keys { path: &path, object: object(&path, &value)? };
            let ids = keys.token_ids("eos_token_id")?;
            if !ids.is_empty() {
                config.eos_token_ids = ids;
            }
            config.bos_token_id = keys.token_ids("bos_token_id")?.first().copied().or(config.bos_token_id);
            config.not_applied = keys.not_applied();
        }
        if config.tie_word_embeddings && has_own_head(folder)? {
            config.tie_word_embeddings = false;
            config.conflicts.push(format!(
                "{}: `tie_word_embeddings` is true, but the weights hold a tensor `{HEAD}` with other values than the \
                 embedding; as in transformers, the head in the file is used, and the result is written untied",
                folder.label("config.json"),
            ));
        }
        Ok(config)
    }

    /// Reads a configuration from the JSON of the file `path`.
    pub fn parse(path: &str, value: &Value) -> Result<Self> {
        let keys = Keys { path, object: object(path, value)? };
        let architecture = Architecture::of(&keys)?;
        Self::check_unsupported(&keys)?;

        let hidden_size = keys.size("hidden_size", 1 << 17, None)?;
        let num_attention_heads = keys.size("num_attention_heads", 1 << 12, None)?;
        if architecture == Architecture::Mistral
            && keys.object.get("num_key_value_heads").is_some_and(Value::is_null)
        {
            return Err(keys.wrong("num_key_value_heads", "a whole number, as transformers requires"));
        }
        let default_kv_heads = match keys.object.get("num_key_value_heads") {
            Some(Value::Null) => num_attention_heads,
            _ => architecture.num_key_value_heads().unwrap_or(num_attention_heads),
        };
        let num_key_value_heads = keys.size("num_key_value_heads", 1 << 12, Some(default_kv_heads))?;
        if !num_attention_heads.is_multiple_of(num_key_value_heads) {
            let expected = format!("a divisor of `num_attention_heads`, which is {num_attention_heads}");
            return Err(keys.wrong("num_key_value_heads", &expected));
        }
        let default_head_dim = architecture.head_dim();
        let is_shared = default_head_dim.is_none() && keys.get("head_dim").is_none();
        if is_shared && !hidden_size.is_multiple_of(num_attention_heads) {
            let expected = format!("a multiple of `num_attention_heads`, which is {num_attention_heads}");
            return Err(keys.wrong("hidden_size", &expected));
        }
        let head_dim = keys.size(
            "head_dim",
            1 << 12,
            Some(default_head_dim.unwrap_or(hidden_size / num_attention_heads)),
        )?;
        if !head_dim.is_multiple_of(2) {
            return Err(keys.wrong("head_dim", "an even number: rotary embedding rotates pairs"));
        }
        let max_position_embeddings =
            keys.size("max_position_embeddings", 1 << 26, Some(architecture.max_position_embeddings()))?;
        if max_position_embeddings < 2 {
            return Err(keys.wrong("max_position_embeddings", "2 or more: a token and the one it predicts"));
        }
        let (rope, conflicts) = rope::parse(&keys, max_position_embeddings)?;
        let config = Self {
            hidden_size,
            intermediate_size: keys.size("intermediate_size", 1 << 20, None)?,
            num_hidden_layers: keys.size("num_hidden_layers", 1 << 10, None)?,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            vocab_size: keys.size("vocab_size", 1 << 22, None)?,
            rms_norm_eps: keys.positive("rms_norm_eps", Some(1e-6))?,
            rope,
            max_position_embeddings,
            tie_word_embeddings: keys.flag("tie_word_embeddings")?,
            biases: architecture.biases(&keys)?,
            head_norms: architecture == Architecture::Qwen3,
            sliding_window: architecture.sliding_window(&keys)?,
            initializer_range: keys.positive("initializer_range", Some(0.02))?,
            bos_token_id: keys.token_ids("bos_token_id")?.first().copied(),
            eos_token_ids: match keys.object.contains_key("eos_token_id") {
                true => keys.token_ids("eos_token_id")?,
                // transformers' default.
                false => vec![2],
            },
            conflicts,
            not_applied: Vec::new(),
        };
        if config.num_parameters() > MOST_PARAMETERS {
            return Err(Error::Checkpoint {
                path: path.into(),
                problem: format!("describes a model of {:.1e} parameters", config.num_parameters() as f64),
                remedy: "check its sizes".into(),
            });
        }
        Ok(config)
    }

    fn check_unsupported(keys: &Keys) -> Result<()> {
        // `swish` is another name of SiLU.
        if keys.text("hidden_act") != Some("swish") {
            keys.only("hidden_act", "silu", "\"silu\", the only activation supported")?;
        }
        // `compression_config` is the older name.
        for key in ["quantization_config", "compression_config"] {
            if keys.get(key).is_some() {
                let expected =
                    "no such key: quantised weights are not supported, use the original checkpoint";
                return Err(keys.wrong(key, expected));
            }
        }
        keys.only_whole_rotation()
    }

    /// Maximum length of a training window: `max_tokens`, or the model's context if that is shorter.
    pub fn context(&self, max_tokens: usize) -> usize {
        max_tokens.min(self.max_position_embeddings)
    }
}

/// Whether the weights in `folder` contain a head that differs from the embedding; false without weights.
fn has_own_head(folder: &Folder) -> Result<bool> {
    match [SINGLE, INDEX].iter().any(|file| folder.has(file)) {
        true => Checkpoint::open(folder)?.differ(EMBEDDING, HEAD),
        false => Ok(false),
    }
}

fn object<'a>(path: &str, value: &'a Value) -> Result<&'a serde_json::Map<String, Value>> {
    value.as_object().ok_or_else(|| Error::Data {
        path: path.into(),
        problem: "is not a JSON object".into(),
        remedy: "restore the file from where the folder came from".into(),
    })
}
