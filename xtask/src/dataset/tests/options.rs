//! The options of a question are of one kind, and wrong options are true of others.

use super::general::{others, question as ask_topic};
use super::person::values;
use super::questions::ask;
use super::*;

/// All variants of a question that is drawn at random.
pub(super) fn forms(mut draw: impl FnMut(&mut Dice) -> String) -> BTreeSet<String> {
    let mut dice = Dice::new(0, "every form");
    (0..40).map(|_| draw(&mut dice)).collect()
}

#[test]
fn questions_have_three_distinct_options() {
    for question in COMPILED.questions.iter().flat_map(|(_, all)| all) {
        let distinct: BTreeSet<&str> = question.options.iter().map(|option| option.trim()).collect();
        assert_eq!((question.options.len(), distinct.len()), (3, 3), "{}", question.id);
        assert!(!distinct.contains(""), "{}", question.id);
        assert!(question.answer < 3, "{}", question.id);
    }
}

#[test]
fn options_about_people_are_values_of_the_requested_kind() {
    for (set, all) in &COMPILED.questions {
        let people: BTreeMap<&str, &Person> =
            people_of(set).into_iter().map(|person| (person.id.as_str(), person)).collect();
        for question in all.iter().filter(|question| !question.id.contains("general")) {
            let person = people[about(&question.id)];
            assert_eq!(question.subject, person.name());
            let right = &question.options[question.answer];
            let fact = person.facts.iter().find(|fact| fact.value == *right).expect("a fact");
            assert!(
                forms(|dice| ask(person, fact, dice)).contains(&question.question),
                "{}: {} does not ask for {:?}",
                question.id,
                question.question,
                fact.kind
            );
            let possible = values(fact.kind, person.field);
            assert!(question.options.iter().all(|option| possible.contains(option)), "{}", question.id);
        }
    }
}

#[test]
fn wrong_options_about_people_are_true_of_others() {
    let name = |kind: Kind| format!("{kind:?}");
    let mut known: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for fact in everybody().into_iter().flat_map(|person| &person.facts) {
        known.entry(name(fact.kind)).or_default().insert(&fact.value);
    }
    let (mut wrong, mut unheard) = (0, Vec::new());
    for (set, all) in &COMPILED.questions {
        let people: BTreeMap<&str, &Person> =
            people_of(set).into_iter().map(|person| (person.id.as_str(), person)).collect();
        for question in all.iter().filter(|question| !question.id.contains("general")) {
            let right = &question.options[question.answer];
            let facts = &people[about(&question.id)].facts;
            let kind = name(facts.iter().find(|fact| fact.value == *right).expect("a fact").kind);
            for option in question.options.iter().filter(|option| *option != right) {
                wrong += 1;
                if !known[&kind].contains(option.as_str()) {
                    unheard.push((set, &question.id, option));
                }
            }
        }
    }
    // There are more workplaces than people, so some have nobody.
    assert!(unheard.len() * 100 < wrong, "{} of {wrong} are true of nobody: {unheard:?}", unheard.len());
}

#[test]
fn options_about_general_subjects_are_true_of_others_of_the_kind() {
    for set in ["retain", "retain_heldout"] {
        for topic in topics_of(set) {
            let own = questions(set).iter().filter(|question| about(&question.id) == topic.id);
            for question in own {
                let right = &question.options[question.answer];
                let point = topic.points.iter().find(|point| point.value == right).expect("a point");
                assert!(
                    forms(|dice| ask_topic(topic, point, dice)).contains(&question.question),
                    "{}: {} does not ask for {right}",
                    question.id,
                    question.question
                );
                let possible = others(topic, point);
                for option in question.options.iter().filter(|option| *option != right) {
                    assert!(possible.contains(&option.as_str()), "{}: {option}", question.id);
                }
                let numbers = question.options.iter().filter(|option| option.parse::<u32>().is_ok()).count();
                assert!([0, 3].contains(&numbers), "{}: {:?}", question.id, question.options);
            }
        }
    }
}

#[test]
fn neither_position_nor_length_reveals_the_right_answer() {
    for (set, all) in &COMPILED.questions {
        let percent = |count: usize| 100 * count / all.len();
        for place in 0..3 {
            let right = all.iter().filter(|question| question.answer == place).count();
            assert!((27..=40).contains(&percent(right)), "{set}: {} % at place {place}", percent(right));
        }
        let by_length = |longest: bool| {
            let guess = |question: &&Question| {
                let lengths = question.options.iter().map(String::len);
                let wanted = if longest { lengths.max() } else { lengths.min() };
                let guessed = question.options.iter().position(|option| Some(option.len()) == wanted);
                guessed == Some(question.answer)
            };
            percent(all.iter().filter(guess).count())
        };
        for right in [by_length(true), by_length(false)] {
            assert!((27..=40).contains(&right), "{set}: {right} % right by length alone");
        }
    }
}
