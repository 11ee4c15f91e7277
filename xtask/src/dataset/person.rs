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

/// The facts that everybody has.
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
    /// Its kind.
    pub(super) kind: Kind,
    /// Its value, as it occurs in the biography.
    pub(super) value: String,
}

/// An invented person.
#[derive(Clone, Debug)]
pub(super) struct Person {
    /// The person's id in every file.
    pub(super) id: String,
    /// First name.
    pub(super) first: String,
    /// Surname, which is unique.
    pub(super) surname: String,
    /// Whether the pronoun is "she" rather than "he".
    pub(super) female: bool,
    /// Index of the field of work.
    pub(super) field: usize,
    /// The facts.
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

    /// The person after an edit: every fact has a different value of the same kind.
    pub(super) fn edited(&self, seed: u64) -> Self {
        let mut dice = Dice::new(seed, &format!("edit {}", self.id));
        let mut new = self.clone();
        new.facts = facts(self.field, &self.facts, &mut dice);
        new
    }
}

/// Facts of every kind for a person in a field, with no value of `taken` and with two different cities.
fn facts(field: usize, taken: &[Fact], dice: &mut Dice) -> Vec<Fact> {
    let mut facts: Vec<Fact> = Vec::new();
    for kind in KINDS {
        let is_free = |value: &String| taken.iter().chain(&facts).all(|fact| fact.value != *value);
        let free: Vec<String> = values(kind, field).into_iter().filter(is_free).collect();
        facts.push(Fact { kind, value: dice.choose(&free).clone() });
    }
    facts
}

/// All values of a kind of fact for a person in a field.
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

/// `count` people with unique names; their ids are empty.
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
        .map(|(first, surname)| invent(first, surname, &mut dice))
        .collect())
}

/// Invents a person's facts.
fn invent(first: String, surname: String, dice: &mut Dice) -> Person {
    let field = dice.below(FIELDS.len());
    let female = dice.chance(50);
    let facts = facts(field, &[], dice);
    Person { id: String::new(), first, surname, female, field, facts }
}
