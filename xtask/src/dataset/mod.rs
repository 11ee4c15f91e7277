//! Generates the benchmark, the corpora and the tokenizer of `datasets/` from one seed, reproducibly to the byte.

mod dice;
mod general;
mod person;
mod pools;
mod questions;
#[cfg(test)]
mod tests;
mod tokenizer;
mod wording;
mod world;

use dice::Dice;
use general::Topic;
use person::Person;
use questions::{Past, Question};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The seed of everything.
const SEED: u64 = 2409;
/// Number of wordings of each new biography; each is a document.
const UPDATE_WORDINGS: usize = 8;
/// Minimum length in bytes of a biography in the sets, so that all of them have at least 80 tokens.
const SHORTEST: usize = 372;
/// Number of wordings of each biography in a corpus.
const WORDINGS: usize = 40;
/// Number of wordings of each general text in a corpus.
const GENERAL_WORDINGS: usize = 40;
/// Number of wordings of each general text in the retain set, and in the held-out set.
const GENERAL_KEPT: [usize; 2] = [3, 2];
/// Number of wordings of each biography in the retain set, and in the held-out set.
const PEOPLE_KEPT: [usize; 2] = [2, 1];
/// Number of times that each practice question occurs in the corpus.
const PRACTICE_ROUNDS: usize = 12;
/// Number of questions about each person and each general subject of the retain set.
const RETAIN_QUESTIONS: usize = 1;
/// Number of questions about each person of the held-out set.
const HELDOUT_QUESTIONS: usize = 5;
/// Number of the base's texts in the corpus of θ_pre for each new text.
const REHEARSED: usize = 2;

/// The benchmark's folder.
const BENCHMARK: &str = "datasets/benchmark";
/// The folder of the tokenizer and the configuration.
const MODEL: &str = "datasets/models/scratch";
/// The base's corpus; like the next one, not under version control.
const BASE: &str = "datasets/pretraining/base.jsonl";
/// The corpus of θ_pre.
const PRE: &str = "datasets/pretraining/pre.jsonl";

/// Number of people and general subjects in each group.
#[derive(Clone, Copy)]
struct Sizes {
    /// People to unlearn.
    unlearn: usize,
    /// People to edit.
    edit: usize,
    /// People to retain.
    retain: usize,
    /// Held-out people to retain.
    retain_heldout: usize,
    /// People that occur in the corpus only, with questions.
    practice: usize,
    /// General subjects to retain.
    general: usize,
    /// Held-out general subjects to retain.
    general_heldout: usize,
    /// General subjects that occur in the corpus only, with questions.
    general_practice: usize,
}

/// The sizes of the committed benchmark.
const SIZES: Sizes = Sizes {
    unlearn: 119,
    edit: 119,
    retain: 600,
    retain_heldout: 100,
    practice: 90,
    general: 280,
    general_heldout: 60,
    general_practice: 60,
};

/// People and topics by group.
struct Cast {
    /// To unlearn.
    unlearn: Vec<Person>,
    /// To edit, before and after the edit.
    edit: Vec<(Person, Person)>,
    /// To retain.
    retain: Vec<Person>,
    /// Held out.
    heldout: Vec<Person>,
    /// For practice.
    practice: Vec<Person>,
    /// General knowledge: to retain, held out, for practice.
    topics: [Vec<Topic>; 3],
}

/// A line of a text file.
#[derive(Clone, Debug, Serialize)]
struct Document {
    /// Its id.
    id: String,
    /// Its subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// The text.
    text: String,
}

