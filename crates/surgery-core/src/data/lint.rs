//! What in the data is probably a mistake, though nothing that makes the operation meaningless.

mod control;
mod documents;
mod near;
mod questions;

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::words::Words;
use super::{Benchmark, Corpus, KEPT, QuestionSet, Set};
use crate::text::TextEncoder;

pub use control::in_documents as control_tokens;

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A text that is to be forgotten is nearly the same as one that should stay.
    NearDuplicate,
    /// A new text does not name the subject that it is said to be about.
    UpdateWithoutSubject,
    /// A subject has an outdated text and no new one, or the reverse.
    UnpairedEdit,
    /// The right answer to a question stands in no text that it could be learnt from.
    AnswerNotInText,
    /// Two options of a question look the same.
    EqualOptions,
    /// A question is, with an option, longer than what the model reads at once.
    QuestionBeyondContext,
    /// A document is longer than a window and is split.
    DocumentSplit,
    /// A document that is to be forgotten has no subject, while the model writes texts to keep.
    ForgetWithoutSubject,
    /// A text has the letters of a token that the tokenizer keeps for control.
    ControlToken,
    /// A text has the letters of a token that other models keep for control.
    ForeignControlToken,
    /// The tokenizer has tokens that the model has no row for.
    TokenWithoutRow,
}

impl FindingKind {
    /// What to make of it.
    fn advice(self) -> &'static str {
        match self {
            FindingKind::NearDuplicate => "what should stay is pulled both ways: remove one of the two",
            FindingKind::UpdateWithoutSubject => "what is learnt may not be tied to whom it is about",
            FindingKind::UnpairedEdit => "outdated and new texts of a subject are drawn together",
            FindingKind::AnswerNotInText => "its accuracy may say nothing about the texts",
            FindingKind::EqualOptions => "no rule can tell the two apart: reword or remove one",
            FindingKind::QuestionBeyondContext => {
                "shorten it, or leave it out: the model does not see it whole"
            }
            FindingKind::DocumentSplit => "windows overlap by one token and count as one document",
            FindingKind::ForgetWithoutSubject => {
                "replay then knows whom they are about by the names in the texts alone: add `subject`"
            }
            FindingKind::ControlToken => {
                "the model reads one token for it; remove it unless that is meant (a token that begins or ends every \
                 text is added by the tokenizer)"
            }
            FindingKind::ForeignControlToken => {
                "this model reads it letter by letter; remove it unless that is meant"
            }
            FindingKind::TokenWithoutRow => "a text that contains one is refused",
        }
    }
}

/// Something that may be wrong with the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about.
    pub kind: FindingKind,
    /// The file of the data folder (or `tokenizer.json`) that it was found in.
    pub file: String,
    /// How many documents, questions or tokens it is true of.
    pub count: usize,
    /// What is true of them.
    pub problem: String,
    /// The first of them.
    pub examples: Vec<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { kind, file, count, problem, examples } = self;
        write!(f, "{file}: {count} {problem} ({}", examples.join(", "))?;
        f.write_str(if *count > examples.len() { ", …)" } else { ")" })?;
        write!(f, "; {}", kind.advice())
    }
}

impl Finding {
    /// Examples given, at most.
    const EXAMPLES: usize = 2;

    /// One of all that `examples` name; nothing where there are none.
    fn of(
        kind: FindingKind,
        file: String,
        problem: String,
        examples: impl IntoIterator<Item = String>,
    ) -> Option<Self> {
        let mut examples: Vec<String> = examples.into_iter().collect();
        let count = examples.len();
        examples.truncate(Self::EXAMPLES);
        (count > 0).then_some(Self { kind, file, count, problem, examples })
    }
}

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Inspected<'a> {
    /// The documents.
    pub corpus: &'a Corpus,
    /// The questions.
    pub questions: &'a [QuestionSet],
    /// The documents and the questions as tokens, in their order.
    pub benchmark: &'a Benchmark,
    /// What made the tokens.
    pub encoder: &'a TextEncoder,
    /// The tokens that the model reads at once, at most.
    pub context: usize,
    /// The operation on it; none where it is only evaluated.
    pub operation: Option<Operation<'a>>,
}

/// What an operation is to do with the documents.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// The sets that are trained on.
    pub sets: &'a [Set],
    /// The longest window of a document, in tokens.
    pub window: usize,
    /// Whether the model writes texts to keep.
    pub replays: bool,
}

/// Everything that is found: what an operation should not be done with first, then what an evaluation trips over. Ten
/// thousand texts of a page take about a second.
pub fn lint(inspected: Inspected) -> Vec<Finding> {
    let Inspected { corpus, questions, benchmark, encoder, context, operation } = inspected;
    let mut findings = operation.map_or(Vec::new(), |operation| of_operation(inspected, operation));
    for (set, (_, encoded)) in questions.iter().zip(&benchmark.questions) {
        findings.extend(questions::equal_options(set));
        findings.extend(questions::beyond_context(set, encoded, context));
    }
    for (set, documents) in corpus.sets() {
        findings.extend(control_tokens(&set.file(), documents, encoder));
    }
    findings.extend(questions.iter().flat_map(|set| control::in_questions(set, encoder)));
    findings
}

