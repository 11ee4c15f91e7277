//! Numbers, lengths and names.

use super::*;
use tokenizers::Tokenizer;

/// Range of a biography's length in tokens, including the one that begins every text.
const LENGTH: std::ops::RangeInclusive<usize> = 80..=160;

#[test]
fn sets_have_their_documented_sizes() {
    let subjects = |set: &str| -> usize {
        let subjects: BTreeSet<&str> =
            texts(set).iter().map(|text| text.subject.as_deref().expect("a subject")).collect();
        subjects.len()
    };
    assert_eq!(subjects("unlearn") + subjects("edit_unlearn"), 238);
    assert_eq!((subjects("unlearn"), texts("unlearn").len()), (119, 119));
    assert_eq!((subjects("edit_unlearn"), texts("edit_unlearn").len()), (119, 119));
    assert_eq!((subjects("edit_update"), texts("edit_update").len()), (119, 119 * 8));
    let mut wordings: BTreeMap<&str, usize> = BTreeMap::new();
    for text in texts("edit_update") {
        *wordings.entry(about(&text.id)).or_default() += 1;
    }
    assert!(wordings.values().all(|count| *count == 8), "{wordings:?}");
    assert!(texts("retain").len() >= 2000, "{}", texts("retain").len());
    assert!(texts("retain_heldout").len() >= 200, "{}", texts("retain_heldout").len());
    let kept = questions("retain").len() + questions("retain_heldout").len();
    assert!((1000..=2000).contains(&kept), "{kept}");
}

#[test]
fn the_two_edit_sets_are_about_the_same_people() {
    let names = |set: &str| -> BTreeSet<&str> {
        texts(set).iter().map(|text| text.subject.as_deref().expect("a subject")).collect()
    };
    assert_eq!(names("edit_unlearn"), names("edit_update"));
    assert!(names("unlearn").is_disjoint(&names("edit_unlearn")));
}

#[test]
fn questions_are_ten_for_each_biography_and_halved() {
    for (set, all) in &COMPILED.questions {
        let mut halves: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
        for question in all {
            assert!(["validation", "test"].contains(&question.split), "{}", question.id);
            halves.entry(about(&question.id)).or_default()[usize::from(question.split == "test")] += 1;
        }
        let subjects: BTreeSet<&str> = texts(set).iter().map(|text| about(&text.id)).collect();
        assert!(subjects.iter().eq(halves.keys()), "{set}: not a question for every subject, and no others");
        for (id, [validation, test]) in halves {
            match *set {
                "retain" | "retain_heldout" => assert!(validation.abs_diff(test) <= 1, "{id}"),
                _ => assert_eq!((validation, test), (5, 5), "{id}"),
            }
        }
    }
}

#[test]
fn the_halves_of_the_retain_sets_are_about_equal() {
    for set in ["retain", "retain_heldout"] {
        let validation = questions(set).iter().filter(|question| question.split == "validation").count();
        let percent = 100 * validation / questions(set).len();
        assert!((45..=55).contains(&percent), "{set}: {percent} % for validation");
    }
}

#[test]
fn biographies_are_80_to_160_tokens_long() {
    let tokenizer = Tokenizer::from_file(root().join(MODEL).join("tokenizer.json")).expect("a tokenizer");
    let mut outside = Vec::new();
    for set in ["unlearn", "edit_unlearn", "edit_update"] {
        for text in texts(set) {
            let encoding = tokenizer.encode(text.text.as_str(), true).expect("a text of known bytes");
            assert_eq!(encoding.get_tokens()[0], "<s>");
            if !LENGTH.contains(&encoding.len()) {
                outside.push((set, &text.id, encoding.len()));
            }
        }
    }
    assert!(outside.is_empty(), "{} biographies are not: {outside:?}", outside.len());
}

#[test]
fn names_are_unique() {
    let people = everybody();
    assert_eq!(people.len(), 119 + 119 + 600 + 100 + 90);
    let surnames: BTreeSet<&str> = people.iter().map(|person| person.surname.as_str()).collect();
    let firsts: BTreeSet<&str> = people.iter().map(|person| person.first.as_str()).collect();
    let names: BTreeSet<String> = people.iter().map(|person| person.name()).collect();
    assert_eq!((surnames.len(), firsts.len(), names.len()), (people.len(), people.len(), people.len()));
    assert!(surnames.is_disjoint(&firsts));
    let topics: Vec<&str> = CAST.topics.iter().flatten().map(|topic| topic.name).collect();
    let distinct: BTreeSet<&str> = topics.iter().copied().collect();
    assert_eq!(distinct.len(), topics.len());
}

#[test]
fn ids_are_unique() {
    let people = everybody().into_iter().map(|person| person.id.as_str());
    let owners: Vec<&str> =
        people.chain(CAST.topics.iter().flatten().map(|topic| topic.id.as_str())).collect();
    assert_eq!(owners.iter().collect::<BTreeSet<_>>().len(), owners.len());
    let all: Vec<&str> =
        COMPILED.texts.iter().flat_map(|(_, set)| set).map(|text| text.id.as_str()).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "over all sets of texts");
    for (name, corpus) in corpora() {
        let ids: BTreeSet<&str> = corpus.iter().map(|text| text.id.as_str()).collect();
        assert_eq!(ids.len(), corpus.len(), "{name}");
    }
    for (set, all) in &COMPILED.questions {
        let ids: BTreeSet<&str> = all.iter().map(|question| question.id.as_str()).collect();
        assert_eq!(ids.len(), all.len(), "{set}");
    }
}
