//! Documents in their three forms, read from lines of JSON.

use std::borrow::Cow;

use serde::Deserialize;

use super::jsonl;
use crate::error::{Error, Result};
use crate::files::Folder;
pub use crate::text::{Message, MessageContent};

/// The role whose messages are predicted.
pub const ASSISTANT: &str = "assistant";
/// The three forms, for error messages.
const FORMS: &str = "`text`, or `prompt` and `completion`, or `messages`";

/// A document to train on or to evaluate.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Line")]
pub struct Document {
    /// Unique in its file.
    pub id: String,
    /// Its subject; edit_unlearn and edit_update documents of one subject are sampled together.
    pub subject: Option<String>,
    /// Its text, in one of three forms.
    pub content: Content,
    /// Alternatives that a preference loss prefers to it: other texts, other completions, or other last messages.
    pub alternatives: Vec<String>,
}

/// The text of a document; each form predicts another part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A text, predicted as a whole.
    Text(String),
    /// A prompt and its completion, joined unchanged; only the completion is predicted.
    Completion {
        /// The prompt.
        prompt: String,
        /// The completion; not empty.
        completion: String,
    },
    /// A conversation; the assistant's messages are predicted. There is at least one of them.
    Messages(Vec<Message>),
}

impl Document {
    /// A document that is one text.
    pub fn of_text(id: impl Into<String>, subject: Option<String>, text: impl Into<String>) -> Self {
        Self { id: id.into(), subject, content: Content::Text(text.into()), alternatives: Vec::new() }
    }

    /// The whole text: a prompt and its completion joined unchanged, or messages on lines of their own.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.content {
            Content::Text(text) => text.into(),
            Content::Completion { prompt, completion } => format!("{prompt}{completion}").into(),
            Content::Messages(messages) => {
                let contents: Vec<_> = messages.iter().map(|message| message.content.text()).collect();
                contents.join("\n").into()
            }
        }
    }
}

/// The keys of a line. Other keys are ignored.
#[derive(Deserialize)]
struct Line {
    id: String,
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    completion: Option<String>,
    #[serde(default)]
    messages: Option<Vec<Message>>,
    #[serde(default)]
    alternative: Option<OneOrMore>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`alternative` is neither a string nor a list of strings")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl TryFrom<Line> for Document {
    type Error = String;

    fn try_from(line: Line) -> Result<Self, String> {
        let Line { id, subject, text, prompt, completion, messages, alternative } = line;
        let given = [
            ("text", text.is_some()),
            ("prompt", prompt.is_some()),
            ("completion", completion.is_some()),
            ("messages", messages.is_some()),
        ];
        let given: Vec<_> =
            given.iter().filter(|(_, given)| *given).map(|(key, _)| format!("`{key}`")).collect();
        let content = match (text, prompt, completion, messages) {
            (Some(text), None, None, None) => Content::Text(text),
            (None, Some(prompt), Some(completion), None) => Content::Completion { prompt, completion },
            (None, None, None, Some(messages)) => Content::Messages(messages),
            (None, None, None, None) => {
                return Err(format!("document {id:?} has no text; expected {FORMS}"));
            }
            (None, Some(_), None, None) => {
                return Err(format!("document {id:?} has a `prompt` without a `completion`; add it"));
            }
            (None, None, Some(_), None) => {
                return Err(format!(
                    "document {id:?} has a `completion` without a `prompt`; add it, \"\" for none"
                ));
            }
            _ => return Err(format!("document {id:?} has {}; expected only {FORMS}", given.join(" and "))),
        };
        let alternatives = match alternative {
            None => Vec::new(),
            Some(OneOrMore::One(alternative)) => vec![alternative],
            Some(OneOrMore::More(alternatives)) => alternatives,
        };
        if alternatives.iter().any(|alternative| alternative.trim().is_empty()) {
            return Err(format!("document {id:?} has a blank `alternative`; remove or fill it"));
        }
        match &content {
            Content::Completion { completion, .. } if completion.trim().is_empty() => {
                return Err(format!("document {id:?} has a blank `completion`; fill it, or remove the line"));
            }
            Content::Messages(messages) if messages.is_empty() => {
                return Err(format!(
                    "document {id:?} has an empty list of `messages`; fill it, or remove the line"
                ));
            }
            Content::Messages(messages) => {
                let is_assistant = |message: &Message| message.role == ASSISTANT;
                if !messages.iter().any(is_assistant) {
                    return Err(format!(
                        "document {id:?} has no message whose `role` is {ASSISTANT:?}, so there is nothing to predict"
                    ));
                }
                if !alternatives.is_empty() && !messages.last().is_some_and(is_assistant) {
                    return Err(format!(
                        "document {id:?} has an `alternative`, which replaces the last message, but the `role` of that \
                         message is not {ASSISTANT:?}"
                    ));
                }
            }
            _ => {}
        }
        Ok(Self { id, subject, content, alternatives })
    }
}

/// The documents of one JSONL file, unchecked: a text may be empty, an id may occur twice.
pub fn read_texts(folder: &Folder, file: &str) -> Result<Vec<Document>> {
    let records = jsonl::read(folder, file)?;
    Ok(records.into_iter().map(|(_, document)| document).collect())
}

/// The documents of one JSONL file. Refuses an empty file, an empty text and an id that occurs twice.
pub fn read_documents(folder: &Folder, file: &str) -> Result<Vec<Document>> {
    let records: Vec<(usize, Document)> = jsonl::read(folder, file)?;
    let path = folder.label(file);
    if records.is_empty() {
        return Err(Error::Data {
            path,
            problem: "holds no document".into(),
            remedy: "add one JSON object a line: {\"id\": …, \"text\": …}".into(),
        });
    }
    for (line, document) in &records {
        if document.text().trim().is_empty() {
            let problem = format!("document {:?} has an empty text; remove the line", document.id);
            return Err(Error::Line { path, line: *line, problem });
        }
    }
    jsonl::refuse_duplicates(&path, records.iter().map(|(line, d)| (*line, d.id.as_str())))?;
    Ok(records.into_iter().map(|(_, document)| document).collect())
}

#[cfg(test)]
mod tests;
