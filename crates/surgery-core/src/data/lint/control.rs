//! Tokens of control, written out in texts.
//!
//! A tokenizer reads `</s>` in a text as the token that ends a text, though it may only be the rest of somebody's
//! export, and one that is of another family reads the letters of a token that means nothing to its model. Either
//! way the numbers are right for the text as it stands, and the text is probably not what was meant.

use std::borrow::Cow;
use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, MatchKind};

use super::{Finding, FindingKind};
use crate::data::{Document, QuestionSet};
use crate::text::TextEncoder;

/// Tokens by which models of several families begin and end texts and turns, and that are nothing else in writing.
const WELL_KNOWN: [&str; 17] = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<</SYS>>",
];
/// HTML's tags of what is struck out, too: in another model's data they tell only where no tag would stand.
const FIRST: &str = "<s>";
const LAST: &str = "</s>";

/// The documents of `file` that contain such a token: a finding for each token.
pub fn in_documents(file: &str, documents: &[Document], encoder: &TextEncoder) -> Vec<Finding> {
    let texts = documents.iter().map(|document| (document.id.as_str(), vec![document.text()]));
    find(file, "text(s)", texts, encoder)
}

/// The questions of `set` that contain such a token, in the question or in an option.
pub(super) fn in_questions(set: &QuestionSet, encoder: &TextEncoder) -> Vec<Finding> {
    let texts = set.questions.iter().map(|question| {
        let options = question.options.iter().map(String::as_str);
        let texts = std::iter::once(question.question.as_str()).chain(options);
        (question.id.as_str(), texts.map(Cow::Borrowed).collect())
    });
    find(&set.file(), "question(s)", texts, encoder)
}

/// Of each item, its id and its texts.
fn find<'a>(
    file: &str,
    items: &str,
    texts: impl Iterator<Item = (&'a str, Vec<Cow<'a, str>>)>,
    encoder: &TextEncoder,
) -> Vec<Finding> {
    let own: Vec<String> =
        encoder.special_tokens().into_iter().filter(|token| !token.trim().is_empty()).collect();
    let is_own = |token: &str| own.iter().any(|own| own == token);
    let foreign = WELL_KNOWN.into_iter().filter(|token| !is_own(token));
    let tokens: Vec<&str> = own.iter().map(String::as_str).chain(foreign).collect();
    let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&tokens);
    let Ok(searched) = built else { return Vec::new() };
    // The ids of the items that have a token, in their order.
    let mut having: BTreeMap<(bool, &str), Vec<String>> = BTreeMap::new();
    for (id, texts) in texts {
        let mut add = |token| {
            let ids = having.entry((!is_own(token), token)).or_default();
            let id = format!("{id:?}");
            if ids.last() != Some(&id) {
                ids.push(id);
            }
        };
        for text in texts {
            searched.find_iter(text.as_ref()).for_each(|found| add(tokens[found.pattern().as_usize()]));
            if text.starts_with(FIRST) && !is_own(FIRST) {
                add(FIRST);
            }
            if text.trim_end().ends_with(LAST) && !is_own(LAST) {
                add(LAST);
            }
        }
    }
    let finding = |((is_foreign, token), ids): ((bool, &str), Vec<String>)| {
        let (kind, what) = match is_foreign {
            false => (FindingKind::ControlToken, "a control token of this model"),
            true => (FindingKind::ForeignControlToken, "a control token of other models"),
        };
        Finding::of(kind, file.into(), format!("{items} that contain {token:?}, {what}"), ids)
    };
    having.into_iter().filter_map(finding).collect()
}
