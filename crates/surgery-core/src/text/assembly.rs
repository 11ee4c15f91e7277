//! The tokenizer of a model folder, built from tokenizer.json and the files beside it as in transformers 5.
//!
//! tokenizer_config.json names a class. Most classes use tokenizer.json unchanged. Some use its vocabulary, merges and
//! post-processor, and build the rest by their own rules ([`Class`]). Then tokens are added that only the files beside it
//! declare, in the order of `PreTrainedTokenizerBase._from_pretrained` and `TokenizersBackend.__init__`. A token that would
//! get another id than in its file is refused.

mod class;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use self::class::Class;
use super::guarded;
use crate::error::{Error, Result};
use crate::files::Folder;

/// The file that holds the vocabulary.
pub(super) const FILE: &str = "tokenizer.json";
/// The file that names the class and its settings.
pub(super) const SETTINGS: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const ADDED_TOKENS: &str = "added_tokens.json";
/// Maximum size of a file in bytes. Files with a quarter of a million tokens have some tens of MB.
const LIMIT: u64 = 256 << 20;
/// The names of special tokens that every class has.
const NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A tokenizer, with its special tokens and warnings.
pub(super) struct Assembled {
    pub(super) tokenizer: Tokenizer,
    /// The texts of its usual special tokens, by name.
    pub(super) names: BTreeMap<String, String>,
    /// Warnings about settings that are ignored, because transformers ignores them.
    pub(super) conflicts: Vec<String>,
}

/// Builds the tokenizer of the model in `folder`.
pub(super) fn assemble(folder: &Folder) -> Result<Assembled> {
    let bytes = folder.read(FILE, LIMIT)?;
    let settings = Settings::read(folder)?;
    let class = settings.class(folder, &bytes)?;
    let unreadable = |problem: String| Error::Tokenizer {
        path: folder.label(FILE),
        problem: format!("is not a tokenizer that this program can read ({problem})"),
    };
    let (mut tokenizer, in_file) = match class {
        Class::File => (guarded(|| Tokenizer::from_bytes(&bytes)).map_err(unreadable)?, Vec::new()),
        class => {
            let mut value: Value =
                serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
            let in_file = value.get("added_tokens").and_then(Value::as_array).cloned().unwrap_or_default();
            class.rebuild(&mut value, &settings).map_err(unreadable)?;
            (guarded(|| Tokenizer::from_bytes(value.to_string())).map_err(unreadable)?, in_file)
        }
    };
    let tokens = settings.tokens(folder, class, &in_file)?;
    tokens.add_to(&mut tokenizer)?;
    tokenizer.set_encode_special_tokens(settings.flag("split_special_tokens")?.unwrap_or(false));
    let conflicts = settings.prefix_conflict(class, &tokenizer)?.into_iter().collect();
    let named = |name: &&str| Some(((*name).to_owned(), tokens.named(name)?.to_owned()));
    let names = NAMES.iter().filter_map(named).collect();
    Ok(Assembled { tokenizer, names, conflicts })
}

/// A token in a file.
#[derive(Debug, Clone, PartialEq)]
enum Declared {
    /// A text without properties: a special token.
    Text(String),
    /// A token with its properties.
    Token(AddedToken),
}

impl Declared {
    fn content(&self) -> &str {
        match self {
            Declared::Text(text) => text,
            Declared::Token(token) => &token.content,
        }
    }
}

/// The content of tokenizer_config.json; empty if there is none.
struct Settings {
    path: String,
    keys: Map<String, Value>,
}

impl Settings {
    fn read(folder: &Folder) -> Result<Self> {
        let keys = match folder.has(SETTINGS) {
            true => object(folder, SETTINGS)?,
            false => Map::new(),
        };
        Ok(Self { path: folder.label(SETTINGS), keys })
    }

    fn wrong(&self, key: &str, expected: &str) -> Error {
        wrong(&self.path, key, self.keys.get(key), expected)
    }

