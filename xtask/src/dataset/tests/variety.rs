//! Biographies differ in more than their values.

use super::*;

/// A biography with its names, values and pronouns replaced by placeholders.
fn shape(person: &Person, text: &str) -> String {
    let mut shape = text.to_owned();
    for fact in &person.facts {
        shape = shape.replace(&fact.value, &format!("{{{:?}}}", fact.kind));
    }
    shape = shape.replace(&person.name(), "{name}").replace(&person.surname, "{name}");
    let work = format!("the {} ", pools::FIELDS[person.field].work);
    shape = shape.replace(&work, "the {work} ").replace(" an {", " a {");
    let plain = |word: &str| match word.to_lowercase().as_str() {
        "he" | "she" => "{name}".to_owned(),
        "his" | "her" => "{name}'s".to_owned(),
        _ => word.to_owned(),
    };
    shape.split(' ').map(plain).collect::<Vec<String>>().join(" ")
}

/// The sentences of a shape.
fn sentences(shape: &str) -> Vec<&str> {
    shape.split_inclusive('.').map(str::trim).collect()
}

/// Number of placeholders in each sentence of a shape.
fn layout(shape: &str) -> Vec<usize> {
    sentences(shape).into_iter().map(|sentence| sentence.matches('{').count()).collect()
}

/// The shapes of a set's texts in order.
fn shapes(set: &str) -> Vec<String> {
    let people: BTreeMap<&str, &Person> =
        people_of(set).into_iter().map(|person| (person.id.as_str(), person)).collect();
    texts(set).iter().map(|text| shape(people[about(&text.id)], &text.text)).collect()
}

#[test]
fn a_shape_contains_nothing_of_its_person() {
    for (person, shape) in people_of("unlearn").into_iter().zip(shapes("unlearn")) {
        assert!(!shape.contains(&person.first) && !shape.contains(&person.surname), "{shape}");
        for fact in &person.facts {
            assert!(!contains_words(&shape, &fact.value), "{shape}");
            assert_eq!(shape.matches(&format!("{{{:?}}}", fact.kind)).count(), 1, "{shape}");
        }
    }
}

#[test]
fn biographies_differ_in_more_than_their_values() {
    for set in ["unlearn", "edit_unlearn"] {
        let all = shapes(set);
        let distinct: BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "{set}: texts that differ in their values only");
        let every: Vec<&str> = all.iter().flat_map(|shape| sentences(shape)).collect();
        let said: BTreeSet<&&str> = every.iter().collect();
        assert!(said.len() * 2 > every.len(), "{set}: {} of {} sentences are new", said.len(), every.len());
        let layouts: Vec<Vec<usize>> = all.iter().map(|shape| layout(shape)).collect();
        let lengths: BTreeSet<usize> = layouts.iter().map(Vec::len).collect();
        assert!(lengths.len() >= 4, "{set}: {lengths:?} sentences");
        let distinct: BTreeSet<&Vec<usize>> = layouts.iter().collect();
        assert!(distinct.len() >= 80, "{set}: facts are spread over sentences in {} ways", distinct.len());
    }
}

#[test]
fn the_wordings_of_a_new_biography_differ_in_their_sentences() {
    let mut wordings: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (text, shape) in texts("edit_update").iter().zip(shapes("edit_update")) {
        wordings.entry(about(&text.id)).or_default().insert(shape);
    }
    assert!(wordings.values().all(|shapes| shapes.len() == 8));
}

#[test]
fn the_first_wording_of_a_new_biography_has_the_sentences_of_the_old_one() {
    let new = shapes("edit_update");
    for (index, old) in shapes("edit_unlearn").iter().enumerate() {
        assert_eq!(*old, new[index * UPDATE_WORDINGS]);
    }
}

#[test]
fn at_least_fifty_professions_occur() {
    let professions = |people: Vec<&'static Person>| -> BTreeSet<&'static str> {
        people.into_iter().filter_map(|person| person.value(Kind::Profession)).collect()
    };
    for set in ["unlearn", "edit_unlearn", "edit_update", "retain"] {
        assert!(professions(people_of(set)).len() >= 50, "{set}");
    }
}