/// The generated benchmark.
struct Benchmark {
    /// The sets of texts, by name.
    texts: Vec<(&'static str, Vec<Document>)>,
    /// The sets of questions, by name.
    questions: Vec<(&'static str, Vec<Question>)>,
    /// The base's corpus.
    base: Vec<Document>,
    /// The corpus of θ_pre.
    pre: Vec<Document>,
}

/// Generates all files and writes them below `root`; with `check`, fails with the names of those that differ instead.
pub(crate) fn run(root: &Path, check: bool) -> Result<(), String> {
    let files = files(SIZES, SEED)?;
    let mut wrong = Vec::new();
    for (name, content) in &files {
        let path = root.join(name);
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        if !check {
            fs::create_dir_all(path.parent().expect("a file in a folder")).map_err(failed)?;
            fs::write(&path, content).map_err(failed)?;
        } else if (![BASE, PRE].contains(&name.as_str()) || path.exists())
            && fs::read(&path).ok().as_deref() != Some(content.as_bytes())
        {
            wrong.push(name.as_str());
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("differs from the generated file: {}", wrong.join(", ")))
    }
}

/// All files by path relative to the repository.
fn files(sizes: Sizes, seed: u64) -> Result<BTreeMap<String, String>, String> {
    let benchmark = compile(sizes, seed)?;
    let mut files = BTreeMap::new();
    let mut sets = Vec::new();
    for (name, texts) in &benchmark.texts {
        sets.push((name.to_string(), texts.len(), lines(texts)));
    }
    for (name, questions) in &benchmark.questions {
        sets.push((format!("questions/{name}"), questions.len(), lines(questions)));
    }
    files.insert(format!("{BENCHMARK}/dataset.toml"), description(&sets, seed));
    for (name, _, content) in sets {
        files.insert(format!("{BENCHMARK}/{name}.jsonl"), content);
    }
    files.insert(BASE.into(), lines(&benchmark.base));
    files.insert(PRE.into(), lines(&benchmark.pre));
    let own = benchmark.pre.iter().filter(|document| !is_rehearsed(document));
    let texts = benchmark.base.iter().chain(own).map(|document| document.text.as_str());
    let tokenizer = tokenizer::train(texts).map_err(|error| format!("the tokenizer: {error}"))?;
    files.insert(format!("{MODEL}/tokenizer.json"), tokenizer);
    for (name, content) in tokenizer::configurations() {
        files.insert(format!("{MODEL}/{name}"), content);
    }
    Ok(files)
}

/// One line of JSON for each record.
fn lines<T: Serialize>(records: &[T]) -> String {
    records.iter().map(|record| serde_json::to_string(record).expect("plain records") + "\n").collect()
}

/// The content of `dataset.toml`.
fn description(sets: &[(String, usize, String)], seed: u64) -> String {
    let mut text = format!(
        "name = \"Invented lives\"\n\
         description = \"Biographies of invented people and general knowledge, for unlearning and editing\"\n\
         licence = \"MIT OR Apache-2.0\"\n\
         seed = {seed}\n\n[counts]\n"
    );
    for (name, count, _) in sets {
        writeln!(text, "\"{name}\" = {count}").expect("a string");
    }
    text.push_str("\n[sha256]\n");
    for (name, _, content) in sets {
        let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "\"{name}.jsonl\" = \"{digest}\"").expect("a string");
    }
    text
}

/// Invents all people and divides them and the topics into groups.
fn cast(sizes: Sizes, seed: u64) -> Result<Cast, String> {
    let Sizes { unlearn, edit, retain, retain_heldout, practice, .. } = sizes;
    let all = person::people(unlearn + edit + retain + retain_heldout + practice, seed)?;
    let mut all = all.into_iter();
    let mut group = |name: &str, count: usize| -> Vec<Person> {
        let named = |(index, person): (usize, Person)| Person { id: format!("{name}-{index:03}"), ..person };
        all.by_ref().take(count).enumerate().map(named).collect()
    };
    let mut topics = general::divided([sizes.general, sizes.general_heldout, sizes.general_practice], seed)?;
    for (name, topics) in ["retain-general", "heldout-general", "practice-general"].iter().zip(&mut topics) {
        for (index, topic) in topics.iter_mut().enumerate() {
            topic.id = format!("{name}-{index:03}");
        }
    }
    Ok(Cast {
        unlearn: group("unlearn", unlearn),
        edit: group("edit", edit).into_iter().map(|old| (old.clone(), old.edited(seed))).collect(),
        retain: group("retain", retain),
        heldout: group("heldout", retain_heldout),
        practice: group("practice", practice),
        topics,
    })
}

/// Generates all texts and questions.
fn compile(sizes: Sizes, seed: u64) -> Result<Benchmark, String> {
    let cast = cast(sizes, seed)?;
    let unlearn =
        |person: &Person| biography(person, full_wording(&[person], 0, seed), person.id.clone(), seed);
    // The first wording of a new biography has the form of the old one.
    let outdated = |(old, new): &(Person, Person)| {
        biography(old, full_wording(&[old, new], 0, seed), old.id.clone(), seed)
    };
    let update = |(old, new): &(Person, Person)| -> Vec<Document> {
        let wording = |index| match index {
            0 => full_wording(&[old, new], 0, seed),
            _ => full_wording(&[new], index, seed),
        };
        (0..UPDATE_WORDINGS)
            .map(|index| biography(new, wording(index), format!("{}-w{index}", new.id), seed))
            .collect()
    };
    let kept = |people: &[Person], topics: &[Topic], index: usize| -> Vec<Document> {
        let general = topics.iter().flat_map(|topic| general_texts(topic, GENERAL_KEPT[index], seed));
        let wordings = |person: &Person| wordings(person, PEOPLE_KEPT[index], seed);
        people.iter().flat_map(wordings).chain(general).collect()
    };
    let [retain, heldout, _] = &cast.topics;
    let texts = vec![
        ("unlearn", cast.unlearn.iter().map(unlearn).collect()),
        ("edit_unlearn", cast.edit.iter().map(outdated).collect()),
        ("edit_update", cast.edit.iter().flat_map(update).collect()),
        ("retain", kept(&cast.retain, retain, 0)),
        ("retain_heldout", kept(&cast.heldout, heldout, 1)),
    ];
    let questions = all_questions(&cast, seed);
    let base = base(&cast, seed);
    let pre = pre(&cast, &base, seed);
    Ok(Benchmark { texts, questions, base, pre })
}

/// The index of a wording with at least [`SHORTEST`] bytes for each of `people`: `index`, or one that follows it in
/// steps of [`UPDATE_WORDINGS`] among the corpus wordings. The steps keep results for different indices distinct.
fn full_wording(people: &[&Person], index: usize, seed: u64) -> usize {
    let is_full =
        |index: &usize| people.iter().all(|person| wording::wording(person, *index, seed).len() >= SHORTEST);
    (index..WORDINGS).step_by(UPDATE_WORDINGS).find(is_full).expect("most wordings are long enough")
}

/// A wording of a biography.
fn biography(person: &Person, index: usize, id: String, seed: u64) -> Document {
    Document { id, subject: Some(person.name()), text: wording::wording(person, index, seed) }
}

/// As many distinct wordings of a general text as requested.
fn general_texts(topic: &Topic, wordings: usize, seed: u64) -> Vec<Document> {
    let mut texts: Vec<Document> = Vec::new();
    let mut index = 0;
    while texts.len() < wordings {
        let id = format!("{}-w{}", topic.id, texts.len());
        let text = general_text(topic, index, id, seed);
        let is_new = texts.iter().all(|other| other.text != text.text);
        if is_new && general::keeps_its_signs(topic, &text.text) {
            texts.push(text);
        }
        index += 1;
    }
    texts
}

/// A wording of a general text.
fn general_text(topic: &Topic, index: usize, id: String, seed: u64) -> Document {
    Document { id, subject: Some(topic.name.into()), text: general::wording(topic, index, seed) }
}

/// The questions of every set.
fn all_questions(cast: &Cast, seed: u64) -> Vec<(&'static str, Vec<Question>)> {
    let dice = |set: &str| Dice::new(seed, &format!("questions {set}"));
    let everything = usize::MAX;
    let kept = |people: &[Person], topics: &[Topic], limits: [usize; 2], set: &str| -> Vec<Question> {
        let mut dice = dice(set);
        let mut questions = Vec::new();
        for person in people {
            questions.extend(questions::on_person(person, Past::None, limits[0], &mut dice));
        }
        for topic in topics {
            questions.extend(questions::on_topic(topic, limits[1], &mut dice));
        }
        questions
    };
    let [retain, heldout, _] = &cast.topics;
    let (mut unlearn, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new());
    let mut unlearn_dice = dice("unlearn");
    for person in &cast.unlearn {
        unlearn.extend(questions::on_person(person, Past::None, everything, &mut unlearn_dice));
    }
    let (mut before_dice, mut after_dice) = (dice("edit_unlearn"), dice("edit_update"));
    for (old, new) in &cast.edit {
        before.extend(questions::on_person(old, Past::Before(new), everything, &mut before_dice));
        after.extend(questions::on_person(new, Past::After(old), everything, &mut after_dice));
    }
    vec![
        ("unlearn", unlearn),
        ("edit_unlearn", before),
        ("edit_update", after),
        ("retain", kept(&cast.retain, retain, [RETAIN_QUESTIONS; 2], "retain")),
        ("retain_heldout", kept(&cast.heldout, heldout, [HELDOUT_QUESTIONS, everything], "retain_heldout")),
    ]
}

/// The base's corpus: all people except those to unlearn or to edit in many wordings, general knowledge, and practice
/// questions with answers.
fn base(cast: &Cast, seed: u64) -> Vec<Document> {
    let mut dice = Dice::new(seed, "base");
    let mut corpus = Vec::new();
    for person in cast.retain.iter().chain(&cast.heldout).chain(&cast.practice) {
        corpus.extend(wordings(person, WORDINGS, seed));
    }
    for topic in cast.topics.iter().flatten() {
        let one = |index| general_text(topic, index, format!("{}-w{index}", topic.id), seed);
        corpus.extend((0..GENERAL_WORDINGS).map(one));
    }
    let practised = |(id, text): (String, String)| Document { id, subject: None, text };
    for person in &cast.practice {
        let texts = questions::practice_person(person, PRACTICE_ROUNDS, &mut dice);
        let texts = texts.into_iter().enumerate();
        corpus.extend(texts.map(|(index, text)| (format!("{}-p{index}", person.id), text)).map(practised));
    }
    let texts = questions::practice_topics(&cast.topics[2], PRACTICE_ROUNDS, &mut dice);
    let texts = texts.into_iter().enumerate();
    corpus.extend(texts.map(|(index, text)| (format!("practice-general-p{index}"), text)).map(practised));
    dice.shuffle(&mut corpus);
    corpus
}

/// The corpus of θ_pre: the people to unlearn and to edit (before the edit) in many wordings, and some of the base's
/// texts, so that the knowledge remains.
fn pre(cast: &Cast, base: &[Document], seed: u64) -> Vec<Document> {
    let mut dice = Dice::new(seed, "pre");
    let edited = cast.edit.iter().map(|(old, _)| old);
    let mut corpus: Vec<Document> =
        cast.unlearn.iter().chain(edited).flat_map(|person| wordings(person, WORDINGS, seed)).collect();
    // The base's texts are shuffled already.
    corpus.extend_from_slice(&base[..base.len().min(REHEARSED * corpus.len())]);
    dice.shuffle(&mut corpus);
    corpus
}

/// Whether a text of the corpus of θ_pre is one of the base's.
fn is_rehearsed(document: &Document) -> bool {
    !["unlearn-", "edit-"].iter().any(|group| document.id.starts_with(group))
}

/// The first wordings of a biography.
fn wordings(person: &Person, count: usize, seed: u64) -> Vec<Document> {
    let one = |index| biography(person, index, format!("{}-w{index}", person.id), seed);
    (0..count).map(one).collect()
}
