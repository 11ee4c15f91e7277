//! The constructors of `LlamaTokenizer`, `CodeLlamaTokenizer` and `GPT2Tokenizer` in transformers 5: tokenizers from parts of
//! tokenizer.json.

use serde_json::{Value, json};

use super::{Declared, NAMES, SETTINGS, Settings, declared};

/// The way in which transformers builds a tokenizer from tokenizer.json.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// `TokenizersBackend`: the file unchanged.
    File,
    /// `LlamaTokenizer`: SentencePiece's BPE; `add_prefix_space` and `legacy` determine where a space is added.
    Llama,
    /// `CodeLlamaTokenizer`: the same, with tokens for infilling. Its division of a text with `<FILL_ME>` into a prefix and a
    /// suffix is not implemented.
    CodeLlama,
    /// `GPT2Tokenizer`: byte-level BPE.
    Gpt2,
}

/// The tokens that `CodeLlamaTokenizer` always has.
const INFILLING: [(&str, &str); 5] = [
    ("prefix_token", "▁<PRE>"),
    ("middle_token", "▁<MID>"),
    ("suffix_token", "▁<SUF>"),
    ("eot_token", "▁<EOT>"),
    ("fill_token", "<FILL_ME>"),
];

impl Class {
    /// The special tokens that its constructor has by default.
    pub(super) fn default_tokens(self) -> Vec<(String, Declared)> {
        let usual = match self {
            Class::File => ["", "", ""],
            Class::Llama | Class::CodeLlama => ["<s>", "</s>", "<unk>"],
            Class::Gpt2 => ["<|endoftext|>"; 3],
        };
        let usual = NAMES.into_iter().zip(usual).filter(|(_, token)| !token.is_empty());
        let infilling = INFILLING.into_iter().filter(|_| self == Class::CodeLlama);
        usual.chain(infilling).map(|(name, token)| (name.to_owned(), Declared::Text(token.into()))).collect()
    }

    /// Replaces the content of tokenizer.json by the tokenizer that this class builds from it.
    pub(super) fn rebuild(self, value: &mut Value, settings: &Settings) -> Result<(), String> {
        let model = value.get("model").ok_or("it has no `model`")?;
        let kind = model.get("type").and_then(Value::as_str).unwrap_or("none");
        if kind != "BPE" {
            return Err(format!(
                "its model has the type {kind}, but the class in {SETTINGS} needs BPE; set `tokenizer_class` there to \
                 \"PreTrainedTokenizerFast\" to use the file unchanged"
            ));
        }
        let flag = |key| settings.flag(key).map_err(|error| error.to_string());
        let prefix = flag("add_prefix_space")?;
        let of_sentencepiece = self != Class::Gpt2;
        // An unknown character is omitted if the vocabulary has no bytes for it.
        let unknown = match self {
            Class::CodeLlama => settings.get("unk_token").map_or(json!("<unk>"), |token| {
                declared(token, false).map_or(json!("<unk>"), |token| json!(token.content()))
            }),
            _ => Value::Null,
        };
        let affix = if of_sentencepiece { Value::Null } else { json!("") };
        let model = json!({
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": affix,
            "end_of_word_suffix": affix, "fuse_unk": of_sentencepiece, "byte_fallback": of_sentencepiece,
            "ignore_merges": false, "vocab": model.get("vocab"), "merges": model.get("merges"),
        });
        let (pre_tokenizer, decoder) = match self {
            Class::Gpt2 => {
                let byte_level = |prefix: bool| json!({ "type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true });
                (byte_level(prefix.unwrap_or(false)), byte_level(true))
            }
            _ => {
                let prefix = prefix.unwrap_or(true);
                let always = self == Class::Llama && flag("legacy")?.unwrap_or(false);
                let scheme = if !prefix {
                    "never"
                } else if always {
                    "always"
                } else {
                    "first"
                };
                let mut decoders = vec![
                    json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
                    json!({ "type": "ByteFallback" }),
                    json!({ "type": "Fuse" }),
                ];
                if prefix || self == Class::CodeLlama {
                    decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
                }
                (
                    json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false }),
                    json!({ "type": "Sequence", "decoders": decoders }),
                )
            }
        };
        if self == Class::CodeLlama {
            let named = settings.get("bos_token").and_then(|token| declared(token, false));
            let beginning = named.map_or("<s>".to_owned(), |token| token.content().to_owned());
            let id = model["vocab"].get(&beginning).cloned();
            let id = id.ok_or_else(|| format!("its vocabulary lacks {beginning:?}"))?;
            value["post_processor"] = begin_with(&beginning, &id);
        }
        value["model"] = model;
        value["normalizer"] = Value::Null;
        value["pre_tokenizer"] = pre_tokenizer;
        value["decoder"] = decoder;
        value["added_tokens"] = json!([]);
        Ok(())
    }
}

/// The post-processor that puts a token before a text.
fn begin_with(token: &str, id: &Value) -> Value {
    let special = |kind: u32| json!({ "SpecialToken": { "id": token, "type_id": kind } });
    let text = |name: &str, kind: u32| json!({ "Sequence": { "id": name, "type_id": kind } });
    json!({
        "type": "TemplateProcessing",
        "single": [special(0), text("A", 0)],
        "pair": [special(0), text("A", 0), special(1), text("B", 1)],
        "special_tokens": { token: { "id": token, "ids": [id], "tokens": [token] } },
    })
}
