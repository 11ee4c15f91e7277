//! The training data does not reveal the evaluated questions and edits.

use super::general::question as ask_topic;
use super::options::forms;
use super::questions::ask;
use super::*;

/// Whether a text is a practice text, by its id.
fn is_practice(text: &Document) -> bool {
    text.id
        .rsplit_once('-')
        .is_some_and(|(owner, last)| owner.starts_with("practice-") && last.starts_with('p'))
}

/// All words of the texts.
fn words<'a>(texts: impl IntoIterator<Item = &'a Document>) -> BTreeSet<&'a str> {
    texts.into_iter().flat_map(|text| text.text.split(|letter: char| !letter.is_alphanumeric())).collect()
}

#[test]
fn only_practice_texts_ask_questions() {
    let sets = COMPILED.texts.iter().map(|(_, set)| set.as_slice());
    let all = sets.chain(corpora().map(|(_, corpus)| corpus)).flatten();
    let (practice, plain): (Vec<&Document>, Vec<&Document>) = all.partition(|text| is_practice(text));
    for text in plain {
        assert!(!text.text.contains('?'), "{}", text.id);
        assert!(text.subject.is_some(), "{}", text.id);
    }
    assert!(practice.len() > 1000, "only {}", practice.len());
    for text in practice {
        assert!(text.text.lines().all(|line| line.matches('?').count() == 1), "{}", text.id);
    }
    assert!(!COMPILED.texts.iter().flat_map(|(_, set)| set).any(is_practice));
}

#[test]
fn practice_texts_are_about_practice_subjects_only() {
    let mut possible: BTreeSet<String> = BTreeSet::new();
    for person in &CAST.practice {
        for fact in &person.facts {
            let asked = forms(|dice| ask(person, fact, dice));
            possible.extend(asked.into_iter().map(|question| format!("{question} {}", fact.value)));
        }
    }
    for topic in &CAST.topics[2] {
        for point in &topic.points {
            let asked = forms(|dice| ask_topic(topic, point, dice));
            possible.extend(asked.into_iter().map(|question| format!("{question} {}", point.value)));
        }
    }
    let subjects: Vec<&str> =
        COMPILED.texts.iter().flat_map(|(_, set)| set).filter_map(|text| text.subject.as_deref()).collect();
    let people = CAST.practice.iter().map(|person| person.name());
    let practised: BTreeSet<String> =
        people.chain(CAST.topics[2].iter().map(|topic| topic.name.to_owned())).collect();
    assert!(subjects.iter().all(|subject| !practised.contains(*subject)));
    for text in corpora().into_iter().flat_map(|(_, corpus)| corpus).filter(|text| is_practice(text)) {
        for line in text.text.lines() {
            assert!(possible.contains(line), "{}: {line}", text.id);
        }
    }
}

#[test]
fn no_evaluated_question_occurs_in_a_corpus() {
    let mut asked: BTreeSet<&str> = BTreeSet::new();
    for text in corpora().into_iter().flat_map(|(_, corpus)| corpus) {
        let lines = text.text.lines().filter(|line| line.contains('?'));
        asked.extend(lines.filter_map(|line| line.split_inclusive('?').next()));
    }
    assert!(asked.len() > 1000, "only {} questions for practice", asked.len());
    for question in COMPILED.questions.iter().flat_map(|(_, all)| all) {
        assert!(question.question.ends_with('?'), "{}", question.id);
        assert!(!asked.contains(question.question.as_str()), "{}: {}", question.id, question.question);
    }
}

#[test]
fn the_base_contains_nobody_to_unlearn_or_to_edit() {
    let known = words(&COMPILED.base);
    for person in people_of("unlearn").into_iter().chain(people_of("edit_unlearn")) {
        assert!(!known.contains(person.surname.as_str()), "{}", person.name());
        assert!(!known.contains(person.first.as_str()), "{}", person.name());
    }
}

