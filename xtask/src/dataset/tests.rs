//! What the benchmark promises.

use super::person::{Kind, Person};
use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// The benchmark of the repository.
static COMPILED: LazyLock<Benchmark> = LazyLock::new(|| compile(SIZES, SEED).expect("compiles"));

/// The texts of a set.
fn texts(name: &str) -> &'static [Document] {
    &COMPILED.texts.iter().find(|(set, _)| *set == name).expect("a set").1
}

/// The questions of a set.
fn questions(name: &str) -> &'static [Question] {
    &COMPILED.questions.iter().find(|(set, _)| *set == name).expect("a set").1
}

/// The document that a question or a wording belongs to.
fn document(id: &str) -> &str {
    id.rsplit_once('-').expect("an id of parts").0
}

#[test]
fn one_seed_gives_the_same_bytes_and_another_seed_others() {
    let small = Sizes { unlearn: 2, edit: 2, retain: 2, retain_heldout: 2, practice: 4, ..SIZES };
    let first = files(small, 1).expect("compiles");
    assert_eq!(first, files(small, 1).expect("compiles"));
    let other = files(small, 2).expect("compiles");
    assert!(first.keys().eq(other.keys()));
    assert!(first.iter().all(|(name, content)| *content != other[name] || name.ends_with("config.json")));
}

#[test]
fn chance_is_the_same_on_every_machine() {
    let mut dice = Dice::new(7, "test");
    let drawn: Vec<usize> = (0..8).map(|_| dice.below(1000)).collect();
    assert_eq!(drawn, DRAWN);
}

/// What seed 7 draws for the label "test".
const DRAWN: [usize; 8] = [38, 436, 339, 755, 55, 24, 635, 204];

#[test]
fn the_paper_s_number_of_subjects_fits() {
    let full = Sizes { unlearn: 119, edit: 119, ..SIZES };
    let people = cast(full, SEED).expect("names for all");
    assert_eq!((people.unlearn.len(), people.edit.len()), (119, 119));
}

#[test]
fn no_training_text_holds_an_evaluated_question_or_a_new_biography() {
    let mut corpus: Vec<&str> = COMPILED.corpus.iter().map(|document| document.text.as_str()).collect();
    corpus.sort_unstable();
    let together = corpus.join("\n");
    let asked: BTreeSet<&str> =
        together.lines().filter_map(|line| line.split_inclusive('?').next()).collect();
    for (set, documents) in &COMPILED.texts {
        assert!(documents.iter().all(|document| !document.text.contains('?')), "{set}");
    }
    for (set, questions) in &COMPILED.questions {
        for question in questions {
            assert!(!asked.contains(question.question.as_str()), "{set}: {}", question.question);
            assert!(question.question.contains(&question.subject) || question.id.contains("general"));
        }
    }
    let practised = |document: &&Document| document.text.contains('?');
    let subjects: Vec<&str> = COMPILED
        .texts
        .iter()
        .flat_map(|(_, set)| set)
        .filter_map(|document| document.subject.as_deref())
        .collect();
    for document in COMPILED.corpus.iter().filter(practised) {
        assert!(document.id.starts_with("practice-"));
        for subject in subjects.iter().filter(|subject| subject.contains(' ')) {
            assert!(!document.text.contains(subject), "{subject} in {}", document.id);
        }
    }
    for document in texts("edit_update") {
        assert!(corpus.binary_search(&document.text.as_str()).is_err(), "{}", document.id);
    }
}

#[test]
fn biographies_and_their_questions_agree() {
    for (set, questions) in &COMPILED.questions {
        let mut biographies: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for text in texts(set) {
            let id = if *set == "edit_update" { document(&text.id) } else { &text.id };
            biographies.entry(id).or_default().push(&text.text);
        }
        let mut halves: BTreeMap<&str, [i32; 2]> = BTreeMap::new();
        for question in questions {
            let options: BTreeSet<&String> = question.options.iter().collect();
            assert_eq!((options.len(), question.options.len()), (3, 3), "{}", question.id);
            assert!(question.options.iter().all(|option| !option.trim().is_empty()));
            let right = &question.options[question.answer];
            let biography = &biographies[document(&question.id)];
            assert!(biography.iter().all(|text| text.contains(right.as_str())), "{}: {right}", question.id);
            let wrong = question.options.iter().filter(|option| *option != right);
            let person = !question.id.contains("general");
            assert!(
                !person || wrong.clone().all(|option| !biography[0].contains(option.as_str())),
                "{}",
                question.id
            );
            halves.entry(document(&question.id)).or_default()[usize::from(question.split == "test")] += 1;
        }
        assert!(halves.values().all(|[validation, test]| (validation - test).abs() <= 1), "{set}");
        assert_eq!(halves.len(), biographies.len(), "{set}: a text without a question");
    }
}

#[test]
fn an_edit_changes_the_facts_and_asks_against_the_outdated_ones() {
    let cast = cast(SIZES, SEED).expect("names for all");
    let differ =
        |old: &Person, new: &Person| old.facts.iter().zip(&new.facts).filter(|(a, b)| a != b).count();
    assert!(cast.edit.iter().all(|(old, new)| old.name() == new.name() && differ(old, new) >= 7));
    for question in questions("edit_update") {
        let (old, new) =
            cast.edit.iter().find(|(old, _)| old.id == document(&question.id)).expect("an edited person");
        let right = &question.options[question.answer];
        let index = new.facts.iter().position(|fact| fact.value == *right).expect("a fact");
        assert_eq!(old.facts[index].kind, new.facts[index].kind);
        assert!(question.options.contains(&old.facts[index].value), "{}", question.id);
    }
    let mut with_new = 0;
    for question in questions("edit_unlearn") {
        let (old, new) =
            cast.edit.iter().find(|(old, _)| old.id == document(&question.id)).expect("an edited person");
        let right = &question.options[question.answer];
        let index = old.facts.iter().position(|fact| fact.value == *right).expect("a fact");
        assert_ne!(old.facts[index], new.facts[index], "{} asks for what stays", question.id);
        with_new += usize::from(question.options.contains(&new.facts[index].value));
    }
    assert!(with_new * 4 < questions("edit_unlearn").len(), "{with_new} questions give the new answer away");
}

#[test]
fn names_and_ids_are_unique_and_cities_differ() {
    let cast = cast(SIZES, SEED).expect("names for all");
    let olds = cast.edit.iter().map(|(old, _)| old);
    let people: Vec<&Person> = cast
        .unlearn
        .iter()
        .chain(olds)
        .chain(&cast.retain)
        .chain(&cast.heldout)
        .chain(&cast.practice)
        .collect();
    let surnames: BTreeSet<&str> = people.iter().map(|person| person.surname.as_str()).collect();
    let firsts: BTreeSet<&str> = people.iter().map(|person| person.first.as_str()).collect();
    assert_eq!((surnames.len(), firsts.len()), (people.len(), people.len()));
    for person in people.into_iter().chain(cast.edit.iter().map(|(_, new)| new)) {
        assert_ne!(person.value(Kind::BirthCity), person.value(Kind::Home), "{}", person.id);
        assert!(wording::wording(person, 3, SEED).starts_with(&wording::opening(person)));
    }
    for documents in COMPILED.texts.iter().map(|(_, documents)| documents).chain([&COMPILED.corpus]) {
        let ids: BTreeSet<&str> = documents.iter().map(|document| document.id.as_str()).collect();
        assert_eq!(ids.len(), documents.len());
    }
}

#[test]
fn what_is_committed_is_what_the_seed_gives() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    super::run(root, true).unwrap();
}
