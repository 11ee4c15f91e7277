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

/// Facts that everybody has.
const ALWAYS: [Kind; 5] = [Kind::BirthCity, Kind::BirthYear, Kind::Profession, Kind::Workplace, Kind::School];
/// Facts of which everybody lacks one.
const MOST: [Kind; 5] = [Kind::Award, Kind::Work, Kind::Spouse, Kind::Hobby, Kind::Home];

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

    /// The same person after an edit: all facts have another value of the same kind, but for one, which stays.
    pub(super) fn edited(&self, seed: u64) -> Self {
        let mut dice = Dice::new(seed, &format!("edit {}", self.id));
        let kept = dice.below(self.facts.len());
        let mut new = self.clone();
        for (_, fact) in new.facts.iter_mut().enumerate().filter(|(index, _)| *index != kept) {
            let taken: Vec<&str> = self.facts.iter().map(|old| old.value.as_str()).collect();
            let options: Vec<String> = values(fact.kind, self.field)
                .into_iter()
                .filter(|value| !taken.contains(&value.as_str()))
                .collect();
            fact.value.clone_from(dice.choose(&options));
        }
        separate_cities(&mut new, self, &mut dice, kept);
        new
    }
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
    let missing = *dice.choose(&MOST);
    let facts = ALWAYS
        .into_iter()
        .chain(MOST.into_iter().filter(|kind| *kind != missing))
        .map(|kind| Fact { kind, value: dice.choose(&values(kind, field)).clone() })
        .collect();
    let mut person = Person { id: String::new(), first, surname, female, field, facts };
    let old = person.clone();
    separate_cities(&mut person, &old, dice, usize::MAX);
    person
}

/// Moves whoever lives where they were born; neither the `kept` fact nor a city of `old` may come of it.
fn separate_cities(person: &mut Person, old: &Person, dice: &mut Dice, kept: usize) {
    while person.value(Kind::Home).is_some() && person.value(Kind::Home) == person.value(Kind::BirthCity) {
        let moved = (0..person.facts.len())
            .rev()
            .find(|index| *index != kept && matches!(person.facts[*index].kind, Kind::Home | Kind::BirthCity))
            .expect("two cities");
        let cities: Vec<String> = values(Kind::Home, person.field)
            .into_iter()
            .filter(|city| old.facts.iter().all(|fact| fact.value != *city))
            .collect();
        person.facts[moved].value.clone_from(dice.choose(&cities));
    }
}
