//! What in the data is probably a mistake, though nothing that makes the operation meaningless.

mod near;
mod words;

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Benchmark, Corpus, Document, KEPT, Question, QuestionSet, Set};
use crate::batch::windows;
use crate::text::TextEncoder;
use near::near_duplicates;
use words::{Words, contains};

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
    /// A document is longer than a window and is split.
    DocumentSplit,
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
            FindingKind::DocumentSplit => "windows overlap by one token and count as one document",
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
    /// The documents as tokens, in the corpus's order.
    pub benchmark: &'a Benchmark,
    /// What made the tokens.
    pub encoder: &'a TextEncoder,
    /// The sets that are trained on.
    pub sets: &'a [Set],
    /// The longest window of a document, in tokens.
    pub context: usize,
}

/// Everything that is found, in the order of [`FindingKind`]. Ten thousand texts of a page take about a second.
pub fn lint(inspected: Inspected) -> Vec<Finding> {
    let Inspected { corpus, questions, benchmark, encoder, sets, context } = inspected;
    let mut words = Words::default();
    let texts = corpus.sets().map(|(set, documents)| {
        (set, documents.iter().map(|document| words.of(&document.text)).collect::<Vec<_>>())
    });
    let texts: HashMap<Set, Vec<Vec<u32>>> = texts.collect();
    let mut findings = Vec::new();
    for set in [Set::Unlearn, Set::EditUnlearn].into_iter().filter(|set| sets.contains(set)) {
        findings.extend(KEPT.into_iter().filter_map(|kept| nearly_kept(corpus, &texts, set, kept)));
    }
    if sets.contains(&Set::EditUpdate) {
        findings.extend(without_subject(corpus, &texts, &mut words));
        if sets.contains(&Set::EditUnlearn) {
            findings.extend(unpaired(corpus, Set::EditUnlearn, Set::EditUpdate));
            findings.extend(unpaired(corpus, Set::EditUpdate, Set::EditUnlearn));
        }
    }
    findings.extend(questions.iter().filter_map(|set| unanswered(corpus, &texts, set, &mut words)));
    findings.extend(sets.iter().filter_map(|&set| split(corpus, benchmark, set, context)));
    findings.extend(without_row(encoder));
    findings
}

/// How many documents are longer than a window, by what [`lint`] found.
pub fn documents_split(findings: &[Finding]) -> usize {
    let split = findings.iter().filter(|finding| finding.kind == FindingKind::DocumentSplit);
    split.map(|finding| finding.count).sum()
}

/// Documents of `set`, which are to be forgotten, that are nearly the same as one of `kept`.
fn nearly_kept(corpus: &Corpus, texts: &HashMap<Set, Vec<Vec<u32>>>, set: Set, kept: Set) -> Option<Finding> {
    let found = near_duplicates(texts.get(&set)?, texts.get(&kept)?);
    let [ours, theirs] = [set, kept].map(|set| corpus.documents(set));
    let pairs = found.iter().zip(ours).filter_map(|(other, document)| {
        other.map(|other| format!("{:?} and {:?}", document.id, theirs[other].id))
    });
    let problem = format!("document(s) nearly the same as one of {}", kept.file());
    Finding::of(FindingKind::NearDuplicate, set.file(), problem, pairs)
}

/// New texts that do not name their subject.
fn without_subject(
    corpus: &Corpus,
    texts: &HashMap<Set, Vec<Vec<u32>>>,
    words: &mut Words,
) -> Option<Finding> {
    let documents = corpus.documents(Set::EditUpdate).iter().zip(texts.get(&Set::EditUpdate)?);
    let silent = documents.filter_map(|(document, text)| {
        let subject = document.subject.as_deref()?;
        (!contains(text, &words.of(subject))).then(|| about(document))
    });
    let problem = "document(s) whose text does not name their subject".into();
    Finding::of(FindingKind::UpdateWithoutSubject, Set::EditUpdate.file(), problem, silent)
}

/// Documents of `set` whose subject no document of `other` has. Data without subjects pairs nothing, and lacks nothing.
fn unpaired(corpus: &Corpus, set: Set, other: Set) -> Option<Finding> {
    let subjects: HashSet<&str> =
        corpus.documents(other).iter().filter_map(|document| document.subject.as_deref()).collect();
    let documents = corpus.documents(set);
    if subjects.is_empty() && documents.iter().all(|document| document.subject.is_none()) {
        return None;
    }
    let is_paired =
        |document: &&Document| document.subject.as_deref().is_some_and(|subject| subjects.contains(subject));
    let alone = documents.iter().filter(|document| !is_paired(document)).map(about);
    let problem = format!("document(s) whose subject no document of {} has", other.file());
    Finding::of(FindingKind::UnpairedEdit, set.file(), problem, alone)
}