/// The findings that matter only where documents are trained on.
fn of_operation(inspected: Inspected, operation: Operation) -> Vec<Finding> {
    let Inspected { corpus, questions, benchmark, encoder, .. } = inspected;
    let Operation { sets, window, replays } = operation;
    let mut words = Words::default();
    let texts = corpus.sets().map(|(set, documents)| {
        (set, documents.iter().map(|document| words.of(&document.text())).collect::<Vec<_>>())
    });
    let texts: HashMap<Set, Vec<Vec<u32>>> = texts.collect();
    let forgotten = || [Set::Unlearn, Set::EditUnlearn].into_iter().filter(|set| sets.contains(set));
    let mut findings = Vec::new();
    for set in forgotten() {
        findings
            .extend(KEPT.into_iter().filter_map(|kept| documents::nearly_kept(corpus, &texts, set, kept)));
    }
    if sets.contains(&Set::EditUpdate) {
        findings.extend(documents::without_subject(corpus, &texts, &mut words));
        if sets.contains(&Set::EditUnlearn) {
            findings.extend(documents::unpaired(corpus, Set::EditUnlearn, Set::EditUpdate));
            findings.extend(documents::unpaired(corpus, Set::EditUpdate, Set::EditUnlearn));
        }
    }
    findings
        .extend(questions.iter().filter_map(|set| questions::unanswered(corpus, &texts, set, &mut words)));
    findings.extend(sets.iter().filter_map(|&set| documents::split(corpus, benchmark, set, window)));
    if replays {
        findings.extend(forgotten().filter_map(|set| documents::unnamed(corpus, set)));
    }
    findings.extend(without_row(encoder));
    findings
}

/// How many documents are longer than a window, by what [`lint`] found.
pub fn documents_split(findings: &[Finding]) -> usize {
    let split = findings.iter().filter(|finding| finding.kind == FindingKind::DocumentSplit);
    split.map(|finding| finding.count).sum()
}

/// Tokens that the model could not read.
fn without_row(encoder: &TextEncoder) -> Option<Finding> {
    let tokens = encoder.tokens_without_row().into_iter().map(|(id, token)| format!("{id}: {token:?}"));
    let problem = "token(s) that the model has no row for".into();
    Finding::of(FindingKind::TokenWithoutRow, "tokenizer.json".into(), problem, tokens)
}

#[cfg(test)]
mod tests {
    use super::near::near_duplicates;
    use super::*;
    use crate::data::Document;

    /// A document of each line: `id | subject | text`; `-` for no subject.
    fn documents(lines: &[&str]) -> Vec<Document> {
        let document = |line: &&str| {
            let [id, subject, text] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let subject = (subject != "-").then(|| subject.to_owned());
            Document::of_text(id, subject, text)
        };
        lines.iter().map(document).collect()
    }

    /// The corpus of some sets, and its texts as words.
    pub(super) fn corpus(sets: &[(Set, &[&str])]) -> (Corpus, HashMap<Set, Vec<Vec<u32>>>, Words) {
        let corpus: Corpus = sets.iter().map(|(set, lines)| (*set, documents(lines))).collect();
        let mut words = Words::default();
        let texts = corpus.sets().map(|(set, all)| (set, all.iter().map(|d| words.of(&d.text())).collect()));
        let texts = texts.collect();
        (corpus, texts, words)
    }

    #[test]
    fn ten_thousand_texts_are_compared_in_seconds() {
        // 5,000 words, the first ones often; every text begins like all others.
        let mut state = 1u64;
        let mut word = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let uniform = (state >> 40) as f64 / f64::from(1 << 24);
            format!("w{}", (5000.0 * uniform * uniform) as u32)
        };
        let mut text = |_| {
            let own: Vec<String> = (0..200).map(|_| word()).collect();
            format!("This passage is of the collection that was made at the time of {}", own.join(" "))
        };
        let mut words = Words::default();
        let written: Vec<String> = (0..10_000).map(&mut text).collect();
        let started = std::time::Instant::now();
        let mut texts: Vec<Vec<u32>> = written.iter().map(|text| words.of(text)).collect();
        let mut others = texts.split_off(5000);
        others[4000][20..110].copy_from_slice(&texts[3000][50..140]);
        let found = near_duplicates(&texts, &others);
        assert_eq!(found.iter().flatten().count(), 0, "not quite half");
        others[4000][20..150].copy_from_slice(&texts[3000][50..180]);
        assert_eq!(near_duplicates(&texts, &others)[3000], Some(4000));
        assert!(started.elapsed().as_secs() < 60);
    }
}
