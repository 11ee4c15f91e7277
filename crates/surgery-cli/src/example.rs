//! A document as the model sees it: its tokens as text, the predicted ones marked.

use std::io::IsTerminal;

use surgery_core::Result;
use surgery_core::data::{Example, Set};
use surgery_core::folders::DataFolder;
use surgery_core::text::TextEncoder;

/// Tokens that are shown of a longer document: half of them from its beginning, half from its end.
const MOST: usize = 400;

/// How predicted tokens are marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// By brackets.
    Brackets,
    /// By a colour.
    Colour,
}

impl Marks {
    /// Colour where standard output is a terminal that takes colours, and `NO_COLOR` is not set.
    pub fn for_stdout() -> Self {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        match std::io::stdout().is_terminal() && !is_dumb && !is_set("NO_COLOR") {
            true => Marks::Colour,
            false => Marks::Brackets,
        }
    }

    fn around(self) -> [&'static str; 2] {
        match self {
            Marks::Brackets => ["⟦", "⟧"],
            Marks::Colour => ["\u{1b}[30;42m", "\u{1b}[0m"],
        }
    }

    fn explained(self) -> &'static str {
        match self {
            Marks::Brackets => "in ⟦ ⟧",
            Marks::Colour => "highlighted",
        }
    }
}

/// The first document of each set, with a heading each, and its first alternative if it has one; `None` if there is no
/// document.
pub fn one_of_each_set(data: &DataFolder, encoder: &TextEncoder, marks: Marks) -> Result<Option<String>> {
    let mut shown = String::new();
    for (set, examples) in &data.benchmark.sets {
        if let Some(example) = examples.first() {
            let heading = heading(*set, &data.corpus.documents(*set)[0].id, example);
            shown.push_str(&format!("\n\n{heading}:\n  {}", text(example, encoder, marks)?));
            if let Some(alternative) = example.alternatives.first() {
                shown.push_str(&format!("\nits alternative:\n  {}", text(alternative, encoder, marks)?));
            }
        }
    }
    let title =
        format!("One document of each set as the model sees it, predicted tokens {}", marks.explained());
    Ok((!shown.is_empty()).then(|| format!("{title}{shown}")))
}

fn heading(set: Set, id: &str, example: &Example) -> String {
    let (all, predicted) = (example.len(), example.num_predicted());
    format!("{set}, document {id:?}, {all} tokens of which {predicted} are predicted")
}

/// The text of a document's tokens in one line.
fn text(example: &Example, encoder: &TextEncoder, marks: Marks) -> Result<String> {
    let all = example.len();
    if all <= MOST {
        return marked(example, 0..all, encoder, marks);
    }
    let [beginning, end] = [0..MOST / 2, all - MOST / 2..all];
    let [beginning, end] = [beginning, end].map(|part| marked(example, part, encoder, marks));
    Ok(format!("{} … ({} tokens are left out) … {}", beginning?, all - MOST, end?))
}

fn marked(
    example: &Example,
    part: std::ops::Range<usize>,
    encoder: &TextEncoder,
    marks: Marks,
) -> Result<String> {
    let texts = encoder.texts_of_tokens(&example.tokens[..part.start], &example.tokens[part.clone()])?;
    let [open, close] = marks.around();
    let mut marked = String::new();
    let mut is_open = false;
    for (index, text) in part.zip(texts) {
        let is_predicted = example.is_predicted(index);
        if is_predicted != is_open {
            marked.push_str(if is_predicted { open } else { close });
            is_open = is_predicted;
        }
        marked.extend(text.chars().map(visible));
    }
    if is_open {
        marked.push_str(close);
    }
    Ok(marked)
}

/// A character, or the escape of one that a terminal would obey instead of showing it.
fn visible(letter: char) -> String {
    let turns_text =
        matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    match letter.is_control() || turns_text {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use surgery_core::files::Folder;

    use super::*;

    fn encoder(model: &str) -> TextEncoder {
        let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/models");
        TextEncoder::load(&Folder::Disk(PathBuf::from(models).join(model)), 1 << 20).unwrap()
    }

    #[test]
    fn texts_are_shown_as_they_stand() {
        for model in ["llama1-mha", "smollm2-tied", "llama3-gqa", "mistral"] {
            let encoder = encoder(model);
            let written = "Café 三日月 🦊  two\n\tlines";
            let example = Example::of_text(encoder.encode(written).unwrap());
            let brackets = text(&example, &encoder, Marks::Brackets).unwrap();
            let plain = brackets.replace(['⟦', '⟧'], "");
            assert!(plain.ends_with("Café 三日月 🦊  two\\n\\tlines"), "{model}: {plain}");
            assert_eq!((brackets.matches('⟦').count(), brackets.matches('⟧').count()), (1, 1), "{model}");
            let colour = text(&example, &encoder, Marks::Colour).unwrap();
            assert_eq!(colour.replace("\u{1b}[30;42m", "⟦").replace("\u{1b}[0m", "⟧"), brackets, "{model}");
        }
    }

    #[test]
    fn long_documents_are_cut_in_the_middle() {
        let encoder = encoder("llama1-mha");
        let written: String = (0..2000).map(|number| format!("{number} ")).collect();
        let example = Example::of_text(encoder.encode(&written).unwrap());
        let shown = text(&example, &encoder, Marks::Brackets).unwrap();
        assert!(shown.contains(&format!("… ({} tokens are left out) …", example.len() - MOST)), "{shown}");
        assert!(shown.starts_with("<s>⟦") && shown.contains("0 1 2 3") && shown.contains("1998 1999"));
        assert_eq!(shown.matches('⟦').count(), 2);
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        let shown: String = "\u{1b}[2J\u{202e}\r".chars().map(visible).collect();
        assert_eq!(shown, "\\u{1b}[2J\\u{202e}\\r");
    }
}