    /// The value of a key; null counts as missing.
    fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// The class that `AutoTokenizer` uses for a Llama or a Mistral.
    fn class(&self, folder: &Folder, tokenizer: &[u8]) -> Result<Class> {
        const KEY: &str = "tokenizer_class";
        const CONFIG: &str = "config.json";
        let config = if folder.has(CONFIG) { object(folder, CONFIG)? } else { Map::new() };
        let name = self.get(KEY).or(config.get(KEY).filter(|value| !value.is_null()));
        // The file of a Mistral is used unchanged, whatever class it names.
        if name.is_none() || config.get("model_type").and_then(Value::as_str) == Some("mistral") {
            return Ok(Class::File);
        }
        let name = name.and_then(Value::as_str).ok_or_else(|| self.wrong(KEY, "the name of a class"))?;
        let contains = |part: &[u8]| tokenizer.windows(part.len()).any(|window| window == part);
        match name.strip_suffix("Fast").unwrap_or(name) {
            "PreTrainedTokenizer" | "TokenizersBackend" | "PythonBackend" => Ok(Class::File),
            // Llama 3's file under the name of Llama 2's class.
            "LlamaTokenizer" if contains(b"\"ByteLevel\"") => Ok(Class::File),
            "LlamaTokenizer" => Ok(Class::Llama),
            "CodeLlamaTokenizer" => Ok(Class::CodeLlama),
            "GPT2Tokenizer" => Ok(Class::Gpt2),
            _ => Err(self.wrong(
                KEY,
                "LlamaTokenizer, CodeLlamaTokenizer, GPT2Tokenizer or PreTrainedTokenizerFast: transformers builds \
                 other classes by rules that are not supported; set it to \"PreTrainedTokenizerFast\" to use \
                 tokenizer.json unchanged",
            )),
        }
    }

    /// A warning if `add_prefix_space` contradicts the file, for a class that uses the file unchanged.
    fn prefix_conflict(&self, class: Class, tokenizer: &Tokenizer) -> Result<Option<String>> {
        let Some(wanted) = self.flag("add_prefix_space")?.filter(|_| class == Class::File) else {
            return Ok(None);
        };
        let Ok(encoding) = guarded(|| tokenizer.encode("a", false)) else { return Ok(None) };
        let found = encoding.get_tokens().first().is_some_and(|token| token.starts_with(['▁', 'Ġ']));
        Ok((wanted != found).then(|| {
            format!(
                "{}: `add_prefix_space` is {wanted}, but {FILE} {} a space before a text; {FILE} is used, as in \
                 transformers",
                self.path,
                if found { "puts" } else { "does not put" }
            )
        }))
    }

