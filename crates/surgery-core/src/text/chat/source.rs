//! Rewriting of a template before the engine compiles it.
//!
//! - The tag `{% generation %}` of transformers becomes a call block of a function (`super::writer::GENERATION`).
//! - Operations whose time or memory grows with a value are charged for the value first (see [`super::limits`]): `a ~ b`
//!   becomes `a|paid ~ b|paid`.
//! - Escapes in strings are converted from those of Python.

use super::tokens::tokens;
use super::writer::Writer;

/// Maximum number of `elif` tags of a template, because the engine recurses once for each.
const MOST_ELIFS: usize = 300;

/// A template that the engine can compile.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub(super) source: String,
    /// Whether it has generation blocks.
    pub(super) has_generation: bool,
    /// Bytes of the longest text between tags.
    pub(super) longest_literal: usize,
    elifs: usize,
}

/// Rewrites a template, or returns the problem.
pub(super) fn rewrite(source: &str) -> Result<Rewritten, String> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut rewritten = Rewritten {
        source: String::with_capacity(2 * source.len()),
        has_generation: false,
        longest_literal: 0,
        elifs: 0,
    };
    let mut rest = source.as_str();
    loop {
        let mut braces = rest.match_indices('{').map(|(at, _)| at);
        let begin = braces.find(|at| rest[at + 1..].starts_with(['{', '%', '#']));
        let literal = &rest[..begin.unwrap_or(rest.len())];
        rewritten.longest_literal = rewritten.longest_literal.max(literal.len());
        rewritten.source.push_str(literal);
        let Some(begin) = begin else { return Ok(rewritten) };
        let tag = &rest[begin..];
        let line = || source[..source.len() - tag.len()].matches('\n').count() + 1;
        let length = match &tag[..2] {
            "{#" => {
                let end = tag
                    .find("#}")
                    .ok_or_else(|| format!("has a comment without an end (line {})", line()))?;
                rewritten.source.push_str(&tag[..end + 2]);
                end + 2
            }
            _ => match raw_block(tag) {
                Some(length) => {
                    rewritten.longest_literal = rewritten.longest_literal.max(length);
                    rewritten.source.push_str(&tag[..length]);
                    length
                }
                None => rewrite_tag(tag, &mut rewritten)
                    .map_err(|problem| format!("{problem} (line {})", line()))?,
            },
        };
        rest = &tag[length..];
    }
}

/// The length of the raw block at the beginning of `text`, tags included, if there is one.
fn raw_block(text: &str) -> Option<usize> {
    /// The text after a tag that contains `word` alone.
    fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
        let text = text.strip_prefix("{%")?;
        let text =
            text.strip_prefix(['-', '+']).unwrap_or(text).trim_start().strip_prefix(word)?.trim_start();
        text.strip_prefix(['-', '+']).unwrap_or(text).strip_prefix("%}")
    }
    let mut inside = after(text, "raw")?;
    while let Some(at) = inside.find("{%") {
        if let Some(rest) = after(&inside[at..], "endraw") {
            return Some(text.len() - rest.len());
        }
        inside = &inside[at + 2..];
    }
    None
}

/// Rewrites the tag at the beginning of `text`, and returns its length.
fn rewrite_tag(text: &str, rewritten: &mut Rewritten) -> Result<usize, String> {
    let is_statement = text.starts_with("{%");
    let opening = if text[2..].starts_with(['-', '+']) { &text[..3] } else { &text[..2] };
    let (tokens, closing, length) = tokens(text, opening.len(), if is_statement { "%}" } else { "}}" })?;
    let mut writer = Writer { tokens: &tokens, at: 0, depth: 0, out: opening.to_owned() };
    if is_statement {
        rewritten.elifs += usize::from(writer.is_next("elif"));
        if rewritten.elifs > MOST_ELIFS {
            return Err(format!("has more than {MOST_ELIFS} tags `elif`"));
        }
        rewritten.has_generation |= writer.statement()?;
    } else {
        writer.expressions(None)?;
    }
    if let Some(token) = writer.tokens.get(writer.at) {
        return Err(format!("has a {:?} without its counterpart", token.text));
    }
    rewritten.source.push_str(&writer.out);
    rewritten.source.push_str(closing);
    Ok(length)
}
