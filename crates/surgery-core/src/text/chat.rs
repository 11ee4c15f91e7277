//! A model's chat template: a Jinja program that renders messages as the text that the model was trained on.
//!
//! It is rendered as in transformers, with the same variables, functions and filters. There are three limitations: tools and
//! documents are always none; messages have no keys other than `role` and `content`; and `strftime_now` gives UTC, the time
//! at which the template was loaded.

mod date;
mod functions;
mod limits;
mod python;
mod source;
mod tokens;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use minijinja::{Environment, ErrorKind, Value, context};
use serde_json::{Value as Json, json};

use super::assembly::SETTINGS;
use super::{Message, MessageContent, guarded};
use crate::error::{Error, Result};
use crate::files::Folder;

use functions::{MARKS, Raised};
use limits::{Limited, MOST_OUTPUT};

/// The file of the template.
const FILE: &str = "chat_template.jinja";
/// The key of the template in tokenizer_config.json, used if there is no such file.
const KEY: &str = "chat_template";
/// Maximum size of a template in bytes. Those of real models have up to some tens of kilobytes.
const MOST_BYTES: u64 = 1 << 20;
/// The name of the template in the engine.
const NAME: &str = "template";

/// A rendered conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// The ranges of bytes that come from `{% generation %}` blocks.
    pub generated: Vec<Range<usize>>,
}

/// A model's chat template, or the reason why there is none.
#[derive(Debug, Clone)]
pub(super) enum Chat {
    Template(Box<ChatTemplate>),
    /// The model's folder has none.
    Missing {
        folder: String,
    },
    /// The template is unusable. The error is reported when a document needs the template.
    Unusable {
        path: String,
        problem: String,
        remedy: String,
    },
}

impl Chat {
    pub(super) fn load(folder: &Folder, tokens: BTreeMap<String, String>) -> Result<Self> {
        match ChatTemplate::load(folder, tokens) {
            Ok(Some(template)) => Ok(Chat::Template(Box::new(template))),
            Ok(None) => Ok(Chat::Missing { folder: folder.label("") }),
            Err(Error::Data { path, problem, remedy }) => Ok(Chat::Unusable { path, problem, remedy }),
            Err(Error::Config { path, key, found, expected }) => {
                let (problem, remedy) = (format!("`{key}` is {found}"), format!("expected {expected}"));
                Ok(Chat::Unusable { path, problem, remedy })
            }
            Err(other) => Err(other),
        }
    }

    pub(super) fn template(&self) -> Result<&ChatTemplate> {
        match self {
            Chat::Template(template) => Ok(template),
            Chat::Missing { folder } => Err(Error::Data {
                path: folder.clone(),
                problem: "the model has no chat template, which documents with `messages` need".into(),
                remedy: format!("give them as `prompt` and `completion`, or add a {FILE} to the model"),
            }),
            Chat::Unusable { path, problem, remedy } => {
                let (path, problem, remedy) = (path.clone(), problem.clone(), remedy.clone());
                Err(Error::Data { path, problem, remedy })
            }
        }
    }
}

/// A chat template, ready to render.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    path: String,
    source: String,
    has_generation: bool,
    longest_literal: usize,
    /// The special tokens by name, such as `bos_token`.
    tokens: BTreeMap<String, String>,
    environment: Arc<Environment<'static>>,
}

impl ChatTemplate {
    /// The template of the model in `folder`, if it has one. `tokens` are its special tokens by name.
    fn load(folder: &Folder, tokens: BTreeMap<String, String>) -> Result<Option<Self>> {
        let (path, source) = if folder.has(FILE) {
            let source = String::from_utf8(folder.read(FILE, MOST_BYTES)?);
            let path = folder.label(FILE);
            let source = source.map_err(|_| unusable(&path, "is not UTF-8".into()))?;
            (path, source)
        } else if folder.has(SETTINGS) {
            let path = folder.label(SETTINGS);
            match in_settings(&path, folder.json(SETTINGS)?.get(KEY))? {
                Some(source) => (path, source),
                None => return Ok(None),
            }
        } else {
            return Ok(None);
        };
        Self::of_source(path, &source, tokens).map(Some)
    }

    /// Compiles a template. Messages name `path`.
    pub fn of_source(path: String, source: &str, tokens: BTreeMap<String, String>) -> Result<Self> {
        if source.len() as u64 > MOST_BYTES {
            let problem = format!("has {} bytes; a template may have {MOST_BYTES}", source.len());
            return Err(unusable(&path, problem));
        }
        let rewritten = source::rewrite(source).map_err(|problem| unusable(&path, problem))?;
        let mut template = Self {
            path,
            source: rewritten.source,
            has_generation: rewritten.has_generation,
            longest_literal: rewritten.longest_literal,
            tokens,
            environment: Arc::default(),
        };
        template.compile(SystemTime::now())?;
        Ok(template)
    }

    /// Sets the time of `strftime_now`.
    pub fn set_now(&mut self, now: SystemTime) -> Result<()> {
        self.compile(now)
    }

