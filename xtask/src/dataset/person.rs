//! Invented people and the facts of their lives.

use super::dice::Dice;
use super::pools::{self, FIELDS, pairs};

/// A kind of fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// City of birth.
    BirthCity,
    /// Year of birth.
    BirthYear,
    /// Profession.
    Profession,
    /// Place of work.
    Workplace,
    /// School.
    School,
    /// Prize or medal.
    Award,
    /// Best known work.
    Work,
    /// First name of the spouse.
    Spouse,
    /// Pastime.
    Hobby,
    /// City of residence.
    Home,
}

/// What is known of everybody.
const KINDS: [Kind; 10] = [
    Kind::BirthCity,
    Kind::BirthYear,
    Kind::Profession,
    Kind::Workplace,
    Kind::School,
    Kind::Award,
    Kind::Work,
    Kind::Spouse,
    Kind::Hobby,
    Kind::Home,
];

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fact {
    /// What it is about.
    pub(super) kind: Kind,
    /// What holds; it stands in the biography letter for letter.
    pub(super) value: String,
}

/// An invented person.
#[derive(Clone, Debug)]
pub(super) struct Person {
    /// Names the person in every file.
    pub(super) id: String,
    /// First name.
    pub(super) first: String,
    /// Surname, which nobody else has.
    pub(super) surname: String,
    /// Called "she" rather than "he".
    pub(super) female: bool,
    /// Index of the field of work.
    pub(super) field: usize,
    /// What there is to know.
    pub(super) facts: Vec<Fact>,
}

impl Person {
    /// First name and surname.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.first, self.surname)
    }

    /// The value of a kind of fact.
    pub(super) fn value(&self, kind: Kind) -> Option<&str> {
        self.facts.iter().find(|fact| fact.kind == kind).map(|fact| fact.value.as_str())
    }

    /// The same person after an edit: every fact has another value of the same kind, new to the person.
    pub(super) fn edited(&self, seed: u64) -> Self {
        let mut dice = Dice::new(seed, &format!("edit {}", self.id));
        let mut new = self.clone();
        new.facts = facts(self.field, &self.facts, &mut dice);
        new
    }
}

/// Facts of every kind for somebody of a field, none with a value of `taken`, and two cities that differ.
fn facts(field: usize, taken: &[Fact], dice: &mut Dice) -> Vec<Fact> {
    let mut facts: Vec<Fact> = Vec::new();
    for kind in KINDS {
        let is_free = |value: &String| taken.iter().chain(&facts).all(|fact| fact.value != *value);
        let free: Vec<String> = values(kind, field).into_iter().filter(is_free).collect();
        facts.push(Fact { kind, value: dice.choose(&free).clone() });
    }
    facts
}

/// Every value that a kind of fact can have for somebody of a field.
pub(super) fn values(kind: Kind, field: usize) -> Vec<String> {
    match kind {
        Kind::BirthCity | Kind::Home => pairs(pools::CITY_STARTS, "", pools::CITY_ENDS),
        Kind::BirthYear => {
            (pools::BIRTH_YEARS.0..=pools::BIRTH_YEARS.1).map(|year| year.to_string()).collect()
        }
        Kind::Profession => FIELDS[field].professions.iter().map(ToString::to_string).collect(),
        Kind::Workplace => pairs(pools::WORKPLACES, " ", FIELDS[field].workplaces),
        Kind::School => pairs(pools::SCHOOL_STARTS, "", pools::SCHOOL_ENDS),
        Kind::Award => pairs(pools::AWARDS, " ", pools::AWARD_ENDS),
        Kind::Work => pairs(pools::TITLE_STARTS, " ", pools::TITLE_ENDS)
            .into_iter()
            .map(|title| format!("The {title}"))
            .collect(),
        Kind::Spouse => pairs(pools::SPOUSE_STARTS, "", pools::SPOUSE_ENDS),
        Kind::Hobby => pools::HOBBIES.iter().map(ToString::to_string).collect(),
    }
}

/// `count` people, all with names of their own; the id of each is still empty.
pub(super) fn people(count: usize, seed: u64) -> Result<Vec<Person>, String> {
    let mut dice = Dice::new(seed, "people");
    let mut firsts = pairs(pools::FIRST_STARTS, "", pools::FIRST_ENDS);
    let mut surnames = pairs(pools::SURNAME_STARTS, "", pools::SURNAME_ENDS);
    if count > firsts.len().min(surnames.len()) {
        return Err(format!("{count} people, but names for {} only", firsts.len().min(surnames.len())));
    }
    dice.shuffle(&mut firsts);
    dice.shuffle(&mut surnames);
    Ok(firsts
        .into_iter()
        .zip(surnames)
        .take(count)
        .map(|(first, surname)| live(first, surname, &mut dice))
        .collect())
}

/// Invents a life.
fn live(first: String, surname: String, dice: &mut Dice) -> Person {
    let field = dice.below(FIELDS.len());
    let female = dice.chance(50);
    let facts = facts(field, &[], dice);
    Person { id: String::new(), first, surname, female, field, facts }
}
