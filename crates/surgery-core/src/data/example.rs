//! Documents as token ids, with the ranges that are predicted.

use std::ops::Range;

use super::{ASSISTANT, Content, Document, Message, MessageContent};
use crate::error::{Error, Result};
use crate::text::{TextEncoder, Token};

/// An encoded document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Example {
    /// Its token ids, special tokens included.
    pub tokens: Vec<u32>,
    /// The predicted tokens: ascending, disjoint ranges of indices; never the first token.
    pub predicted: Vec<Range<usize>>,
    /// Alternatives that a preference loss prefers to it: the same beginning with other ends, in the order of the data.
    pub alternatives: Vec<Example>,
}

impl Example {
    /// A text whose every token but the first is predicted.
    pub fn of_text(tokens: Vec<u32>) -> Self {
        let predicted = Vec::from_iter((tokens.len() > 1).then_some(1..tokens.len()));
        Self { tokens, predicted, alternatives: Vec::new() }
    }

    /// Tokens of which those that `is_predicted` accepts are predicted, but never the first.
    fn new(tokens: Vec<u32>, is_predicted: impl Fn(usize) -> bool) -> Self {
        let mut predicted: Vec<Range<usize>> = Vec::new();
        for index in (1..tokens.len()).filter(|&index| is_predicted(index)) {
            match predicted.last_mut() {
                Some(last) if last.end == index => last.end += 1,
                _ => predicted.push(index..index + 1),
            }
        }
        Self { tokens, predicted, alternatives: Vec::new() }
    }

