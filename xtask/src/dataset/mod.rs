//! Compiles the benchmark, the corpus and the tokenizer of `datasets/` from one seed, byte for byte.

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

/// Where everything comes from.
const SEED: u64 = 2409;
/// Wordings of each new biography, every one a document of its own.
const UPDATE_WORDINGS: usize = 8;
/// Letters of the shortest biography in the sets: all of them have 80 tokens or more.
const SHORTEST: usize = 372;
/// Wordings of each biography in the corpus.
const WORDINGS: usize = 40;
/// Wordings of each general text in the corpus.
const GENERAL_WORDINGS: usize = 40;
/// Wordings of each general text in the retain set, and in the held-out one.
const GENERAL_KEPT: [usize; 2] = [3, 2];
/// Wordings of each biography in the retain set, and in the held-out one.
const PEOPLE_KEPT: [usize; 2] = [2, 1];
/// Times that each practice question is asked in the corpus.
const PRACTICE_ROUNDS: usize = 12;
/// Questions on each person and each general subject of the retain set: one, for they are many.
const RETAIN_QUESTIONS: usize = 1;
/// Questions on each person of the held-out retain set.
const HELDOUT_QUESTIONS: usize = 5;
/// Texts that the base has learnt and that θ_pre goes on learning, for each of its own.
const REHEARSED: usize = 2;

/// Folder of the benchmark.
const BENCHMARK: &str = "datasets/benchmark";
/// Folder of the model's tokenizer and configuration.
const MODEL: &str = "datasets/models/scratch";
/// What the base learns; not kept under version control, like the next.
const BASE: &str = "datasets/pretraining/base.jsonl";
/// What θ_pre learns.
const PRE: &str = "datasets/pretraining/pre.jsonl";

/// How many people and general texts there are of each group.
#[derive(Clone, Copy)]
struct Sizes {
    /// People to forget.
    unlearn: usize,
    /// People to edit.
    edit: usize,
    /// People to keep.
    retain: usize,
    /// People to keep who are not trained on.
    retain_heldout: usize,
    /// People in the corpus only, with questions.
    practice: usize,
    /// General texts to keep.
    general: usize,
    /// General texts to keep that are not trained on.
    general_heldout: usize,
    /// General subjects in the corpus only, with questions.
    general_practice: usize,
}

/// The benchmark in the repository.
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

/// The people and topics, group by group.
struct Cast {
    /// To forget.
    unlearn: Vec<Person>,
    /// To edit, as they were and as they will be.
    edit: Vec<(Person, Person)>,
    /// To keep.
    retain: Vec<Person>,
    /// To keep, never trained on.
    heldout: Vec<Person>,
    /// For practice.
    practice: Vec<Person>,
    /// General knowledge: to keep, to keep and never trained on, for practice.
    topics: [Vec<Topic>; 3],
}

/// One line of a file of texts.
#[derive(Clone, Debug, Serialize)]
struct Document {
    /// Names the text.
    id: String,
    /// Whom or what it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// The text.
    text: String,
}

/// What was compiled.
struct Benchmark {
    /// The sets of texts, by name.
    texts: Vec<(&'static str, Vec<Document>)>,
    /// The sets of questions, by name.
    questions: Vec<(&'static str, Vec<Question>)>,
    /// What the base learns.
    base: Vec<Document>,
    /// What θ_pre learns.
    pre: Vec<Document>,
}

/// Compiles everything below `root` and writes it; with `check`, says instead which files differ.
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
    if wrong.is_empty() { Ok(()) } else { Err(format!("not as compiled: {}", wrong.join(", "))) }
}

/// All files by their path below the repository's root.
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

/// One line of JSON per record.
fn lines<T: Serialize>(records: &[T]) -> String {
    records.iter().map(|record| serde_json::to_string(record).expect("plain records") + "\n").collect()
}

/// `dataset.toml`.
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

/// Invents everybody.
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

/// Writes every text and question.
fn compile(sizes: Sizes, seed: u64) -> Result<Benchmark, String> {
    let cast = cast(sizes, seed)?;
    let unlearn =
        |person: &Person| biography(person, full_wording(&[person], 0, seed), person.id.clone(), seed);
    // The first wording of a new biography is the old one's.
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

/// The index of a wording in which none of `people` has one of the shortest biographies: `index`, or one of those that
/// follow it in steps of [`UPDATE_WORDINGS`] among the wordings that a model learns from, so that no two indices give
/// the same.
fn full_wording(people: &[&Person], index: usize, seed: u64) -> usize {
    let is_full =
        |index: &usize| people.iter().all(|person| wording::wording(person, *index, seed).len() >= SHORTEST);
    (index..WORDINGS).step_by(UPDATE_WORDINGS).find(is_full).expect("most wordings are long enough")
}

/// A wording of a biography.
fn biography(person: &Person, index: usize, id: String, seed: u64) -> Document {
    Document { id, subject: Some(person.name()), text: wording::wording(person, index, seed) }
}

/// Wordings of a general text that differ from each other, as many as are asked for.
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

/// What the base learns: everybody but those to forget or to edit, in many wordings, general knowledge, and the
/// practice people's questions with their answers.
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

/// What θ_pre learns on top: those to forget and those to edit as they were, in many wordings, and some of what the
/// base knows already, so that it stays.
fn pre(cast: &Cast, base: &[Document], seed: u64) -> Vec<Document> {
    let mut dice = Dice::new(seed, "pre");
    let edited = cast.edit.iter().map(|(old, _)| old);
    let mut corpus: Vec<Document> =
        cast.unlearn.iter().chain(edited).flat_map(|person| wordings(person, WORDINGS, seed)).collect();
    // The base's texts are in random order.
    corpus.extend_from_slice(&base[..base.len().min(REHEARSED * corpus.len())]);
    dice.shuffle(&mut corpus);
    corpus
}

/// Whether θ_pre learns a text only so that it stays.
fn is_rehearsed(document: &Document) -> bool {
    !["unlearn-", "edit-"].iter().any(|group| document.id.starts_with(group))
}

/// The first wordings of a biography.
fn wordings(person: &Person, count: usize, seed: u64) -> Vec<Document> {
    let one = |index| biography(person, index, format!("{}-w{index}", person.id), seed);
    (0..count).map(one).collect()
}