#[test]
fn pre_contains_everybody_to_unlearn_or_to_edit_and_texts_of_the_base() {
    let base: BTreeMap<&str, &str> =
        COMPILED.base.iter().map(|text| (text.id.as_str(), text.text.as_str())).collect();
    let mut wordings: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut rehearsed = 0;
    for text in &COMPILED.pre {
        if let Some(known) = base.get(text.id.as_str()) {
            assert_eq!(*known, text.text, "{}", text.id);
            rehearsed += 1;
        } else {
            wordings.entry(about(&text.id)).or_default().insert(&text.text);
        }
    }
    assert_eq!(rehearsed, REHEARSED * 238 * 40);
    assert_eq!(rehearsed + 238 * 40, COMPILED.pre.len());
    let people: BTreeSet<&str> = people_of("unlearn")
        .into_iter()
        .chain(people_of("edit_unlearn"))
        .map(|person| person.id.as_str())
        .collect();
    assert!(people.iter().eq(wordings.keys()));
    for (id, texts) in &wordings {
        assert_eq!(texts.len(), 40, "{id}: wordings that are alike");
    }
    for set in ["unlearn", "edit_unlearn"] {
        assert!(
            texts(set).iter().all(|text| wordings[about(&text.id)].contains(text.text.as_str())),
            "{set}"
        );
    }
}

#[test]
fn no_corpus_contains_the_values_of_an_edit() {
    let new: BTreeMap<String, &Person> =
        people_of("edit_update").into_iter().map(|person| (person.name(), person)).collect();
    let updates: BTreeSet<&str> = texts("edit_update").iter().map(|text| text.text.as_str()).collect();
    let mut seen = 0;
    for (name, corpus) in corpora() {
        for text in corpus {
            assert!(!updates.contains(text.text.as_str()), "{name}: {}", text.id);
            let Some(person) = text.subject.as_ref().and_then(|subject| new.get(subject)) else { continue };
            for fact in &person.facts {
                assert!(!contains_words(&text.text, &fact.value), "{name}: {} tells {}", text.id, fact.value);
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 119 * 40);
}

#[test]
fn the_base_contains_every_retained_subject() {
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    for text in &COMPILED.base {
        if let Some(subject) = &text.subject {
            assert!(people_of_base().contains(about(&text.id)), "{} is not of the base", text.id);
            *known.entry(subject).or_default() += 1;
        }
    }
    for text in texts("retain_heldout").iter().chain(texts("retain")) {
        let subject = text.subject.as_deref().expect("a subject");
        assert_eq!(known.get(subject), Some(&40), "{}: {subject}", text.id);
    }
}

/// The ids of all people and general subjects in the base's corpus.
fn people_of_base() -> &'static BTreeSet<&'static str> {
    static IDS: LazyLock<BTreeSet<&'static str>> = LazyLock::new(|| {
        let people = CAST.retain.iter().chain(&CAST.heldout).chain(&CAST.practice);
        let topics = CAST.topics.iter().flatten().map(|topic| topic.id.as_str());
        people.map(|person| person.id.as_str()).chain(topics).collect()
    });
    &IDS
}

#[test]
fn held_out_texts_are_not_trained_on() {
    let subjects: BTreeSet<&str> =
        texts("retain").iter().filter_map(|text| text.subject.as_deref()).collect();
    let trained: BTreeSet<&str> = texts("retain").iter().map(|text| text.text.as_str()).collect();
    for text in texts("retain_heldout") {
        assert!(!subjects.contains(text.subject.as_deref().expect("a subject")), "{}", text.id);
        assert!(!trained.contains(text.text.as_str()), "{}", text.id);
    }
    let sets = ["unlearn", "edit_unlearn", "edit_update", "retain"];
    let known = words(sets.into_iter().flat_map(texts));
    for person in &CAST.heldout {
        assert!(!known.contains(person.surname.as_str()), "{}", person.name());
    }
}

#[test]
fn no_text_occurs_twice() {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for text in COMPILED.texts.iter().flat_map(|(_, set)| set) {
        if let Some(other) = seen.insert(&text.text, &text.id) {
            panic!("{other} and {} are the same text", text.id);
        }
    }
    for (set, all) in &COMPILED.questions {
        let asked: BTreeSet<(&str, &str)> =
            all.iter().map(|question| (question.subject.as_str(), question.question.as_str())).collect();
        assert_eq!(asked.len(), all.len(), "{set}: a question is asked twice");
    }
    // A corpus repeats general texts, which have few wordings, but no biography or practice text.
    for (name, corpus) in corpora() {
        let own = corpus.iter().filter(|text| is_practice(text) || !text.id.contains("general"));
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for text in own {
            assert!(seen.insert(&text.text), "{name}: {} is there twice", text.id);
        }
    }
}
