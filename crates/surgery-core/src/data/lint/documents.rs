//! Findings about documents.

use std::collections::{HashMap, HashSet};

use super::near::near_duplicates;
use super::{Finding, FindingKind};
use crate::data::words::{Words, contains};
use crate::data::{Benchmark, Corpus, Document, Set, windows};

/// Documents of `set`, a set to unlearn, that are nearly the same as one of `kept`.
pub(super) fn nearly_kept(
    corpus: &Corpus,
    texts: &HashMap<Set, Vec<Vec<u32>>>,
    set: Set,
    kept: Set,
) -> Option<Finding> {
    let found = near_duplicates(texts.get(&set)?, texts.get(&kept)?);
    let [ours, theirs] = [set, kept].map(|set| corpus.documents(set));
    let pairs = found.iter().zip(ours).filter_map(|(other, document)| {
        other.map(|other| format!("{:?} and {:?}", document.id, theirs[other].id))
    });
    let problem = format!("document(s) nearly the same as one of {}", kept.file());
    Finding::of(FindingKind::NearDuplicate, set.file(), problem, pairs)
}

/// Update documents that do not name their subject.
pub(super) fn without_subject(
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

/// Documents of `set` whose subject has no document in `other`. Data entirely without subjects has no findings.
pub(super) fn unpaired(corpus: &Corpus, set: Set, other: Set) -> Option<Finding> {
    let subjects: HashSet<&str> =
        corpus.documents(other).iter().filter_map(|document| document.subject.as_deref()).collect();
    let documents = corpus.documents(set);
    if subjects.is_empty() && documents.iter().all(|document| document.subject.is_none()) {
        return None;
    }
    let is_paired =
        |document: &&Document| document.subject.as_deref().is_some_and(|subject| subjects.contains(subject));
    let alone = documents.iter().filter(|document| !is_paired(document)).map(about);
    let problem = format!("document(s) whose subject has no document in {}", other.file());
    Finding::of(FindingKind::UnpairedEdit, set.file(), problem, alone)
}

/// Documents of `set` longer than a window.
pub(super) fn split(corpus: &Corpus, benchmark: &Benchmark, set: Set, context: usize) -> Option<Finding> {
    let documents = corpus.documents(set).iter().zip(benchmark.documents(set));
    let longer = documents.filter_map(|(document, text)| {
        let count = windows(text.len(), context).len();
        (count > 1).then(|| format!("{:?}: {} tokens, {count} windows", document.id, text.len()))
    });
    let problem = format!("document(s) longer than a window of {context} tokens");
    Finding::of(FindingKind::DocumentSplit, set.file(), problem, longer)
}

/// Documents of `set`, a set to unlearn, without a subject.
pub(super) fn unnamed(corpus: &Corpus, set: Set) -> Option<Finding> {
    let documents = corpus.documents(set).iter().filter(|document| document.subject.is_none());
    let problem = "document(s) to unlearn without a subject, while replay is enabled".into();
    let ids = documents.map(|document| format!("{:?}", document.id));
    Finding::of(FindingKind::ForgetWithoutSubject, set.file(), problem, ids)
}

/// A document as an example.
fn about(document: &Document) -> String {
    match &document.subject {
        Some(subject) => format!("{:?} about {subject:?}", document.id),
        None => format!("{:?} without a subject", document.id),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::corpus;
    use super::*;
    use crate::data::Example;

    const LIFE: &str =
        "Ada Vane was born in Torhaven in 1931, studied at Neskford, and painted The Quiet Door there.";

    #[test]
    fn a_near_duplicate_of_a_retain_document_is_reported() {
        let unlearn = format!("u1 | Ada Vane | {LIFE}");
        let retain = format!("r1 | - | As we said: {}", LIFE.to_uppercase().replace("1931", "1932"));
        let other =
            "u2 | - | Nobody has heard of this text before, nor will anyone ever hear of it again, they say.";
        let (corpus, texts, _) = corpus(&[(Set::Unlearn, &[&unlearn, other]), (Set::Retain, &[&retain])]);
        let found = nearly_kept(&corpus, &texts, Set::Unlearn, Set::Retain).unwrap();
        assert_eq!((found.kind, found.count), (FindingKind::NearDuplicate, 1));
        assert_eq!(found.examples, [r#""u1" and "r1""#]);
        let message = found.to_string();
        assert!(
            message.starts_with("unlearn.jsonl: 1 document(s) nearly the same as one of retain.jsonl"),
            "{message}"
        );
        assert_eq!(nearly_kept(&corpus, &texts, Set::Unlearn, Set::RetainHeldout), None);
    }

    #[test]
    fn an_update_without_its_subject_is_reported() {
        let lines =
            ["a | Ada Vane | ADA VANE sails.", "b | Bo Lund | She sails.", "c | - | Who?", "d | Cy | Cyan."];
        let (corpus, texts, mut words) = corpus(&[(Set::EditUpdate, &lines)]);
        let found = without_subject(&corpus, &texts, &mut words).unwrap();
        assert_eq!((found.count, &found.examples[0][..]), (2, r#""b" about "Bo Lund""#));
    }

    #[test]
    fn unpaired_edits_are_reported() {
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
    fn data_without_subjects_has_no_unpaired_edits() {
        let (corpus, ..) = corpus(&[(Set::EditUnlearn, &["a | - | x"]), (Set::EditUpdate, &["b | - | y"])]);
        assert_eq!(unpaired(&corpus, Set::EditUpdate, Set::EditUnlearn), None);
    }

    #[test]
    fn a_document_longer_than_a_window_is_reported() {
        let (corpus, ..) = corpus(&[(Set::Unlearn, &["a | - | x", "b | - | y"])]);
        let sets = vec![(Set::Unlearn, [16, 17].map(|length| Example::of_text(vec![0; length])).to_vec())];
        let benchmark = Benchmark { sets, ..Benchmark::default() };
        let found = split(&corpus, &benchmark, Set::Unlearn, 16).unwrap();
        assert_eq!((found.count, &found.examples[0][..]), (1, r#""b": 17 tokens, 2 windows"#));
        assert_eq!(split(&corpus, &benchmark, Set::Unlearn, 17), None);
    }

    #[test]
    fn documents_to_unlearn_without_a_subject_are_reported() {
        let (corpus, ..) = corpus(&[(Set::Unlearn, &["a | Ada | x", "b | - | y", "c | - | z"])]);
        let found = unnamed(&corpus, Set::Unlearn).unwrap();
        assert_eq!((found.count, &found.examples[0][..]), (2, r#""b""#));
        assert_eq!(unnamed(&corpus, Set::EditUnlearn), None);
    }
}
