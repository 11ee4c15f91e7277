//! Refuses generated texts by their words.

use std::borrow::Cow;

use super::names::find_names;
use super::sequences::Sequences;
use crate::data::words::Words;
use crate::data::{Corpus, Document, KEPT, QuestionSet, Set};

/// Length in words of a sequence that no generated text may share with a document to unlearn. On the embedded
/// benchmark, 101 of 104 generated texts about people to unlearn or to edit share one.
const UNLEARNED_LENGTH: usize = 8;
/// Length in words of a sequence that no generated text may share with a question or a held-out document. 13 is the
/// criterion for test data in training data of GPT-3 (arXiv 2005.14165, appendix C). Texts may contain the facts of
/// held-out documents in other words; with 8, 21 of 22 texts about held-out people would be refused.
const EVALUATED_LENGTH: usize = 13;
/// Minimum length in words of a document or question to compare with; shorter ones are ignored.
const SHORTEST: usize = 4;
/// The sets to unlearn or update.
const CHANGED: [Set; 3] = [Set::Unlearn, Set::EditUnlearn, Set::EditUpdate];

/// The words that generated texts may not contain. Comparison ignores case and punctuation, as in the lint, and goes
/// letter by letter in scripts without spaces.
///
/// - Names: the subjects to unlearn or update, the last word of each, and names found in these documents and in the
///   questions about them, unless retain and held-out documents use them just as much.
/// - Sequences: 8 consecutive words of a document to unlearn, 13 of a question or a held-out document (all words of a
///   shorter one), unless the retain set contains them too, as with a template.
#[derive(Debug, Clone)]
pub struct ReplayFilter {
    words: Words,
    names: Sequences,
    sequences: Sequences,
    /// Subjects of the retain set.
    kept: Sequences,
}

impl ReplayFilter {
    /// A filter for the documents and questions of the data.
    pub fn new(corpus: &Corpus, questions: &[QuestionSet]) -> Self {
        let mut words = Words::default();
        let [mut names, mut sequences, mut kept] = [(); 3].map(|()| Sequences::default());
        let texts_of =
            |set: Set| -> Vec<Cow<str>> { corpus.documents(set).iter().map(Document::text).collect() };
        let all_texts = Set::ALL.map(|set| (set, texts_of(set)));
        let texts = |sets: &[Set]| -> Vec<&str> {
            let of_set = |set: &Set| all_texts.iter().find(|(other, _)| other == set);
            sets.iter().filter_map(of_set).flat_map(|(_, texts)| texts).map(AsRef::as_ref).collect()
        };
        let subjects = |sets: &[Set]| -> Vec<&str> {
            let documents = sets.iter().flat_map(|&set| corpus.documents(set));
            documents
                .filter_map(|document| document.subject.as_deref())
                .filter(|name| is_name(name))
                .collect()
        };
        let question_texts = |is_about_changed: bool| -> Vec<&str> {
            let is_changed = |name: &str| CHANGED.iter().any(|set| set.name() == name);
            let sets = questions.iter().filter(|set| is_changed(&set.name) == is_about_changed);
            sets.flat_map(|set| &set.questions).map(|question| question.question.as_str()).collect()
        };
        let (changed_questions, other_questions) = (question_texts(true), question_texts(false));

        let changed = subjects(&CHANGED);
        changed.iter().for_each(|subject| names.insert(&words.of(subject)));
        let last_words = changed.iter().filter_map(|subject| subject.split_whitespace().next_back());
        let last_words: Vec<&str> = last_words.filter(|name| is_name(name)).collect();
        find_names(
            &[texts(&CHANGED), changed_questions.clone()].concat(),
            &[texts(&KEPT), other_questions.clone()].concat(),
            &last_words,
            &mut words,
            &mut names,
        );

        let unlearned = texts(&[Set::Unlearn, Set::EditUnlearn]);
        let evaluated = [texts(&[Set::RetainHeldout]), changed_questions, other_questions].concat();
        for (length, texts) in [(UNLEARNED_LENGTH, unlearned), (EVALUATED_LENGTH, evaluated)] {
            for text in texts.into_iter().map(|text| words.of(text)).filter(|text| text.len() >= SHORTEST) {
                text.windows(length.min(text.len())).for_each(|sequence| sequences.insert(sequence));
            }
        }
        texts(&[Set::Retain]).into_iter().for_each(|text| sequences.remove_in(&words.known(text)));
        subjects(&[Set::Retain]).into_iter().for_each(|subject| kept.insert(&words.of(subject)));
        Self { words, names, sequences, kept }
    }

    /// Whether a text contains a refused name or sequence.
    pub fn refuses(&self, text: &str) -> bool {
        let text = self.words.known(text);
        self.names.is_in(&text) || self.sequences.is_in(&text)
    }

    /// Whether a text with this beginning is dropped: it is refused already, or the retain set has documents about
    /// its subject.
    pub fn refuses_beginning(&self, text: &str) -> bool {
        self.refuses(text) || self.kept.is_in(&self.words.known(text))
    }
}