    /// Number of predicted tokens.
    pub fn num_predicted(&self) -> usize {
        self.predicted.iter().map(Range::len).sum()
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether it has no token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Whether the token at `index` is predicted.
    pub fn is_predicted(&self, index: usize) -> bool {
        let after = self.predicted.partition_point(|range| range.end <= index);
        self.predicted.get(after).is_some_and(|range| range.contains(&index))
    }
}

/// The windows of a document of `length` tokens in a context of `context`. Each begins with the last token
/// of the one before, so that every token but the first is predicted exactly once.
pub fn windows(length: usize, context: usize) -> Vec<Range<usize>> {
    assert!(context >= 2, "a window needs a token and the one it predicts");
    let mut windows = Vec::new();
    let mut start = 0;
    while start + 1 < length {
        let end = (start + context).min(length);
        windows.push(start..end);
        start = end - 1;
    }
    if windows.is_empty() && length == 1 {
        windows.push(0..1);
    }
    windows
}

/// Encodes a document of the file at `path`. Refuses a document without a token to predict.
pub fn encode(path: &str, document: &Document, encoder: &TextEncoder) -> Result<Example> {
    let id = &document.id;
    let mut example = encode_content(path, id, &document.content, encoder)?;
    for alternative in &document.alternatives {
        let content = with_end(&document.content, alternative);
        example.alternatives.push(encode_content(path, id, &content, encoder)?);
    }
    Ok(example)
}

/// The same document with another text, another completion or another last message.
fn with_end(content: &Content, end: &str) -> Content {
    let end = end.to_owned();
    match content {
        Content::Text(_) => Content::Text(end),
        Content::Completion { prompt, .. } => Content::Completion { prompt: prompt.clone(), completion: end },
        Content::Messages(messages) => {
            let mut messages = messages.clone();
            if let Some(last) = messages.last_mut() {
                last.content = MessageContent::Text(end);
            }
            Content::Messages(messages)
        }
    }
}

fn encode_content(path: &str, id: &str, content: &Content, encoder: &TextEncoder) -> Result<Example> {
    let example = match content {
        Content::Text(text) => Example::of_text(encoder.encode(text)?),
        Content::Completion { prompt, completion } => {
            encode_completion(path, id, prompt, completion, encoder)?
        }
        Content::Messages(messages) => {
            encode_messages(messages, encoder).map_err(|error| of_document(error, path, id))?
        }
    };
    if !example.predicted.is_empty() {
        return Ok(example);
    }
    let (reason, remedy) = match content {
        Content::Text(_) => ("because the first token of a text is not predicted", "lengthen or remove it"),
        Content::Completion { .. } => (
            "because the first token of a document is not predicted, and the completion has no other",
            "give it a prompt, or lengthen the completion",
        ),
        Content::Messages(_) => (
            "because the model's chat template writes no text of the assistant's messages, or puts none into its \
             generation blocks",
            "correct the template",
        ),
    };
    Err(Error::Data {
        path: path.into(),
        problem: format!(
            "document {id:?} encodes to {} token(s), none of which is to be predicted, {reason}",
            example.tokens.len()
        ),
        remedy: remedy.into(),
    })
}

/// Adds the document to the message of a template's error.
fn of_document(error: Error, path: &str, id: &str) -> Error {
    match error {
        Error::Data { path: template, problem, remedy } => {
            Error::Data { path: template, problem: format!("{problem} (document {id:?} of {path})"), remedy }
        }
        other => other,
    }
}

/// Encodes prompt and completion as one text, followed by the end token. All tokens that overlap the completion, and the
/// end token, are predicted.
fn encode_completion(
    path: &str,
    id: &str,
    prompt: &str,
    completion: &str,
    encoder: &TextEncoder,
) -> Result<Example> {
    let end = encoder.end_token().ok_or_else(|| Error::Data {
        path: path.into(),
        problem: format!(
            "document {id:?} has a `prompt` and a `completion`, and the model has no end token to put after them"
        ),
        remedy: "name one as `eos_token` in tokenizer_config.json, or give the document as `text`".into(),
    })?;
    let whole = format!("{prompt}{completion}");
    let tokens = encoder.encode_with_spans(&whole, true)?;
    let is_ended = tokens.last().is_some_and(|last| last.is_added && last.id == end);
    let appended = tokens.len() - usize::from(is_ended);
    let completion = prompt.len()..whole.len();
    let is_predicted = |index: usize| index >= appended || holds(&tokens[index], &completion);
    let ids = tokens.iter().map(|token| token.id).chain((!is_ended).then_some(end)).collect();
    let example = Example::new(ids, is_predicted);
    // An end token alone is not a completion.
    let is_empty = !(1..appended).any(is_predicted);
    Ok(if is_empty { Example { predicted: Vec::new(), ..example } } else { example })
}

/// Encodes messages with the model's chat template. The text in its generation blocks is predicted; without such blocks,
/// the text that the template adds for each message of the assistant.
fn encode_messages(messages: &[Message], encoder: &TextEncoder) -> Result<Example> {
    let template = encoder.chat()?;
    let whole = template.render(messages, false)?;
    let spans = match template.has_generation() {
        true => whole.generated,
        false => {
            let mut spans = Vec::new();
            let answers = messages.iter().enumerate().filter(|(_, message)| message.role == ASSISTANT);
            for (index, _) in answers {
                let begin = template.render(&messages[..index], true)?.text;
                let end = match index + 1 == messages.len() {
                    true => whole.text.len(),
                    false => {
                        let rendered = template.render(&messages[..=index], false)?.text;
                        beginning(&whole.text, &rendered, index + 1, template.path())?
                    }
                };
                spans.push(beginning(&whole.text, &begin, index, template.path())?..end);
            }
            spans
        }
    };
    let tokens = encoder.encode_with_spans(&whole.text, false)?;
    let is_predicted = |index: usize| spans.iter().any(|span| holds(&tokens[index], span));
    Ok(Example::new(tokens.iter().map(|token| token.id).collect(), is_predicted))
}

/// The length of `rendered`, the rendering of the first `count` messages, which must be a prefix of `whole`.
fn beginning(whole: &str, rendered: &str, count: usize, path: &str) -> Result<usize> {
    match whole.starts_with(rendered) {
        true => Ok(rendered.len()),
        false if count == 0 => Err(Error::Data {
            path: path.into(),
            problem: "renders a conversation that begins with a message of the assistant otherwise than its own prompt for \
                      an answer, so that the message cannot be located"
                .into(),
            remedy: "begin the conversation with a message of another role".into(),
        }),
        false => Err(Error::Data {
            path: path.into(),
            problem: format!(
                "renders the first {count} message(s) differently if others follow, so that the assistant's messages \
                 cannot be located"
            ),
            remedy: "put the text to predict into {% generation %} blocks in the template".into(),
        }),
    }
}

/// Whether a token contains a byte of a span of the text.
fn holds(token: &Token, span: &Range<usize>) -> bool {
    token.bytes.start < span.end && span.start < token.bytes.end
}

#[cfg(test)]
mod tests;