    /// The tokens that the files beside tokenizer.json declare. `in_file` are the added tokens of tokenizer.json, for a class
    /// that does not use that list.
    fn tokens(&self, folder: &Folder, class: Class, in_file: &[Value]) -> Result<Tokens> {
        let mut tokens = Tokens { path: self.path.clone(), ..Tokens::default() };
        let mut names: Vec<(String, Declared)> = class.default_tokens();
        let mut put = |name: &str, token: Declared| match names.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = token,
            None => names.push((name.into(), token)),
        };
        // Special tokens by name: any key that ends in `_token`.
        for (key, value) in
            self.keys.iter().filter(|(key, value)| key.ends_with("_token") && !value.is_null())
        {
            match declared(value, false) {
                Some(token) => put(key, token),
                // Keys such as `add_bos_token` are flags, not tokens.
                None if value.is_boolean() => {}
                None => return Err(self.wrong(key, "the text of a token")),
            }
        }
        // The second key is the older name of the first.
        for key in ["extra_special_tokens", "additional_special_tokens"] {
            match self.get(key) {
                Some(Value::Object(more)) => {
                    for (name, value) in more {
                        let token =
                            declared(value, false).ok_or_else(|| self.wrong(key, "tokens by name"))?;
                        put(name, token);
                    }
                }
                Some(Value::Array(more)) if tokens.extra.is_empty() => {
                    let more = more.iter().map(|value| declared(value, false)).collect::<Option<_>>();
                    tokens.extra = more.ok_or_else(|| self.wrong(key, "a list of tokens"))?;
                }
                Some(Value::Array(_)) | None => {}
                Some(_) => return Err(self.wrong(key, "a list of tokens")),
            }
        }
        const DECODER: &str = "added_tokens_decoder";
        if let Some(value) = self.get(DECODER) {
            let wrong = || self.wrong(DECODER, "tokens with their properties, by id");
            for (id, value) in value.as_object().ok_or_else(wrong)? {
                let Some(Declared::Token(token)) = declared(value, true) else { return Err(wrong()) };
                tokens.by_id.insert(id.parse().map_err(|_| wrong())?, token);
            }
        } else {
            if folder.has(SPECIAL_TOKENS) {
                let path = folder.label(SPECIAL_TOKENS);
                for (name, value) in &object(folder, SPECIAL_TOKENS)? {
                    let wrong = || wrong(&path, name, Some(value), "a token or a list of tokens");
                    match value {
                        Value::Array(more) => {
                            let more = more.iter().map(|value| declared(value, false));
                            let more = more.collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
                            if tokens.extra.is_empty() {
                                tokens.extra = more;
                            } else if name == "extra_special_tokens" {
                                tokens.extra.extend(more);
                            }
                        }
                        Value::Null => {}
                        value => match declared(value, true).ok_or_else(wrong)? {
                            Declared::Token(token) => put(name, Declared::Token(token.special(true))),
                            text => put(name, text),
                        },
                    }
                }
            }
            tokens.add_legacy(folder, &names, in_file)?;
        }
        // Use the properties of a named token if they are known.
        let known = |content: &str| tokens.by_id.values().find(|token| token.content == content).cloned();
        for (_, token) in &mut names {
            if let Some(token_known) = known(token.content()) {
                *token = Declared::Token(token_known);
            }
        }
        // The order of transformers: the usual names first.
        names.sort_by_key(|(name, _)| NAMES.iter().position(|usual| usual == name).unwrap_or(NAMES.len()));
        tokens.names = names;
        Ok(tokens)
    }
}

/// The tokens that files beside tokenizer.json declare.
#[derive(Default)]
struct Tokens {
    /// The file of the ids, for messages.
    path: String,
    /// Tokens with the ids that they must have.
    by_id: BTreeMap<u32, AddedToken>,
    /// Special tokens by name.
    names: Vec<(String, Declared)>,
    /// Special tokens without a name.
    extra: Vec<Declared>,
}

impl Tokens {
    /// Adds the tokens of folders without `added_tokens_decoder`: those of added_tokens.json, and the list in tokenizer.json.
    fn add_legacy(&mut self, folder: &Folder, names: &[(String, Declared)], in_file: &[Value]) -> Result<()> {
        if folder.has(ADDED_TOKENS) {
            self.path = folder.label(ADDED_TOKENS);
            let special: BTreeSet<&str> =
                names.iter().map(|(_, token)| token).chain(&self.extra).map(Declared::content).collect();
            for (content, value) in object(folder, ADDED_TOKENS)? {
                let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
                let id = id.ok_or_else(|| wrong(&self.path, &content, Some(&value), "a token id"))?;
                let token = AddedToken::from(content.clone(), special.contains(content.as_str()));
                self.by_id.insert(id, token);
            }
        }
        for value in in_file {
            let id = value.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
            let mut properties = value.clone();
            properties.as_object_mut().map(|properties| properties.remove("id"));
            let (Some(id), Some(Declared::Token(token))) = (id, declared(&properties, true)) else {
                return Err(wrong(&folder.label(FILE), "added_tokens", Some(value), "a token with its id"));
            };
            self.by_id.insert(id, token);
        }
        Ok(())
    }

