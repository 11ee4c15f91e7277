//! The messages of a conversation, as the data has them and as a chat template sees them.

use std::borrow::Cow;

use serde::Deserialize;

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(expecting = "an object with `role` and `content`")]
pub struct Message {
    /// A role that the model's chat template knows, such as `system`, `user` or `assistant`.
    pub role: String,
    /// Its content.
    pub content: MessageContent,
}

/// The content of a message. The chat template receives it in the form that the data has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "RawContent")]
pub enum MessageContent {
    /// A text.
    Text(String),
    /// Texts: transformers' list of `{"type": "text", "text": …}`.
    Parts(Vec<String>),
}

impl MessageContent {
    /// The text; those of a list one after another.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            MessageContent::Text(text) => text.into(),
            MessageContent::Parts(parts) => parts.concat().into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "the `content` of a message is neither a string nor a list of {\"type\": \"text\", \"text\": \"…\"}"
)]
enum RawContent {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Part {
    Text { text: String },
}

impl From<RawContent> for MessageContent {
    fn from(content: RawContent) -> Self {
        match content {
            RawContent::Text(text) => MessageContent::Text(text),
            RawContent::Parts(parts) => {
                MessageContent::Parts(parts.into_iter().map(|Part::Text { text }| text).collect())
            }
        }
    }
}
