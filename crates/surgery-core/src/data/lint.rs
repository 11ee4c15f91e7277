//! Probable mistakes in the data that do not prevent the operation.

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

/// The kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// An unlearn document is nearly the same as a retain or held-out document.
    NearDuplicate,
    /// An update document does not name its subject.
    UpdateWithoutSubject,
    /// A subject has an outdated text but no new one, or the reverse.
    UnpairedEdit,
    /// The right answer to a question occurs in no text about its subject.
    AnswerNotInText,
    /// Two options of a question look the same.
    EqualOptions,
    /// A question with an option is longer than the model's context.
    QuestionBeyondContext,
    /// A document is longer than a training window and is split.
    DocumentSplit,
    /// An unlearn document has no subject, while replay is enabled.
    ForgetWithoutSubject,
    /// A text contains a control token of the tokenizer.
    ControlToken,
    /// A text contains a control token of other models.
    ForeignControlToken,
    /// The tokenizer has tokens without a row in the model's embedding.
    TokenWithoutRow,
}

impl FindingKind {
    /// Consequence and remedy.
    fn advice(self) -> &'static str {
        match self {
            FindingKind::NearDuplicate => "unlearning one damages the other: remove one of the two",
            FindingKind::UpdateWithoutSubject => "the new facts may not become associated with their subject",
            FindingKind::UnpairedEdit => "outdated and new texts of a subject are sampled together",
            FindingKind::AnswerNotInText => "the accuracy on it may be unrelated to the texts",
            FindingKind::EqualOptions => "scoring cannot distinguish them: reword or remove one",
            FindingKind::QuestionBeyondContext => "shorten or remove it: the model does not read all of it",
            FindingKind::DocumentSplit => "windows overlap by one token and count as one document",
            FindingKind::ForgetWithoutSubject => {
                "replay then recognises their subjects only by the names in the texts: add `subject`"
            }
            FindingKind::ControlToken => {
                "the model reads it as one token; remove it unless that is intended (the tokenizer adds the tokens that begin or \
                end every text)"
            }
            FindingKind::ForeignControlToken => {
                "this model reads it letter by letter; remove it unless that is intended"
            }
            FindingKind::TokenWithoutRow => "a text that contains one is refused",
        }
    }
}

/// A possible problem in the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its kind.
    pub kind: FindingKind,
    /// The file of the data folder, or `tokenizer.json`.
    pub file: String,
    /// Number of affected documents, questions or tokens.
    pub count: usize,
    /// The problem.
    pub problem: String,
    /// The first affected ones.
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
    /// Maximum number of examples.
    const EXAMPLES: usize = 2;

    /// A finding about all items that `examples` lists; `None` if it is empty.
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

/// The data to check.
#[derive(Debug, Clone, Copy)]
pub struct Inspected<'a> {
    /// The documents.
    pub corpus: &'a Corpus,
    /// The questions.
    pub questions: &'a [QuestionSet],
    /// Documents and questions as tokens, in the same order.
    pub benchmark: &'a Benchmark,
    /// The encoder of the tokens.
    pub encoder: &'a TextEncoder,
    /// Maximum context of the model in tokens.
    pub context: usize,
    /// The operation; `None` for an evaluation only.
    pub operation: Option<Operation<'a>>,
}

/// Settings of the operation.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// The sets to train on.
    pub sets: &'a [Set],
    /// Maximum window of a document in tokens.
    pub window: usize,
    /// Whether replay is enabled.
    pub replays: bool,
}

/// All findings: first those about training, then those about evaluation. 10,000 texts of a page take about a second.
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

/// Findings that matter only for training.
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

/// Number of split documents among the findings.
pub fn documents_split(findings: &[Finding]) -> usize {
    let split = findings.iter().filter(|finding| finding.kind == FindingKind::DocumentSplit);
    split.map(|finding| finding.count).sum()
}

/// Tokens without a row in the model's embedding.
fn without_row(encoder: &TextEncoder) -> Option<Finding> {
    let tokens = encoder.tokens_without_row().into_iter().map(|(id, token)| format!("{id}: {token:?}"));
    let problem = "token(s) without a row in the model's embedding".into();
    Finding::of(FindingKind::TokenWithoutRow, "tokenizer.json".into(), problem, tokens)
}

#[cfg(test)]
mod tests {
    use super::near::near_duplicates;
    use super::*;
    use crate::data::Document;

    /// Parses documents from lines `id | subject | text`, with `-` for no subject.
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

    /// A corpus, and its texts as words.
    pub(super) fn corpus(sets: &[(Set, &[&str])]) -> (Corpus, HashMap<Set, Vec<Vec<u32>>>, Words) {
        let corpus: Corpus = sets.iter().map(|(set, lines)| (*set, documents(lines))).collect();
        let mut words = Words::default();
        let texts = corpus.sets().map(|(set, all)| (set, all.iter().map(|d| words.of(&d.text())).collect()));
        let texts = texts.collect();
        (corpus, texts, words)
    }

    #[test]
    fn ten_thousand_texts_are_compared_in_seconds() {
        // 5,000 words with unequal frequencies; all texts have the same beginning.
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
        assert_eq!(found.iter().flatten().count(), 0, "less than half is shared");
        others[4000][20..150].copy_from_slice(&texts[3000][50..180]);
        assert_eq!(near_duplicates(&texts, &others)[3000], Some(4000));
        assert!(started.elapsed().as_secs() < 60);
    }
}