    fn named(&self, name: &str) -> Option<&str> {
        self.names.iter().find(|(other, _)| other == name).map(|(_, token)| token.content())
    }

    /// Adds the tokens that `tokenizer` does not have yet.
    fn add_to(&self, tokenizer: &mut Tokenizer) -> Result<()> {
        let present = tokenizer.get_added_tokens_decoder();
        let mut missing: Vec<AddedToken> = self
            .by_id
            .values()
            .filter(|token| !present.values().any(|other| same(token, other)))
            .cloned()
            .collect();
        let known: BTreeSet<&str> =
            present.values().chain(self.by_id.values()).map(|token| token.content.as_str()).collect();
        for token in self.names.iter().map(|(_, token)| token).chain(&self.extra) {
            let content = token.content();
            if !known.contains(content) && !missing.iter().any(|other| other.content == content) {
                missing.push(match token {
                    Declared::Text(text) => AddedToken::from(text.clone(), true),
                    Declared::Token(token) => token.clone(),
                });
            }
        }
        for token in &mut missing {
            token.special |= self.names.iter().any(|(_, named)| named.content() == token.content);
        }
        guarded(|| Ok(tokenizer.add_tokens(&missing))).map_err(|problem| Error::Tokenizer {
            path: self.path.clone(),
            problem: format!("declares tokens that cannot be added ({problem})"),
        })?;
        for (id, token) in &self.by_id {
            let given = tokenizer.token_to_id(&token.content);
            if given != Some(*id) {
                let given = given.map_or("none".to_owned(), |given| given.to_string());
                return Err(Error::Tokenizer {
                    path: self.path.clone(),
                    problem: format!(
                        "gives token {:?} the id {id}, but its id in {FILE} is {given}; make the two files agree, or \
                         download them again",
                        token.content
                    ),
                });
            }
        }
        Ok(())
    }
}

/// A token: a text, or an object with its properties. Unless `must_be_token`, the object needs `"__type": "AddedToken"`.
fn declared(value: &Value, must_be_token: bool) -> Option<Declared> {
    const TYPE: &str = "__type";
    match value {
        Value::String(text) => Some(Declared::Text(text.clone())),
        Value::Object(properties) => {
            let is_token = properties.get(TYPE).map(|kind| kind == "AddedToken");
            if !is_token.unwrap_or(must_be_token) {
                return None;
            }
            let content = properties.get("content")?.as_str()?.to_owned();
            let flag = |key: &str| properties.get(key).map(Value::as_bool);
            // A property in the object must be true or false.
            let or = |key: &str, default: bool| flag(key).unwrap_or(Some(default));
            let special = or("special", false)?;
            Some(Declared::Token(
                AddedToken::from(content, special)
                    .single_word(or("single_word", false)?)
                    .lstrip(or("lstrip", false)?)
                    .rstrip(or("rstrip", false)?)
                    .normalized(or("normalized", !special)?),
            ))
        }
        _ => None,
    }
}

/// Whether two tokens are equal in every property.
fn same(a: &AddedToken, b: &AddedToken) -> bool {
    let properties =
        |token: &AddedToken| [token.single_word, token.lstrip, token.rstrip, token.normalized, token.special];
    a.content == b.content && properties(a) == properties(b)
}

fn object(folder: &Folder, file: &str) -> Result<Map<String, Value>> {
    match folder.json(file)? {
        Value::Object(object) => Ok(object),
        _ => Err(Error::Tokenizer {
            path: folder.label(file),
            problem: "is not a JSON object; restore the file from the source of the folder".into(),
        }),
    }
}

fn wrong(path: &str, key: &str, found: Option<&Value>, expected: &str) -> Error {
    Error::Config {
        path: path.into(),
        key: key.into(),
        found: found.map_or("missing".to_owned(), crate::json::shown),
        expected: expected.into(),
    }
}