    fn compile(&mut self, now: SystemTime) -> Result<()> {
        let mut environment = functions::environment(now);
        environment.set_fuel(Some(limits::fuel(self.longest_literal)));
        let source = self.source.clone();
        let added = guarded(|| Ok(environment.add_template_owned(NAME, source)));
        let added = added.map_err(|problem| unusable(&self.path, problem))?;
        added.map_err(|error| unusable(&self.path, format!("is not a template: {}", described(&error))))?;
        self.environment = Arc::new(environment);
        Ok(())
    }

    /// The file that it was read from.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it marks the text to predict by `{% generation %}` blocks.
    pub fn has_generation(&self) -> bool {
        self.has_generation
    }

    /// Renders messages, followed by the beginning of an answer if `prompts` is true.
    pub fn render(&self, messages: &[Message], prompts: bool) -> Result<Rendered> {
        let content = |content: &MessageContent| match content {
            MessageContent::Text(text) => json!(text),
            MessageContent::Parts(parts) => {
                parts.iter().map(|part| json!({ "type": "text", "text": part })).collect()
            }
        };
        let list: Json = messages
            .iter()
            .map(|message| json!({ "role": message.role, "content": content(&message.content) }))
            .collect();
        let texts =
            || messages.iter().flat_map(|message| [message.role.as_str().into(), message.content.text()]);
        let texts = || texts().chain(self.tokens.values().map(|token| token.as_str().into()));
        // Mark blocks with private characters that do not occur in the text.
        let private = '\u{f0000}'..'\u{ffffe}';
        let mut used = BTreeSet::new();
        texts().for_each(|text| used.extend(text.chars().filter(|letter| private.contains(letter))));
        let mut free = private.filter(|letter| !used.contains(letter));
        let marks = [free.next(), free.next()].map(|mark| mark.unwrap_or('\u{ffffd}'));
        let input: usize = texts().map(|text| text.len()).sum();
        let variables = context! {
            messages => Value::from_serialize(&list),
            add_generation_prompt => prompts,
            tools => (),
            documents => (),
            ..Value::from_serialize(&self.tokens)
        };
        let mut out = Limited::default();
        let outcome = guarded(|| {
            limits::begin(input);
            MARKS.set(marks);
            let template = self.environment.get_template(NAME);
            Ok(template.and_then(|template| template.render_captured_to(variables, &mut out).map(drop)))
        });
        let outcome = outcome.map_err(|problem| unusable(&self.path, problem))?;
        outcome.map_err(|error| match error.source().and_then(|source| source.downcast_ref::<Raised>()) {
            Some(Raised(message)) => unusable(&self.path, format!("refuses the messages: {message}")),
            None => unusable(&self.path, format!("cannot be rendered: {}", described(&error))),
        })?;
        let text = String::from_utf8(out.0).expect("the engine writes UTF-8");
        if !self.has_generation {
            return Ok(Rendered { text, generated: Vec::new() });
        }
        match cut_marks(&text, marks) {
            Some(rendered) => Ok(rendered),
            None => Err(unusable(&self.path, "changes the content of its generation blocks".into())),
        }
    }
}

/// The template in tokenizer_config.json: a text, or the template named `default` in a list.
fn in_settings(path: &str, value: Option<&Json>) -> Result<Option<String>> {
    let wrong = |expected: &str| Error::Config {
        path: path.into(),
        key: KEY.into(),
        found: value.map_or("missing".into(), crate::json::shown),
        expected: expected.into(),
    };
    match value {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(source)) => Ok(Some(source.clone())),
        Some(Json::Array(list)) => {
            let default =
                list.iter().find(|template| template.get("name").is_some_and(|name| name == "default"));
            let source = default.and_then(|template| template.get("template")?.as_str());
            let source = source.ok_or_else(|| wrong("a list with a template named \"default\""))?;
            Ok(Some(source.to_owned()))
        }
        Some(_) => Err(wrong("a template, or a list of templates")),
    }
}

fn unusable(path: &str, problem: String) -> Error {
    let remedy = "correct the chat template, or give the documents as `prompt` and `completion`".into();
    Error::Data { path: path.into(), problem, remedy }
}

/// The engine's message, with the line.
fn described(error: &minijinja::Error) -> String {
    let problem = match error.kind() {
        ErrorKind::OutOfFuel => "executes more instructions than a conversation can need".into(),
        ErrorKind::WriteFailure => format!("writes more than {MOST_OUTPUT} bytes"),
        kind => error.detail().map_or_else(|| kind.to_string(), |detail| format!("{kind}: {detail}")),
    };
    match error.line() {
        Some(line) => format!("{problem} (line {line})"),
        None => problem,
    }
}

/// The text without the marks, and the ranges between them; `None` if the marks do not match.
fn cut_marks(text: &str, [begin, end]: [char; 2]) -> Option<Rendered> {
    let mut rendered = Rendered::default();
    let mut open = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find([begin, end]) {
        rendered.text.push_str(&rest[..at]);
        let mark = rest[at..].chars().next()?;
        match mark == begin {
            true => open.push(rendered.text.len()),
            false => rendered.generated.push(open.pop()?..rendered.text.len()),
        }
        rest = &rest[at + mark.len_utf8()..];
    }
    rendered.text.push_str(rest);
    open.is_empty().then_some(rendered)
}

#[cfg(test)]
mod tests;
