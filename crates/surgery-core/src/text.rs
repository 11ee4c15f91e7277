//! Encoding and decoding of texts with the model's tokenizer.

mod assembly;
pub mod chat;
mod message;

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::SystemTime;

use serde_json::Value;
use tokenizers::{Encoding, Tokenizer};

use crate::error::{Error, Result};
use crate::files::Folder;

use assembly::{Assembled, FILE, assemble};
use chat::{Chat, ChatTemplate};

pub use message::{Message, MessageContent};

/// Maximum factor by which replacements may lengthen a text. Llama's lengthen it up to 3 times. A hundred replacements that
/// each double it would exceed any memory.
const MOST_GROWTH: f64 = 1000.0;

/// A model's tokenizer. It encodes texts with its special tokens (Llama: BOS at the beginning, no EOS).
#[derive(Debug, Clone)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    path: String,
    vocab_size: usize,
    beginning: Option<String>,
    end_token: Option<u32>,
    chat: Chat,
    conflicts: Vec<String>,
}

/// A token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its bytes in the text. If a letter is divided among several tokens, each has all bytes of the letter.
    pub bytes: Range<usize>,
    /// Whether the tokenizer added it to the text.
    pub is_added: bool,
}

impl TextEncoder {
    /// Loads `tokenizer.json`, with the settings in the files beside it, for a model with `vocab_size` rows.
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
        let Assembled { mut tokenizer, names, conflicts } = assemble(folder)?;
        let beginning = ["bos_token", "eos_token"].iter().find_map(|name| names.get(*name)).cloned();
        let end_token = match names.get("eos_token") {
            Some(token) => tokenizer.token_to_id(token),
            None => first_end_token(folder)?,
        };
        let end_token = end_token.filter(|&id| (id as usize) < vocab_size);
        let chat = Chat::load(folder, names)?;
        let normalizer = serde_json::to_value(tokenizer.get_normalizer());
        let decoder = serde_json::to_value(tokenizer.get_decoder());
        for (part, content) in [("normalizer", normalizer), ("decoder", decoder)] {
            let growth = content.as_ref().map_or(1.0, growth);
            if growth > MOST_GROWTH {
                return Err(Error::Tokenizer {
                    path,
                    problem: format!(
                        "has a `{part}` that may make a text {growth:.0} times as long; at most {MOST_GROWTH} times is \
                         accepted"
                    ),
                });
            }
        }
        // Padding or truncation settings in the file would silently change the texts.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).expect("removing a truncation cannot fail");
        Ok(Self { tokenizer, path, vocab_size, beginning, end_token, chat, conflicts })
    }

    /// The ids of `text`, special tokens included.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encode_with_ends(text)?.into_iter().map(|(id, _)| id).collect())
    }

    /// The ids of `text` as lm-evaluation-harness encodes it: special tokens included, unless the text begins with the BOS
    /// token (or, if there is none, with the end token).
    pub fn encode_for_harness(&self, text: &str) -> Result<Vec<u32>> {
        let begun = self.beginning.as_ref().is_some_and(|token| text.starts_with(token.as_str()));
        Ok(self.ids_and_ends(text, !begun)?.into_iter().map(|(id, _)| id).collect())
    }

    /// The ids of `text`, each with the byte offset in `text` at which it ends; special tokens end at 0.
    pub fn encode_with_ends(&self, text: &str) -> Result<Vec<(u32, usize)>> {
        self.ids_and_ends(text, true)
    }

    /// The tokens of `text`, each with its bytes in `text`.
    pub fn encode_with_spans(&self, text: &str, special_tokens: bool) -> Result<Vec<Token>> {
        let encoding = self.encoding(text, special_tokens)?;
        let mut end_before = 0;
        let tokens =
            encoding.get_ids().iter().zip(encoding.get_offsets()).zip(encoding.get_special_tokens_mask());
        let token = |((&id, &(start, end)), &is_special): ((&u32, &(usize, usize)), &u32)| {
            // Some tokenizers exclude blanks at the beginning of a token from its offsets.
            let bytes = if is_special == 0 { start.min(end_before)..end } else { 0..0 };
            end_before = end_before.max(end);
            Token { id, bytes, is_added: is_special != 0 }
        };
        Ok(tokens.map(token).collect())
    }

    /// The token that ends a text: `eos_token` of tokenizer_config.json, or the first `eos_token_id` of
    /// generation_config.json or config.json.
    pub fn end_token(&self) -> Option<u32> {
        self.end_token
    }

    /// The model's chat template. A model without one is an input error.
    pub fn chat(&self) -> Result<&ChatTemplate> {
        self.chat.template()
    }

    /// Sets the time of the chat template's `strftime_now`; by default it is the time of loading.
    pub fn set_now(&mut self, now: SystemTime) -> Result<()> {
        match &mut self.chat {
            Chat::Template(template) => template.set_now(now),
            _ => Ok(()),
        }
    }

    fn ids_and_ends(&self, text: &str, special_tokens: bool) -> Result<Vec<(u32, usize)>> {
        let encoding = self.encoding(text, special_tokens)?;
        let ends = encoding.get_offsets().iter().map(|&(_, end)| end);
        Ok(encoding.get_ids().iter().copied().zip(ends).collect())
    }

    fn encoding(&self, text: &str, special_tokens: bool) -> Result<Encoding> {
        let encoding =
            guarded(|| self.tokenizer.encode(text, special_tokens)).map_err(|error| Error::Tokenizer {
                path: self.path.clone(),
                problem: format!("cannot encode {:?} ({error})", excerpt(text)),
            })?;
        match encoding.get_ids().iter().find(|id| **id as usize >= self.vocab_size) {
            None => Ok(encoding),
            Some(id) => Err(Error::Tokenizer {
                path: self.path.clone(),
                problem: format!(
                    "gives token {id} for {:?}, but the model has rows for {} tokens only: tokenizer and model do not \
                     belong together",
                    excerpt(text),
                    self.vocab_size
                ),
            }),
        }
    }

    /// Warnings about files beside tokenizer.json that contradict it and are ignored.
    pub fn conflicts(&self) -> &[String] {
        &self.conflicts
    }

    /// Whether both have the same tokens with the same ids.
    pub fn has_vocabulary_of(&self, other: &Self) -> bool {
        self.tokenizer.get_vocab(true) == other.tokenizer.get_vocab(true)
    }

    /// The tokens without a row in the model, ordered by id. A text that contains one is refused.
    pub fn tokens_without_row(&self) -> Vec<(u32, String)> {
        let tokens = self.tokenizer.get_vocab(true).into_iter().map(|(token, id)| (id, token));
        let mut without: Vec<(u32, String)> =
            tokens.filter(|(id, _)| *id as usize >= self.vocab_size).collect();
        without.sort();
        without
    }

    /// The control tokens, ordered by id. If a text contains the letters of one, it is encoded as that token.
    pub fn special_tokens(&self) -> Vec<String> {
        let added = self.tokenizer.get_added_tokens_decoder();
        let mut special: Vec<(u32, String)> = added
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, token)| (id, token.content))
            .collect();
        special.sort();
        special.into_iter().map(|(_, token)| token).collect()
    }

    /// The text of `ids`, without special tokens.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        guarded(|| self.tokenizer.decode(ids, true)).map_err(|error| Error::Tokenizer {
            path: self.path.clone(),
            problem: format!("cannot decode generated tokens ({error})"),
        })
    }

    /// The text of each of `ids` behind the tokens `before`, special tokens by their own text. Of a letter that several tokens
    /// share, the last of them has it, and the others have no text.
    pub fn texts_of_tokens(&self, before: &[u32], ids: &[u32]) -> Result<Vec<String>> {
        /// No letter has more tokens: what cannot be decoded after as many is no letter.
        const MOST: usize = 8;
        let decode = |ids: &[u32]| {
            guarded(|| self.tokenizer.decode(ids, false)).map_err(|error| Error::Tokenizer {
                path: self.path.clone(),
                problem: format!("cannot decode the tokens of a text ({error})"),
            })
        };
        let all = [before, ids].concat();
        let mut texts = vec![String::new(); ids.len()];
        // The tokens from `shown` to `begun` are decoded again, for the first of a text loses a space in front.
        let (mut shown, mut begun) = (before.len().saturating_sub(MOST), before.len());
        for end in before.len() + 1..=all.len() {
            let (prefix, whole) = (decode(&all[shown..begun])?, decode(&all[shown..end])?);
            let text = match whole.strip_prefix(&prefix) {
                Some(text) => text.to_owned(),
                None => decode(&all[begun..end])?,
            };
            let is_whole = !text.ends_with('\u{fffd}') || end - begun == MOST || end == all.len();
            if is_whole {
                texts[end - before.len() - 1] = text;
                (shown, begun) = (begun, end);
            }
        }
        Ok(texts)
    }

    /// The text that `new` adds after `before`. Decoding `new` alone could lose a space at the beginning.
    pub fn decode_continuation(&self, before: &[u32], new: &[u32]) -> Result<String> {
        let whole: Vec<u32> = before.iter().chain(new).copied().collect();
        let (prefix, whole) = (self.decode(before)?, self.decode(&whole)?);
        match whole.strip_prefix(&prefix) {
            Some(continuation) => Ok(continuation.to_owned()),
            None => self.decode(new),
        }
    }
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a library whose panics become errors. A panic hook should not report them.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