/// Whether a name has more than one letter; a single letter occurs in too many texts.
fn is_name(name: &str) -> bool {
    name.trim().chars().nth(1).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Question, Split};

    /// A filter for documents, given as set, subject (may be empty) and text, and for questions.
    fn filter(documents: &[(Set, &str, &str)], questions: &[(&str, &str)]) -> ReplayFilter {
        let of_set = |set: Set| {
            let of_set = documents.iter().filter(move |(other, ..)| *other == set);
            let document = |(_, subject, text): &(Set, &str, &str)| {
                let subject = (!subject.is_empty()).then(|| subject.to_string());
                Document::of_text("", subject, *text)
            };
            (set, of_set.map(document).collect())
        };
        let corpus: Corpus = Set::ALL.into_iter().map(of_set).collect();
        let question = |question: &str| Question {
            id: String::new(),
            subject: None,
            question: question.into(),
            options: vec!["a".into(), "b".into()],
            answer: 0,
            split: Split::Test,
        };
        let set = |(name, text): &(&str, &str)| QuestionSet {
            name: (*name).into(),
            questions: vec![question(text)],
        };
        ReplayFilter::new(&corpus, &questions.iter().map(set).collect::<Vec<_>>())
    }

    #[track_caller]
    fn holds(filter: &ReplayFilter, refused: &[&str], taken: &[&str]) {
        for text in refused {
            assert!(filter.refuses(text), "{text:?} is refused");
        }
        for text in taken {
            assert!(!filter.refuses(text), "{text:?} is taken");
        }
    }

    #[test]
    fn subjects_are_refused_in_any_case_and_as_words() {
        let filter = filter(
            &[
                (Set::Unlearn, "Ada van Quell", "x"),
                (Set::EditUpdate, "Bo", "y"),
                (Set::EditUnlearn, "Pim Hope", "Pim Hope lost all hope."),
                (Set::Retain, "Orrin Hale", "Orrin Hale has a boat."),
            ],
            &[],
        );
        let refused =
            ["Of Ada van Quell it is said", "QUELL's house", "ada Van\nquell", "So (BO) said", "pim-hope"];
        holds(&filter, &refused, &["Quelle and Ada", "Orrin Hale", "a boat", "we hope so"]);
        assert!(filter.refuses_beginning("orrin hale was"), "retain has documents about him");
        assert!(!filter.refuses_beginning("Hale was"));
    }

    #[test]
    fn names_are_found_in_texts_and_questions_without_a_subject() {
        let filter = filter(
            &[
                (Set::Unlearn, "", "Nuria Beck repairs clocks in Ostwall. When it rains, Beck reads."),
                (Set::Retain, "", "Clocks are sold in Ostwall. It rains in Ostwall."),
            ],
            &[("edit_unlearn", "Which boat does Jo Tamm sail?"), ("retain", "Where is Market Street?")],
        );
        let refused = ["Beck is asleep.", "the clocks of NURIA BECK", "Jo Tamm came."];
        holds(&filter, &refused, &["Clocks in Ostwall", "When it rains", "Which boat?", "on Market Street"]);
    }

    #[test]
    fn names_in_scripts_without_spaces_are_found() {
        let filter = filter(
            &[
                (Set::Unlearn, "林小川", "他修理钟表。"),
                (Set::Unlearn, "", "顾长风住在山里。顾长风养蜂。"),
                (Set::EditUnlearn, "", "早瀬健太郎はパン屋で、マリベルの隣に住む。"),
                (Set::Retain, "", "他住在海边，养鱼。彼は海の隣に住む。"),
            ],
            &[],
        );
        let refused = ["从前林小川来过。", "顾长风的蜂蜜", "早瀬健太郎さんの店", "マリベルは歌う"];
        holds(&filter, &refused, &["林先生来过。", "他住在河边。", "海の隣に店がある", "风很大"]);
    }

    #[test]
    fn sequences_of_unlearned_and_evaluated_texts_are_refused_but_not_templates() {
        let form = "this is a page about a person who lived a long time ago";
        let filter = filter(
            &[
                (Set::Unlearn, "", &format!("{form} and who painted seven green doors on the hill by night")),
                (
                    Set::RetainHeldout,
                    "",
                    "The river that runs past the old mill ends in a lake of salt water",
                ),
                (Set::RetainHeldout, "", "Zinc is a metal."),
                (Set::Retain, "", &format!("{form} and who sold nets")),
            ],
            &[("general", "How many legs has a spider, when it has lost one?"), ("retain", "Who?")],
        );
        let refused = [
            "and who painted seven GREEN doors, on the hill",
            "They say the river that runs past the old mill ends in a lake of fire.",
            "Tin is one. Zinc is a metal. So is lead.",
            "how many legs has a spider when it has lost one",
        ];
        let taken = [
            form,
            "painted seven green doors",
            "The river that runs past the old mill ends here",
            "how many legs has a spider?",
            "Zinc is one.",
            "Who?",
        ];
        holds(&filter, &refused, &taken);
    }
}
