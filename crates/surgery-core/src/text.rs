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
    /// Tokens put before and after every text where tokenizer_config.json says so and tokenizer.json's
    /// own template is to be overruled, as transformers' Llama tokenizers do.
    frame: Option<Frame>,
}

#[derive(Debug, Clone, Default)]
struct Frame {
    before: Vec<u32>,
    after: Vec<u32>,
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
        let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(|error| Error::Tokenizer {
            path: path.clone(),
            problem: format!("is not a tokenizer this program can read ({error})"),
        })?;
        // The file may ask for padding or truncation, which would silently change the texts.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).expect("removing a truncation cannot fail");
        let frame = frame(folder, &tokenizer)?;
        Ok(Self { tokenizer, path, vocab_size, frame })
    }

    /// The ids of `text`, special tokens included.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encode_with_ends(text)?.into_iter().map(|(id, _)| id).collect())
    }

    /// The ids of `text`, each with the byte offset in `text` at which it ends; special tokens end at 0.
    pub fn encode_with_ends(&self, text: &str) -> Result<Vec<(u32, usize)>> {
        let own_template = self.frame.is_none();
        let encoding = self.tokenizer.encode(text, own_template).map_err(|error| Error::Tokenizer {
            path: self.path.clone(),
            problem: format!("cannot encode {:?} ({error})", excerpt(text)),
        })?;
        let frame = self.frame.clone().unwrap_or_default();
        let special = |ids: Vec<u32>| ids.into_iter().map(|id| (id, 0));
        let inner = encoding.get_ids().iter().zip(encoding.get_offsets()).map(|(&id, &(_, end))| (id, end));
        let tokens: Vec<(u32, usize)> =
            special(frame.before).chain(inner).chain(special(frame.after)).collect();
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

/// What transformers' Llama tokenizer classes do with `add_bos_token` and `add_eos_token`: where
/// tokenizer_config.json sets either, they replace the template of tokenizer.json.
fn frame(folder: &Folder, tokenizer: &Tokenizer) -> Result<Option<Frame>> {
    const CONFIG: &str = "tokenizer_config.json";
    if !folder.has(CONFIG) {
        return Ok(None);
    }
    let config = folder.json(CONFIG)?;
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    let flag = |key: &str| config.get(key).and_then(Value::as_bool);
    if !class.starts_with("LlamaTokenizer") || (flag("add_bos_token").or(flag("add_eos_token"))).is_none() {
        return Ok(None);
    }
    let token = |key: &str| -> Result<Vec<u32>> {
        let value = config.get(key);
        let content = value.and_then(|value| value.as_str().or(value.get("content").and_then(Value::as_str)));
        let id = content.and_then(|content| tokenizer.token_to_id(content));
        id.map(|id| vec![id]).ok_or_else(|| Error::Tokenizer {
            path: folder.label(CONFIG),
            problem: format!(
                "asks for a token in front of or behind each text, but its `{key}` is {}, which tokenizer.json \
                 does not have",
                content.map_or("missing".to_owned(), |content| format!("{content:?}"))
            ),
        })
    };
    let before = if flag("add_bos_token").unwrap_or(true) { token("bos_token")? } else { Vec::new() };
    let after = if flag("add_eos_token").unwrap_or(false) { token("eos_token")? } else { Vec::new() };
    Ok(Some(Frame { before, after }))
}

/// The beginning of a text, for messages.
fn excerpt(text: &str) -> String {
    let mut excerpt: String = text.chars().take(40).collect();
    if excerpt.len() < text.len() {
        excerpt.push('…');
    }
    excerpt
}