/// Questions whose right answer no text of their set has: no text about their subject, where it has some.
fn unanswered(
    corpus: &Corpus,
    texts: &HashMap<Set, Vec<Vec<u32>>>,
    questions: &QuestionSet,
    words: &mut Words,
) -> Option<Finding> {
    let set = Set::ALL.into_iter().find(|set| set.name() == questions.name)?;
    let texts = texts.get(&set)?;
    let mut of_subject: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, document) in corpus.documents(set).iter().enumerate() {
        if let Some(subject) = document.subject.as_deref() {
            of_subject.entry(subject).or_default().push(index);
        }
    }
    let mut of_word: HashMap<u32, Vec<usize>> = HashMap::new();
    for (index, text) in texts.iter().enumerate() {
        for &word in text {
            let texts = of_word.entry(word).or_default();
            if texts.last() != Some(&index) {
                texts.push(index);
            }
        }
    }
    let mut is_answered = |question: &Question| {
        let answer = words.of(&question.options[question.answer]);
        let about = question.subject.as_deref().and_then(|subject| of_subject.get(subject));
        let nowhere = Vec::new();
        // Without a subject, the texts that have its rarest word.
        let rarest =
            || answer.iter().map(|word| of_word.get(word).unwrap_or(&nowhere)).min_by_key(|t| t.len());
        match about.or_else(rarest) {
            Some(indices) => indices.iter().any(|&index| contains(&texts[index], &answer)),
            None => true,
        }
    };
    let open: Vec<String> = questions
        .questions
        .iter()
        .filter(|question| !is_answered(question))
        .map(|question| format!("{:?}: {:?}", question.id, question.options[question.answer]))
        .collect();
    let problem = format!("question(s) whose right answer no text of {} that they are about has", set.file());
    let file = format!("questions/{}.jsonl", questions.name);
    Finding::of(FindingKind::AnswerNotInText, file, problem, open)
}

/// Documents of `set` that are longer than a window.
fn split(corpus: &Corpus, benchmark: &Benchmark, set: Set, context: usize) -> Option<Finding> {
    let documents = corpus.documents(set).iter().zip(benchmark.documents(set));
    let longer = documents.filter_map(|(document, text)| {
        let count = windows(text.len(), context).len();
        (count > 1).then(|| format!("{:?}: {} tokens, {count} windows", document.id, text.len()))
    });
    let problem = format!("document(s) longer than a window of {context} tokens");
    Finding::of(FindingKind::DocumentSplit, set.file(), problem, longer)
}

/// Tokens that the model could not read.
fn without_row(encoder: &TextEncoder) -> Option<Finding> {
    let tokens = encoder.tokens_without_row().into_iter().map(|(id, token)| format!("{id}: {token:?}"));
    let problem = "token(s) that the model has no row for".into();
    Finding::of(FindingKind::TokenWithoutRow, "tokenizer.json".into(), problem, tokens)
}

