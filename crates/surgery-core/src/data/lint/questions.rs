//! Findings about questions.

use std::collections::HashMap;

use super::{Finding, FindingKind};
use crate::data::words::{Words, contains};
use crate::data::{Corpus, EncodedQuestion, Question, QuestionSet, Set};

/// Questions whose right answer occurs in no text about their subject; for a question without a subject, in no text of
/// its set.
pub(super) fn unanswered(
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
        // Without a subject, search the texts that contain the answer's rarest word.
        let rarest =
            || answer.iter().map(|word| of_word.get(word).unwrap_or(&nowhere)).min_by_key(|t| t.len());
        match about.or_else(rarest) {
            Some(indices) => indices.iter().any(|&index| contains(&texts[index], &answer)),
            None => true,
        }
    };
    let unanswered_questions: Vec<String> = questions
        .questions
        .iter()
        .filter(|question| !is_answered(question))
        .map(|question| format!("{:?}: {:?}", question.id, question.options[question.answer]))
        .collect();
    let problem =
        format!("question(s) whose right answer occurs in no text about their subject in {}", set.file());
    Finding::of(FindingKind::AnswerNotInText, questions.file(), problem, unanswered_questions)
}

/// Questions with two options that look the same.
pub(super) fn equal_options(set: &QuestionSet) -> Option<Finding> {
    let equal = set.questions.iter().filter_map(|question| {
        let seen: Vec<String> = question.options.iter().map(|option| visible(option)).collect();
        let (first, second) = (0..seen.len())
            .flat_map(|second| (0..second).map(move |first| (first, second)))
            .find(|&(first, second)| seen[first] == seen[second])?;
        let right = if [first, second].contains(&question.answer) { ", one of them right" } else { "" };
        Some(format!("{:?}: options {first} and {second} are {:?}{right}", question.id, seen[first]))
    });
    let problem = "question(s) with two options that look the same".into();
    Finding::of(FindingKind::EqualOptions, set.file(), problem, equal)
}

/// Questions that, with one of their options, are longer than the model's context. The last token is only predicted,
/// so it does not count.
pub(super) fn beyond_context(
    set: &QuestionSet,
    encoded: &[EncodedQuestion],
    context: usize,
) -> Option<Finding> {
    let longer = set.questions.iter().zip(encoded).filter_map(|(question, encoded)| {
        let tokens = encoded.options.iter().map(|option| option.harness.tokens.len()).max()?;
        (tokens > context + 1).then(|| format!("{:?}: {tokens} tokens", question.id))
    });
    let problem = format!("question(s) longer, with an option, than the model's context of {context} tokens");
    Finding::of(FindingKind::QuestionBeyondContext, set.file(), problem, longer)
}

/// The visible form of a text: without invisible characters, with single spaces, trimmed.
fn visible(text: &str) -> String {
    let mut shown = String::new();
    let words = text.split_whitespace().map(|word| word.chars().filter(|&c| !is_invisible(c)).collect());
    for word in words.filter(|word: &String| !word.is_empty()) {
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown.push_str(&word);
    }
    shown
}

/// Whether a character is invisible: control characters, and Unicode's `Default_Ignorable_Code_Point`, such as
/// zero-width characters, direction marks, soft hyphens, variation selectors and tags.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{3164}'
            | '\u{FEFF}' | '\u{FFA0}' | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}'
            | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}'
            | '\u{FFF0}'..='\u{FFF8}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::super::tests::corpus;
    use super::*;
    use crate::data::{EncodedOption, Split};

    fn question(id: &str, options: &[&str], answer: usize) -> Question {
        Question {
            id: id.into(),
            subject: None,
            question: "Where?".into(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            answer,
            split: Split::Test,
        }
    }

    #[test]
    fn a_question_whose_answer_is_in_no_text_is_reported() {
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
        // The questions of a public benchmark are not about these texts.
        set.name = "arc".into();
        assert_eq!(unanswered(&corpus, &texts, &set, &mut words), None);
    }

    #[test]
    fn options_that_look_the_same_are_reported() {
        let questions = vec![
            question("same", &["a pier", "a pier", "a mast"], 1),
            question("space", &["a mast", " a\u{a0}pier\n", "a  pier\u{3000}"], 0),
            question("hidden", &["\u{feff}pi\u{200b}er", "mast", "pier\u{200e}\u{200b} \u{ad}"], 0),
            question("different", &["pier", "Pier", "piér", "pi er"], 0),
        ];
        let set = QuestionSet { name: "retain".into(), questions };
        let found = equal_options(&set).unwrap();
        assert_eq!((found.kind, found.count), (FindingKind::EqualOptions, 3));
        let examples = [
            r#""same": options 0 and 1 are "a pier", one of them right"#,
            r#""space": options 1 and 2 are "a pier""#,
        ];
        assert_eq!(
            (found.file.as_str(), &found.examples[..]),
            ("questions/retain.jsonl", &examples.map(String::from)[..])
        );
    }

    #[test]
    fn questions_longer_than_the_context_are_reported() {
        let encoded = |lengths: &[usize]| EncodedQuestion {
            options: lengths
                .iter()
                .map(|&length| EncodedOption::of_tokens(vec![0; length], length - 1..length, 1))
                .collect(),
            answer: 0,
            split: Split::Test,
        };
        let questions = vec![question("fits", &["x", "y"], 0), question("long", &["x", "y"], 0)];
        let set = QuestionSet { name: "general".into(), questions };
        let found = beyond_context(&set, &[encoded(&[30, 33]), encoded(&[30, 34])], 32).unwrap();
        assert_eq!((found.count, &found.examples[0][..]), (1, r#""long": 34 tokens"#));
        assert!(found.problem.contains("32 tokens"), "{found}");
        assert_eq!(beyond_context(&set, &[encoded(&[5, 5]), encoded(&[5, 33])], 32), None);
    }
}
