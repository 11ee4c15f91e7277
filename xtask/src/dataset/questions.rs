//! Multiple-choice questions, and practice texts that teach their form.

use super::dice::Dice;
use super::general::{self, Point, Topic};
use super::person::{Fact, Kind, Person, values};
use serde::Serialize;

/// A line of a question file.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Question {
    /// Its id.
    pub(super) id: String,
    /// Its subject.
    pub(super) subject: String,
    /// The question.
    pub(super) question: String,
    /// The options.
    pub(super) options: Vec<String>,
    /// Index of the right option.
    pub(super) answer: usize,
    /// `validation` or `test`.
    pub(super) split: &'static str,
}

/// Number of options of a question.
const OPTIONS: usize = 3;

/// Forms of a question about a kind of fact.
fn forms(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::BirthCity => &["In which city was {s} born?", "What is the city of birth of {s}?"],
        Kind::BirthYear => &["In which year was {s} born?", "What is the year of birth of {s}?"],
        Kind::Profession => &["What is the profession of {s}?", "What is {s} by profession?"],
        Kind::Workplace => &["What is the workplace of {s}?", "What is the place where {s} works?"],
        Kind::School => &["At which school did {s} study?", "What is the school where {s} studied?"],
        Kind::Award => &["Which award did {s} win?", "What is the award that {s} won?"],
        Kind::Work => &["What is the best known work of {s}?", "For which work is {s} best known?"],
        Kind::Spouse => &["Who is the spouse of {s}?", "To whom is {s} married?"],
        Kind::Hobby => &["What is the hobby of {s}?", "Which hobby does {s} enjoy?"],
        Kind::Home => &["In which city does {s} live?", "What is the city where {s} lives?"],
    }
}

/// A question about a fact.
pub(super) fn ask(person: &Person, fact: &Fact, dice: &mut Dice) -> String {
    dice.choose(forms(fact.kind)).replace("{s}", &person.name())
}

/// At most `limit` questions about a person. `past` restricts the facts and adds outdated values to the options.
pub(super) fn on_person(person: &Person, past: Past<'_>, limit: usize, dice: &mut Dice) -> Vec<Question> {
    let mut facts: Vec<&Fact> = person.facts.iter().filter(|fact| past.asks_for(fact)).collect();
    dice.shuffle(&mut facts);
    facts.truncate(limit);
    let splits = splits(facts.len(), dice);
    let mut questions = Vec::new();
    for (fact, split) in facts.into_iter().zip(splits) {
        let mut wrong = Vec::new();
        let outdated = past.outdated(fact);
        wrong.extend(outdated.map(str::to_owned));
        let mut others: Vec<String> = values(fact.kind, person.field)
            .into_iter()
            .filter(|value| person.facts.iter().all(|fact| fact.value != *value))
            .filter(|value| past.outdated_values().all(|old| old != value))
            .collect();
        dice.shuffle(&mut others);
        wrong.extend(others);
        let id = format!("{}-q{}", person.id, questions.len());
        let question = ask(person, fact, dice);
        questions.push(choice(id, person.name(), question, fact.value.clone(), wrong, split, dice));
    }
    questions
}

/// The relation of a set of questions to the person's other biography.
#[derive(Clone, Copy)]
pub(super) enum Past<'a> {
    /// There is no other biography.
    None,
    /// The person will be edited into this one: only facts that will change are asked about.
    Before(&'a Person),
    /// The person was this one before the edit: the outdated value of a changed fact is an option.
    After(&'a Person),
}

impl<'a> Past<'a> {
    /// Whether to ask about the fact.
    fn asks_for(self, fact: &Fact) -> bool {
        match self {
            Self::Before(new) => new.value(fact.kind) != Some(&fact.value),
            Self::None | Self::After(_) => true,
        }
    }

    /// The outdated value of a fact if it is to be an option.
    fn outdated(self, fact: &Fact) -> Option<&'a str> {
        match self {
            Self::After(old) => old.value(fact.kind).filter(|value| *value != fact.value),
            Self::None | Self::Before(_) => None,
        }
    }

    /// All former values of the person.
    fn outdated_values(self) -> impl Iterator<Item = &'a str> {
        let old = if let Self::After(old) = self { Some(old) } else { None };
        old.into_iter().flat_map(|old| old.facts.iter().map(|fact| fact.value.as_str()))
    }
}

/// At most `limit` questions about a general text.
pub(super) fn on_topic(topic: &Topic, limit: usize, dice: &mut Dice) -> Vec<Question> {
    let mut points: Vec<&Point> = topic.points.iter().collect();
    dice.shuffle(&mut points);
    points.truncate(limit);
    let splits = splits(points.len(), dice);
    let mut questions = Vec::new();
    for (point, split) in points.into_iter().zip(splits) {
        let mut wrong: Vec<String> = general::others(topic, point).into_iter().map(str::to_owned).collect();
        dice.shuffle(&mut wrong);
        let id = format!("{}-q{}", topic.id, questions.len());
        let question = general::question(topic, point, dice);
        questions.push(choice(id, topic.name.into(), question, point.value.into(), wrong, split, dice));
    }
    questions
}

/// Assigns half of a document's questions to validation and half to test; an odd one is assigned at random.
fn splits(count: usize, dice: &mut Dice) -> Vec<&'static str> {
    let validation = (count + dice.below(2)) / 2;
    let mut splits: Vec<&'static str> =
        (0..count).map(|index| if index < validation { "validation" } else { "test" }).collect();
    dice.shuffle(&mut splits);
    splits
}

/// A question whose other options are the first wrong answers, in random order.
fn choice(
    id: String,
    subject: String,
    question: String,
    right: String,
    wrong: Vec<String>,
    split: &'static str,
    dice: &mut Dice,
) -> Question {
    let mut options: Vec<String> = wrong.into_iter().take(OPTIONS - 1).collect();
    dice.shuffle(&mut options);
    let answer = dice.below(OPTIONS);
    options.insert(answer, right);
    Question { id, subject, question, options, answer, split }
}

/// Practice texts of questions with answers: each fact of a person `rounds` times, several in a text.
pub(super) fn practice_person(person: &Person, rounds: usize, dice: &mut Dice) -> Vec<String> {
    let mut lines = Vec::new();
    for _ in 0..rounds {
        let mut facts: Vec<&Fact> = person.facts.iter().collect();
        dice.shuffle(&mut facts);
        lines.extend(facts.into_iter().map(|fact| format!("{} {}", ask(person, fact, dice), fact.value)));
    }
    lines.chunks(LINES).map(|lines| lines.join("\n")).collect()
}

/// Practice texts of general knowledge.
pub(super) fn practice_topics(topics: &[Topic], rounds: usize, dice: &mut Dice) -> Vec<String> {
    let mut lines = Vec::new();
    for _ in 0..rounds {
        let mut round: Vec<String> = Vec::new();
        for topic in topics {
            for point in &topic.points {
                round.push(format!("{} {}", general::question(topic, point, dice), point.value));
            }
        }
        dice.shuffle(&mut round);
        lines.extend(round);
    }
    lines.chunks(LINES).map(|lines| lines.join("\n")).collect()
}

/// Number of questions with answers in a practice text.
const LINES: usize = 5;