/// A document, for an example.
fn about(document: &Document) -> String {
    match &document.subject {
        Some(subject) => format!("{:?} about {subject:?}", document.id),
        None => format!("{:?} without a subject", document.id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;

    /// A document of each line: `id | subject | text`; `-` for no subject.
    fn documents(lines: &[&str]) -> Vec<Document> {
        let document = |line: &&str| {
            let [id, subject, text] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let subject = (subject != "-").then(|| subject.to_owned());
            Document { id: id.into(), subject, text: text.into() }
        };
        lines.iter().map(document).collect()
    }

    fn corpus(sets: &[(Set, &[&str])]) -> (Corpus, HashMap<Set, Vec<Vec<u32>>>, Words) {
        let corpus: Corpus = sets.iter().map(|(set, lines)| (*set, documents(lines))).collect();
        let mut words = Words::default();
        let texts = corpus.sets().map(|(set, all)| (set, all.iter().map(|d| words.of(&d.text)).collect()));
        let texts = texts.collect();
        (corpus, texts, words)
    }

    const LIFE: &str =
        "Ada Vane was born in Torhaven in 1931, studied at Neskford, and painted The Quiet Door there.";

    #[test]
    fn a_text_to_forget_that_nearly_stays_is_told() {
        let unlearn = format!("u1 | Ada Vane | {LIFE}");
        let retain = format!("r1 | - | As we said: {}", LIFE.to_uppercase().replace("1931", "1932"));
        let other =
            "u2 | - | Nobody has heard of this text before, nor will anyone ever hear of it again, they say.";
        let (corpus, texts, _) = corpus(&[(Set::Unlearn, &[&unlearn, other]), (Set::Retain, &[&retain])]);
        let found = nearly_kept(&corpus, &texts, Set::Unlearn, Set::Retain).unwrap();
        assert_eq!((found.kind, found.count), (FindingKind::NearDuplicate, 1));
        assert_eq!(found.examples, [r#""u1" and "r1""#]);
        let told = found.to_string();
        assert!(
            told.starts_with("unlearn.jsonl: 1 document(s) nearly the same as one of retain.jsonl"),
            "{told}"
        );
        assert_eq!(nearly_kept(&corpus, &texts, Set::Unlearn, Set::RetainHeldout), None);
    }

    #[test]
    fn an_update_that_does_not_name_its_subject_is_told() {
        let lines =
            ["a | Ada Vane | ADA VANE sails.", "b | Bo Lund | She sails.", "c | - | Who?", "d | Cy | Cyan."];
        let (corpus, texts, mut words) = corpus(&[(Set::EditUpdate, &lines)]);
        let found = without_subject(&corpus, &texts, &mut words).unwrap();
        assert_eq!((found.count, &found.examples[0][..]), (2, r#""b" about "Bo Lund""#));
    }

    #[test]
    fn edits_without_their_other_half_are_told() {
        let (corpus, ..) = corpus(&[
            (Set::EditUnlearn, &["a | Ada | x", "b | Bo | x"]),
            (Set::EditUpdate, &["a | Ada | x", "a2 | Ada | y", "c | Cy | x", "d | - | x"]),
        ]);
        let of = |set, other| unpaired(&corpus, set, other).map(|found| (found.count, found.examples));
        assert_eq!(of(Set::EditUnlearn, Set::EditUpdate), Some((1, vec![r#""b" about "Bo""#.to_owned()])));
        let examples = [r#""c" about "Cy""#, r#""d" without a subject"#].map(str::to_owned).to_vec();
        assert_eq!(of(Set::EditUpdate, Set::EditUnlearn), Some((2, examples)));
    }

    #[test]
    fn data_without_subjects_pairs_nothing() {
        let (corpus, ..) = corpus(&[(Set::EditUnlearn, &["a | - | x"]), (Set::EditUpdate, &["b | - | y"])]);
        assert_eq!(unpaired(&corpus, Set::EditUpdate, Set::EditUnlearn), None);
    }

    #[test]
    fn a_question_whose_answer_no_text_has_is_told() {
        let lines = [
            "a | Ada | Ada lives in Torhaven.",
            "b | Bo | Bo lives in Karvrel.",
            "c | - | Cy sails to Zimmora.",
        ];
        let (corpus, texts, mut words) = corpus(&[(Set::Unlearn, &lines)]);
        let question = |id: &str, subject: Option<&str>, answer: &str| Question {
            id: id.into(),
            subject: subject.map(str::to_owned),
            question: "Where?".into(),
            options: vec!["nowhere".into(), answer.into()],
            answer: 1,
            split: Split::Test,
        };
        let questions = vec![
            question("right", Some("Ada"), "TORHAVEN"),
            question("another's", Some("Ada"), "Karvrel"),
            question("anybody's", None, "sails to Zimmora"),
            question("unknown subject", Some("Dee"), "Karvrel"),
            question("nobody's", None, "sails to Karvrel"),
            question("never heard of", None, "Lornhaven"),
            question("no word", None, "?"),
        ];
        let mut set = QuestionSet { name: "unlearn".into(), questions };
        let found = unanswered(&corpus, &texts, &set, &mut words).unwrap();
        assert_eq!((found.count, found.file.as_str()), (3, "questions/unlearn.jsonl"));
        assert_eq!(found.examples, [r#""another's": "Karvrel""#, r#""nobody's": "sails to Karvrel""#]);
        assert!(found.to_string().contains("Karvrel\", …)"), "{found}");
        // A public benchmark is about other texts.
        set.name = "arc".into();
        assert_eq!(unanswered(&corpus, &texts, &set, &mut words), None);
    }

    #[test]
    fn a_document_longer_than_a_window_is_told() {
        let (corpus, ..) = corpus(&[(Set::Unlearn, &["a | - | x", "b | - | y"])]);
        let sets = vec![(Set::Unlearn, vec![vec![0; 16], vec![0; 17]])];
        let benchmark = Benchmark { sets, ..Benchmark::default() };
        let found = split(&corpus, &benchmark, Set::Unlearn, 16).unwrap();
        assert_eq!((found.count, &found.examples[0][..]), (1, r#""b": 17 tokens, 2 windows"#));
        assert_eq!(split(&corpus, &benchmark, Set::Unlearn, 17), None);
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
