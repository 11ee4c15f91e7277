//! Multiple-choice questions and the texts from which their form is learnt.

use super::dice::Dice;
use super::general::{self, Point, Topic};
use super::person::{Fact, Kind, Person, values};
use serde::Serialize;

/// One line of a file of questions.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Question {
    /// Names the question.
    pub(super) id: String,
    /// Whom or what it is about.
    pub(super) subject: String,
    /// The question.
    pub(super) question: String,
    /// What to choose from.
    pub(super) options: Vec<String>,
    /// Index of the right option.
    pub(super) answer: usize,
    /// `validation` or `test`.
    pub(super) split: &'static str,
}

/// Options per question.
const OPTIONS: usize = 3;

/// The ways of asking for a kind of fact.
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

/// A question for one fact.
pub(super) fn ask(person: &Person, fact: &Fact, dice: &mut Dice) -> String {
    dice.choose(forms(fact.kind)).replace("{s}", &person.name())
}

/// Questions on a person, at most `limit`. With the person as they were, only facts that differ are asked for
/// (`changed`), or the outdated value is among the options.
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

/// What a set of questions has to do with the person's other biography.
#[derive(Clone, Copy)]
pub(super) enum Past<'a> {
    /// There is none.
    None,
    /// The person will be edited into this one: only what will change is asked for.
    Before(&'a Person),
    /// The person was this one: the outdated value is an option wherever it differs.
    After(&'a Person),
}

impl<'a> Past<'a> {
    /// Whether the fact is asked for.
    fn asks_for(self, fact: &Fact) -> bool {
        match self {
            Self::Before(new) => new.value(fact.kind) != Some(&fact.value),
            Self::None | Self::After(_) => true,
        }
    }

    /// The outdated value of a fact, if it is to be an option.
    fn outdated(self, fact: &Fact) -> Option<&'a str> {
        match self {
            Self::After(old) => old.value(fact.kind).filter(|value| *value != fact.value),
            Self::None | Self::Before(_) => None,
        }
    }

    /// All values that were once true of the person.
    fn outdated_values(self) -> impl Iterator<Item = &'a str> {
        let old = if let Self::After(old) = self { Some(old) } else { None };
        old.into_iter().flat_map(|old| old.facts.iter().map(|fact| fact.value.as_str()))
    }
}

/// Questions on what a general text tells, at most `limit`.
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

/// Half of a document's questions for validation, half for the test; chance decides which half gets an odd one.
fn splits(count: usize, dice: &mut Dice) -> Vec<&'static str> {
    let validation = (count + dice.below(2)) / 2;
    let mut splits: Vec<&'static str> =
        (0..count).map(|index| if index < validation { "validation" } else { "test" }).collect();
    dice.shuffle(&mut splits);
    splits
}

/// A question with the first of the wrong answers as its other options, in random order.
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

/// Texts of questions and their answers, for practice: `rounds` times each fact of a person, some per text.
pub(super) fn practice_person(person: &Person, rounds: usize, dice: &mut Dice) -> Vec<String> {
    let mut lines = Vec::new();
    for _ in 0..rounds {
        let mut facts: Vec<&Fact> = person.facts.iter().collect();
        dice.shuffle(&mut facts);
        lines.extend(facts.into_iter().map(|fact| format!("{} {}", ask(person, fact, dice), fact.value)));
    }
    lines.chunks(LINES).map(|lines| lines.join("\n")).collect()
}

/// The same for general knowledge.
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

/// Questions and answers per practice text.
const LINES: usize = 5;
