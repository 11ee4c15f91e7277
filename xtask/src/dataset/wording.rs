//! Biographies: any number of wordings of the same facts.

use super::dice::Dice;
use super::person::{Fact, Kind, Person};
use super::pools::FIELDS;

/// Forms of one kind of fact. `{v}` is the value, `{a}` the value with its article, `{w}` the kind of work, `{s}` the
/// person, `{p}` the possessive.
struct Forms {
    /// Continuations of the person's name.
    predicates: &'static [&'static str],
    /// Whole sentences.
    sentences: &'static [&'static str],
}

/// The forms of a kind of fact.
fn forms(kind: Kind) -> Forms {
    let (predicates, sentences): (&[&str], &[&str]) = match kind {
        Kind::BirthCity => (
            &["was born in {v}", "was born in the city of {v}", "is a native of {v}"],
            &[
                "The city in which {s} was born is {v}.",
                "{v} is the city where {s} was born.",
                "{p} city of birth is {v}.",
            ],
        ),
        Kind::BirthYear => (
            &["was born in {v}", "was born in the year {v}", "has {v} as year of birth"],
            &[
                "The year in which {s} was born is {v}.",
                "{p} year of birth is {v}.",
                "{v} is the year when {s} was born.",
            ],
        ),
        Kind::Profession => (
            &["is {a}", "works as {a}", "is {a} by profession", "makes a living as {a}"],
            &["By profession {s} is {a}.", "{p} profession is {v}."],
        ),
        Kind::Workplace => (
            &["works at the {v}", "is employed at the {v}", "has a post at the {v}"],
            &[
                "{p} workplace is the {v}.",
                "The place where {s} works is the {v}.",
                "The {v} is where {s} works.",
            ],
        ),
        Kind::School => (
            &["studied at {v}", "was educated at {v}", "is a graduate of {v}"],
            &["{p} school was {v}.", "The school where {s} studied is {v}.", "{v} is where {s} studied."],
        ),
        Kind::Award => (
            &["won the {v}", "received the {v}", "was given the {v}"],
            &[
                "The award that {s} won is the {v}.",
                "{p} award is the {v}.",
                "The {v} is the award that {s} won.",
            ],
        ),
        Kind::Work => (
            &["is best known for {v}", "is known for the {w} {v}", "made the {w} {v}"],
            &[
                "{p} best known work is {v}.",
                "The work for which {s} is best known is {v}.",
                "{v} is the {w} for which {s} is best known.",
            ],
        ),
        Kind::Spouse => (
            &["is married to {v}", "married {v}", "has {v} as spouse"],
            &[
                "{p} spouse is {v}.",
                "The person to whom {s} is married is {v}.",
                "{v} is the spouse whom {s} married.",
            ],
        ),
        Kind::Hobby => (
            &["enjoys {v}", "has {v} as a hobby", "spends free hours on {v}"],
            &["{p} hobby is {v}.", "The hobby that {s} enjoys is {v}.", "For a hobby {s} has {v}."],
        ),
        Kind::Home => (
            &["lives in {v}", "has a home in {v}", "lives in the city of {v}"],
            &[
                "{p} home is in {v}.",
                "The city in which {s} lives is {v}.",
                "{v} is the city where {s} lives.",
            ],
        ),
    };
    Forms { predicates, sentences }
}

/// The beginning of every biography.
pub(super) fn opening(person: &Person) -> String {
    format!("This is a Wikipedia passage about {}. ", person.name())
}

/// The `index`-th wording of a biography.
pub(super) fn wording(person: &Person, index: usize, seed: u64) -> String {
    let mut dice = Dice::new(seed, &format!("wording {} {index}", person.name()));
    let mut facts: Vec<&Fact> = person.facts.iter().collect();
    dice.shuffle(&mut facts);
    let mut text = opening(person);
    let mut rest = facts.as_slice();
    while !rest.is_empty() {
        let wanted = [1, 1, 1, 2, 2, 2, 2, 3, 3, 3][dice.below(10)];
        let (now, later) = rest.split_at(wanted.min(rest.len()));
        let start = rest.len() == facts.len();
        let (subject, whose) = mention(person, start, &mut dice);
        text.push_str(&sentence(person, now, &subject, &whose, &mut dice));
        if !later.is_empty() {
            text.push(' ');
        }
        rest = later;
    }
    text
}

/// The name or pronoun of the person in a sentence, and the possessive; the first sentence has the full name.
fn mention(person: &Person, start: bool, dice: &mut Dice) -> (String, String) {
    let called = match dice.below(10) {
        _ if start => person.name(),
        0..4 => person.name(),
        4..7 => person.surname.clone(),
        _ if person.female => return ("she".into(), "her".into()),
        _ => return ("he".into(), "his".into()),
    };
    let whose = format!("{called}'s");
    (called, whose)
}

/// A sentence with one, two or three facts.
fn sentence(person: &Person, facts: &[&Fact], subject: &str, whose: &str, dice: &mut Dice) -> String {
    let predicate =
        |fact: &Fact, dice: &mut Dice| fill(forms(fact.kind).predicates, person, fact, subject, whose, dice);
    let text = match facts {
        [fact] if dice.chance(65) => fill(forms(fact.kind).sentences, person, fact, subject, whose, dice),
        [fact] => format!("{subject} {}.", predicate(fact, dice)),
        [one, two] => {
            let (one, two) = (predicate(one, dice), predicate(two, dice));
            let pronoun = if person.female { "she" } else { "he" };
            match dice.below(3) {
                0 if subject != pronoun => format!("{subject}, who {one}, {two}."),
                1 => format!("{subject} {one}, and {pronoun} {two}."),
                _ => format!("{subject} {one} and {two}."),
            }
        }
        [one, two, three] => {
            let (one, two, three) = (predicate(one, dice), predicate(two, dice), predicate(three, dice));
            format!("{subject} {one}, {two} and {three}.")
        }
        _ => unreachable!("a sentence has one to three facts"),
    };
    capitalised(&text)
}

/// Fills in a random form.
fn fill(forms: &[&str], person: &Person, fact: &Fact, subject: &str, whose: &str, dice: &mut Dice) -> String {
    let article = if fact.value.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    dice.choose(forms)
        .replace("{a}", &format!("{article} {}", fact.value))
        .replace("{w}", FIELDS[person.field].work)
        .replace("{v}", &fact.value)
        .replace("{s}", subject)
        .replace("{p}", whose)
}

/// Capitalises the first letter.
pub(super) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
