//! Texts to tokens and back, with the tokenizer that came with the model.

use serde_json::Value;
use tokenizers::Tokenizer;

use crate::error::{Error, Result};
use crate::files::{Folder, JSON_LIMIT};

const FILE: &str = "tokenizer.json";

/// A model's tokenizer. Texts are encoded with its own special tokens (Llama: BOS in front, no EOS).
#[derive(Debug, Clone)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    path: String,
    vocab_size: usize,
}

impl TextEncoder {
    /// Loads `tokenizer.json` for a model with `vocab_size` rows.
    pub fn load(folder: &Folder, vocab_size: usize) -> Result<Self> {
        let path = folder.label(FILE);
        if !folder.has(FILE) && folder.has("tokenizer.model") {
            return Err(Error::Tokenizer {
                path: folder.label("tokenizer.model"),
                problem:
                    "is a SentencePiece model; convert it to tokenizer.json: load it with transformers' \
                          AutoTokenizer and call `save_pretrained(folder)`"
                        .into(),
            });
        }
        let bytes = folder.read(FILE, JSON_LIMIT)?;
        let wrong = |problem: String| Error::Tokenizer { path: path.clone(), problem };
        let unreadable = |error: &dyn std::fmt::Display| {
            wrong(format!("is not a tokenizer this program can read ({error})"))
        };
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))?;
        check_templates(&value).map_err(wrong)?;
        let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(|error| unreadable(&error))?;
        // The file may ask for padding or truncation, which would silently change the texts.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).expect("removing a truncation cannot fail");
        Ok(Self { tokenizer, path, vocab_size })
    }

    /// The ids of `text`, special tokens included.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encode_with_ends(text)?.into_iter().map(|(id, _)| id).collect())
    }

    /// The ids of `text`, each with the byte offset in `text` at which it ends; special tokens end at 0.
    pub fn encode_with_ends(&self, text: &str) -> Result<Vec<(u32, usize)>> {
        let encoding = self.tokenizer.encode(text, true).map_err(|error| Error::Tokenizer {
            path: self.path.clone(),
            problem: format!("cannot encode {:?} ({error})", excerpt(text)),
        })?;
        let ends = encoding.get_offsets().iter().map(|&(_, end)| end);
        let tokens: Vec<(u32, usize)> = encoding.get_ids().iter().copied().zip(ends).collect();
        match tokens.iter().find(|(id, _)| *id as usize >= self.vocab_size) {
            None => Ok(tokens),
            Some((id, _)) => Err(Error::Tokenizer {
                path: self.path.clone(),
                problem: format!(
                    "yields token {id} for {:?}, but the model has rows for {} tokens only: tokenizer and \
                     model do not belong together",
                    excerpt(text),
                    self.vocab_size
                ),
            }),
        }
    }

    /// Whether both give the same tokens the same ids.
    pub fn has_vocabulary_of(&self, other: &Self) -> bool {
        self.tokenizer.get_vocab(true) == other.tokenizer.get_vocab(true)
    }

    /// The text of `ids`, special tokens left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tokenizer.decode(ids, true).map_err(|error| Error::Tokenizer {
            path: self.path.clone(),
            problem: format!("cannot decode what the model generated ({error})"),
        })
    }

    /// The text that `new` adds behind `before`; decoding it alone could lose a space in front.
    pub fn decode_continuation(&self, before: &[u32], new: &[u32]) -> Result<String> {
        let whole: Vec<u32> = before.iter().chain(new).copied().collect();
        let (prefix, whole) = (self.decode(before)?, self.decode(&whole)?);
        match whole.strip_prefix(&prefix) {
            Some(continuation) => Ok(continuation.to_owned()),
            None => self.decode(new),
        }
    }
}

/// Refuses a template of special tokens that names what is not there: the library would panic on it, at the
/// first text.
fn check_templates(value: &Value) -> Result<(), String> {
    match value {
        Value::Array(list) => list.iter().try_for_each(check_templates),
        Value::Object(object) => {
            if object.get("type").and_then(Value::as_str) == Some("TemplateProcessing") {
                let known = object.get("special_tokens").and_then(Value::as_object);
                for piece in object.get("single").and_then(Value::as_array).into_iter().flatten() {
                    let name = |kind: &str| piece.get(kind)?.get("id")?.as_str();
                    if let Some(id) = name("SpecialToken")
                        && !known.is_some_and(|known| known.contains_key(id))
                    {
                        return Err(format!(
                            "has a template with token {id:?}, which its special_tokens lack"
                        ));
                    }
                    if name("Sequence").is_some_and(|id| id != "A") {
                        return Err("has a template for one text that asks for a second".into());
                    }
                }
            }
            object.values().try_for_each(check_templates)
        }
        _ => Ok(()),
    }
}

/// The beginning of a text, for messages.
fn excerpt(text: &str) -> String {
    let mut excerpt: String = text.chars().take(40).collect();
    if excerpt.len() < text.len() {
        excerpt.push('…');
    }
    excerpt
}
