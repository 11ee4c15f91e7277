//! What a text that the model writes may not hold, by its words.

use std::borrow::Cow;

use super::names::find_names;
use super::sequences::Sequences;
use crate::data::words::Words;
use crate::data::{Corpus, Document, KEPT, QuestionSet, Set};

/// Words in a row that no text to keep has in common with one that is to be forgotten. On the embedded benchmark, 101 of
/// 104 texts about people to forget or to edit have so many.
const FORGOTTEN: usize = 8;
/// Words in a row that no text to keep has in common with a question or a held-out text: as many as are taken for a sign
/// that a test is in the training data (GPT-3, arXiv 2005.14165, appendix C). What a held-out text tells may be told in
/// other words; with 8, 21 of 22 texts about held-out people would be refused.
const EXAMINED: usize = 13;
/// Words of a text, or of a question, that is looked for as a whole, at least: fewer say nothing.
const SHORTEST: usize = 4;
/// The sets of what is to be forgotten or updated.
const CHANGED: [Set; 3] = [Set::Unlearn, Set::EditUnlearn, Set::EditUpdate];

/// What texts may not hold. Words are compared as the lint does: in any case, without punctuation, letter by letter
/// where a script has no spaces.
///
/// - Names: the subjects of what is to be forgotten or updated, the last word of each, and the names that are found in
///   these texts and in the questions on them, but for those that what is to be kept uses just as much.
/// - Stretches: 8 words in a row of a text to be forgotten, 13 of a question or of a held-out text (of a shorter one, all),
///   but for those that the retain set has too, as a template has.
#[derive(Debug, Clone)]
pub struct ReplayFilter {
    words: Words,
    names: Sequences,
    stretches: Sequences,
    /// The subjects of the retain set.
    kept: Sequences,
}

impl ReplayFilter {
    /// By the documents and the questions of the data.
    pub fn new(corpus: &Corpus, questions: &[QuestionSet]) -> Self {
        let mut words = Words::default();
        let [mut names, mut stretches, mut kept] = [(); 3].map(|()| Sequences::default());
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
        let asked = |is_about_changed: bool| -> Vec<&str> {
            let is_changed = |name: &str| CHANGED.iter().any(|set| set.name() == name);
            let sets = questions.iter().filter(|set| is_changed(&set.name) == is_about_changed);
            sets.flat_map(|set| &set.questions).map(|question| question.question.as_str()).collect()
        };
        let (asked_of_changed, other_questions) = (asked(true), asked(false));

        let changed = subjects(&CHANGED);
        changed.iter().for_each(|subject| names.insert(&words.of(subject)));
        let last_words = changed.iter().filter_map(|subject| subject.split_whitespace().next_back());
        let last_words: Vec<&str> = last_words.filter(|name| is_name(name)).collect();
        find_names(
            &[texts(&CHANGED), asked_of_changed.clone()].concat(),
            &[texts(&KEPT), other_questions.clone()].concat(),
            &last_words,
            &mut words,
            &mut names,
        );

        let forgotten = texts(&[Set::Unlearn, Set::EditUnlearn]);
        let examined = [texts(&[Set::RetainHeldout]), asked_of_changed, other_questions].concat();
        for (length, texts) in [(FORGOTTEN, forgotten), (EXAMINED, examined)] {
            for text in texts.into_iter().map(|text| words.of(text)).filter(|text| text.len() >= SHORTEST) {
                text.windows(length.min(text.len())).for_each(|stretch| stretches.insert(stretch));
            }
        }
        texts(&[Set::Retain]).into_iter().for_each(|text| stretches.remove_in(&words.known(text)));
        subjects(&[Set::Retain]).into_iter().for_each(|subject| kept.insert(&words.of(subject)));
        Self { words, names, stretches, kept }
    }

    /// Whether a text holds any of it.
    pub fn refuses(&self, text: &str) -> bool {
        let text = self.words.known(text);
        self.names.is_in(&text) || self.stretches.is_in(&text)
    }

    /// Whether a text that begins like this is not worth going on with: it would be refused, or the retain set has texts
    /// on its subject.
    pub fn refuses_beginning(&self, text: &str) -> bool {
        self.refuses(text) || self.kept.is_in(&self.words.known(text))
    }
}

/// Whether a name has more than one letter: one alone stands in too many texts.
fn is_name(name: &str) -> bool {
    name.trim().chars().nth(1).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Question, Split};

    /// Documents of some sets: of each its subject, or nothing, and its text.
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
        assert!(filter.refuses_beginning("orrin hale was"), "what is kept has texts of its own");
        assert!(!filter.refuses_beginning("Hale was"));
    }

    #[test]
    fn names_are_found_in_texts_and_questions_that_have_no_subject() {
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
    fn scripts_without_spaces_have_names_too() {
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
    fn stretches_of_what_must_go_or_is_examined_are_refused_but_no_template() {
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
