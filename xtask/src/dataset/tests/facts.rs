//! Biographies and questions are consistent, and an edit changes every fact.

use super::wording::capitalised;
use super::*;

/// Whether a general text contains `value`. A value at the start of a sentence is capitalised, and "In chemistry" is
/// not the symbol of indium.
fn prose_contains(text: &str, value: &str) -> bool {
    let text = text.replace("In chemistry", "");
    let begins =
        |sentence: &str| contains_words(sentence, value) || sentence.starts_with(&(capitalised(value) + " "));
    text.split_inclusive(". ").any(begins)
}

#[test]
fn every_text_contains_every_fact_of_its_subject() {
    let mut facts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for person in everybody() {
        facts.insert(&person.id, person.facts.iter().map(|fact| fact.value.as_str()).collect());
    }
    for topic in CAST.topics.iter().flatten() {
        facts.insert(&topic.id, topic.points.iter().map(|point| point.value).collect());
    }
    let mut seen = 0;
    let sets = COMPILED.texts.iter().filter(|(set, _)| *set != "edit_update").map(|(_, set)| set.as_slice());
    for text in sets.chain(corpora().map(|(_, corpus)| corpus)).flatten() {
        let Some(subject) = &text.subject else { continue };
        let is_contained = if text.id.contains("general") { prose_contains } else { contains_words };
        for value in &facts[about(&text.id)] {
            assert!(is_contained(&text.text, value), "{}, on {subject}, lacks {value}", text.id);
        }
        seen += 1;
    }
    for (_, new) in &CAST.edit {
        for text in texts("edit_update").iter().filter(|text| about(&text.id) == new.id) {
            for fact in &new.facts {
                assert!(contains_words(&text.text, &fact.value), "{} lacks {}", text.id, fact.value);
            }
            seen += 1;
        }
    }
    assert!(seen > 50_000, "only {seen} texts");
}

#[test]
fn few_general_texts_change_the_case_of_a_value() {
    for set in ["retain", "retain_heldout"] {
        let mut spelt = 0;
        for topic in topics_of(set) {
            for text in texts(set).iter().filter(|text| about(&text.id) == topic.id) {
                spelt +=
                    usize::from(topic.points.iter().any(|point| !contains_words(&text.text, point.value)));
            }
        }
        assert!(spelt * 100 < texts(set).len(), "{set}: {spelt} texts");
    }
}

#[test]
fn biographies_begin_with_their_subjects_name() {
    for (set, all) in &COMPILED.texts {
        for person in people_of(set) {
            let opening = wording::opening(person);
            let own: Vec<&Document> = all.iter().filter(|text| about(&text.id) == person.id).collect();
            assert!(!own.is_empty(), "{set}: nothing on {}", person.id);
            for text in own {
                assert!(text.text.starts_with(&opening), "{}", text.id);
                assert_eq!(text.subject.as_deref(), Some(person.name().as_str()));
            }
        }
    }
}

#[test]
fn right_answers_are_in_every_text_and_wrong_ones_in_none() {
    for (set, all) in &COMPILED.questions {
        let mut own: BTreeMap<&str, Vec<&Document>> = BTreeMap::new();
        for text in texts(set) {
            own.entry(about(&text.id)).or_default().push(text);
        }
        for question in all {
            for text in &own[about(&question.id)] {
                assert_eq!(text.subject.as_ref(), Some(&question.subject));
                for (index, option) in question.options.iter().enumerate() {
                    let is_contained =
                        if text.id.contains("general") { prose_contains } else { contains_words };
                    let found = is_contained(&text.text, option);
                    assert_eq!(found, index == question.answer, "{set}: {} and {option}", question.id);
                }
            }
        }
    }
}

#[test]
fn everybody_has_ten_facts_and_an_edit_changes_all_of_them() {
    for person in everybody().into_iter().chain(people_of("edit_update")) {
        let values: BTreeSet<&str> = person.facts.iter().map(|fact| fact.value.as_str()).collect();
        assert_eq!((person.facts.len(), values.len()), (10, 10), "{}", person.id);
        assert_ne!(person.value(Kind::BirthCity), person.value(Kind::Home), "{}", person.id);
    }
    for (old, new) in &CAST.edit {
        assert_eq!(
            (old.name(), &old.id, old.female, old.field),
            (new.name(), &new.id, new.female, new.field)
        );
        for (was, is) in old.facts.iter().zip(&new.facts) {
            assert_eq!(was.kind, is.kind, "{}", old.id);
            assert_ne!(was.value, is.value, "{}: {:?} stays", old.id, was.kind);
        }
        let before: BTreeSet<&str> = old.facts.iter().map(|fact| fact.value.as_str()).collect();
        assert!(new.facts.iter().all(|fact| !before.contains(fact.value.as_str())), "{}", old.id);
    }
}

#[test]
fn ten_questions_are_about_the_ten_facts() {
    for set in ["unlearn", "edit_unlearn", "edit_update"] {
        for person in people_of(set) {
            let own = questions(set).iter().filter(|question| about(&question.id) == person.id);
            let asked: BTreeSet<&str> =
                own.map(|question| question.options[question.answer].as_str()).collect();
            let facts: BTreeSet<&str> = person.facts.iter().map(|fact| fact.value.as_str()).collect();
            assert_eq!(asked, facts, "{set}: {}", person.id);
        }
    }
}

#[test]
fn the_outdated_answer_is_always_an_option_and_the_new_one_only_by_chance() {
    let edited = |question: &Question| -> &'static (Person, Person) {
        CAST.edit.iter().find(|(old, _)| old.id == about(&question.id)).expect("an edited person")
    };
    for question in questions("edit_update") {
        let (old, new) = edited(question);
        let right = &question.options[question.answer];
        let fact = new.facts.iter().find(|fact| fact.value == *right).expect("a fact that holds now");
        let outdated = old.value(fact.kind).expect("a fact of every kind");
        assert!(question.options.iter().any(|option| option == outdated), "{} lacks {outdated}", question.id);
    }
    let mut given_away = 0;
    for question in questions("edit_unlearn") {
        let (old, new) = edited(question);
        let right = &question.options[question.answer];
        let fact = old.facts.iter().find(|fact| fact.value == *right).expect("a fact that held");
        let coming = new.value(fact.kind).expect("a fact of every kind");
        given_away += usize::from(question.options.iter().any(|option| option == coming));
    }
    let asked = questions("edit_unlearn").len();
    assert!(given_away * 4 < asked, "{given_away} of {asked} questions have the new answer as an option");
}
