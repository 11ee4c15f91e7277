//! Tests of the benchmark's properties.

mod facts;
mod fair;
mod options;
mod sizes;
mod variety;

use super::person::{Kind, Person};
use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::LazyLock;

/// The committed benchmark.
static COMPILED: LazyLock<Benchmark> = LazyLock::new(|| compile(SIZES, SEED).expect("compiles"));

/// All people and topics in it.
static CAST: LazyLock<Cast> = LazyLock::new(|| cast(SIZES, SEED).expect("names for all"));

/// The texts of a set.
fn texts(set: &str) -> &'static [Document] {
    &COMPILED.texts.iter().find(|(name, _)| *name == set).expect("a set").1
}

/// The questions of a set.
fn questions(set: &str) -> &'static [Question] {
    &COMPILED.questions.iter().find(|(name, _)| *name == set).expect("a set").1
}

/// The two corpora with their names.
fn corpora() -> [(&'static str, &'static [Document]); 2] {
    [("base", &COMPILED.base), ("pre", &COMPILED.pre)]
}

/// The people of a set with the facts in its texts.
fn people_of(set: &str) -> Vec<&'static Person> {
    match set {
        "unlearn" => CAST.unlearn.iter().collect(),
        "edit_unlearn" => CAST.edit.iter().map(|(old, _)| old).collect(),
        "edit_update" => CAST.edit.iter().map(|(_, new)| new).collect(),
        "retain" => CAST.retain.iter().collect(),
        "retain_heldout" => CAST.heldout.iter().collect(),
        _ => panic!("no set is called {set}"),
    }
}

/// The general subjects of a set.
fn topics_of(set: &str) -> &'static [Topic] {
    match set {
        "retain" => &CAST.topics[0],
        "retain_heldout" => &CAST.topics[1],
        _ => &[],
    }
}

/// Every person once, the edited ones before the edit.
fn everybody() -> Vec<&'static Person> {
    let evaluated = ["unlearn", "edit_unlearn", "retain", "retain_heldout"].into_iter().flat_map(people_of);
    evaluated.chain(&CAST.practice).collect()
}

/// The id of the person or general subject that a text or question is about.
fn about(id: &str) -> &str {
    match id.rsplit_once('-') {
        Some((owner, last)) if last.starts_with(['w', 'q', 'p']) => owner,
        _ => id,
    }
}

/// Whether `text` contains `value` as whole words.
fn contains_words(text: &str, value: &str) -> bool {
    text.match_indices(value).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + value.len()..].chars().next();
        ![before, after].into_iter().flatten().any(char::is_alphanumeric)
    })
}

/// The folder of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder of the repository").into()
}

#[test]
fn the_seed_fixes_the_bytes() {
    let small = Sizes {
        unlearn: 2,
        edit: 2,
        retain: 2,
        retain_heldout: 2,
        practice: 4,
        general: 8,
        general_heldout: 4,
        general_practice: 4,
    };
    let first = files(small, 1).expect("compiles");
    assert_eq!(first, files(small, 1).expect("compiles"));
    let other = files(small, 2).expect("compiles");
    assert!(first.keys().eq(other.keys()));
    for (name, content) in &first {
        assert!(*content != other[name] || name.ends_with("config.json"), "{name} has nothing of the seed");
    }
}

#[test]
fn random_numbers_are_the_same_on_every_machine() {
    let mut dice = Dice::new(7, "test");
    let drawn: Vec<usize> = (0..8).map(|_| dice.below(1000)).collect();
    assert_eq!(drawn, DRAWN);
}

/// The first numbers of the stream with seed 7 and label "test".
const DRAWN: [usize; 8] = [38, 436, 339, 755, 55, 24, 635, 204];

#[test]
fn the_committed_files_equal_the_generated_ones() {
    super::run(&root(), true).unwrap();
}