/// Runs code of the tokenizer library, and turns panics into errors. The library panics at some malformed files (a
/// post-processor that names a missing token, a normalizer with a truncated table) when it reads them, or at the first
/// text.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    GUARDED.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(false);
    match outcome {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message =
                message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
            Err(format!("the file is malformed: {}", message.lines().next().unwrap_or_default()))
        }
    }
}

/// The first end token in generation_config.json, or else in config.json.
fn first_end_token(folder: &Folder) -> Result<Option<u32>> {
    for file in ["generation_config.json", "config.json"].into_iter().filter(|file| folder.has(file)) {
        let settings = folder.json(file)?;
        let ids = settings.get("eos_token_id");
        let first = ids.and_then(|ids| ids.as_array().map_or(Some(ids), |ids| ids.first()));
        if let Some(id) = first.and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok()) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// The maximum factor by which the successive replacements in a normalizer or decoder can lengthen a text.
fn growth(part: &Value) -> f64 {
    let inner = ["normalizers", "decoders"].into_iter().find_map(|key| part.get(key)?.as_array());
    if let Some(inner) = inner {
        return inner.iter().map(growth).product();
    }
    if part.get("type").and_then(Value::as_str) != Some("Replace") {
        return 1.0;
    }
    let content = part.get("content").and_then(Value::as_str).unwrap_or_default();
    let replaced = part.get("pattern").and_then(|pattern| pattern.get("String")).and_then(Value::as_str);
    match replaced {
        Some(replaced) if !replaced.is_empty() => (content.len() as f64 / replaced.len() as f64).max(1.0),
        // A regular expression may match, and insert its replacement, between any two bytes.
        _ => content.len() as f64 + 1.0,
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
