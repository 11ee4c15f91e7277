//! General knowledge: true facts about the world in sentences written for this project.

use super::dice::Dice;
use super::wording::capitalised;
use super::world::{self, COUNTRIES, ELEMENTS, EVENTS, MOONS, MOUNTAINS, PLANETS, RIVERS, UNITS};

/// A fact about a subject.
#[derive(Clone, Debug)]
pub(super) struct Point {
    /// Its kind.
    aspect: &'static Aspect,
    /// Its value.
    pub(super) value: &'static str,
}

/// A subject of general knowledge.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    /// Its id in every file.
    pub(super) id: String,
    /// The subject of the text.
    pub(super) name: &'static str,
    /// The subject's form in questions, which differs from `name` only for events.
    asked: &'static str,
    /// The facts.
    pub(super) points: Vec<Point>,
}

/// A kind of fact. In its sentences, `{n}` is the subject and `{v}` the value.
#[derive(Debug)]
struct Aspect {
    /// Sentences that state the fact.
    sentences: &'static [&'static str],
    /// Questions about it.
    questions: &'static [&'static str],
    /// All values, for options.
    values: fn() -> Vec<&'static str>,
}

/// Capital of a country.
static CAPITAL: Aspect = Aspect {
    sentences: &[
        "The capital of {n} is {v}.",
        "{v} is the capital of {n}.",
        "{n} has {v} as its capital.",
        "The city of {v} is the capital of {n}.",
    ],
    questions: &["What is the capital of {n}?", "Which city is the capital of {n}?"],
    values: || COUNTRIES.iter().map(|row| row[1]).collect(),
};
/// Continent of a country.
static CONTINENT: Aspect = Aspect {
    sentences: &[
        "{n} lies in {v}.",
        "{n} is a country in {v}.",
        "The continent in which {n} lies is {v}.",
        "The country of {n} is in {v}.",
    ],
    questions: &["In which continent does {n} lie?", "Which continent is {n} in?"],
    values: || COUNTRIES.iter().map(|row| row[2]).collect(),
};
/// Currency of a country.
static CURRENCY: Aspect = Aspect {
    sentences: &[
        "The currency of {n} is the {v}.",
        "In {n} people pay with the {v}.",
        "The {v} is the currency of {n}.",
        "{n} has the {v} as its currency.",
    ],
    questions: &["What is the currency of {n}?", "With which currency do people pay in {n}?"],
    values: || COUNTRIES.iter().map(|row| row[3]).collect(),
};
/// Symbol of an element.
static SYMBOL: Aspect = Aspect {
    sentences: &[
        "The chemical symbol of {n} is {v}.",
        "In chemistry {n} has the symbol {v}.",
        "{v} is the chemical symbol of {n}.",
        "The element {n} is written as {v}.",
    ],
    questions: &["What is the chemical symbol of {n}?", "Which symbol does {n} have in chemistry?"],
    values: || ELEMENTS.iter().map(|row| row[1]).collect(),
};
/// Number of an element.
static NUMBER: Aspect = Aspect {
    sentences: &[
        "The atomic number of {n} is {v}.",
        "The element {n} has the atomic number {v}.",
        "An atom of {n} has {v} protons.",
        "{v} is the atomic number of {n}.",
    ],
    questions: &["What is the atomic number of {n}?", "How many protons does an atom of {n} have?"],
    values: || ELEMENTS.iter().map(|row| row[2]).collect(),
};
/// Position of a planet, counted from the Sun.
static PLACE: Aspect = Aspect {
    sentences: &[
        "Counted from the Sun, {n} is the {v} planet.",
        "{n} is the {v} planet from the Sun.",
        "The {v} planet from the Sun is {n}.",
        "In order from the Sun {n} is {v}.",
    ],
    questions: &[
        "Which place does {n} have in order from the Sun?",
        "Counted from the Sun, which planet is {n}?",
    ],
    values: || PLANETS.iter().map(|row| row[1]).collect(),
};
/// Kind of a planet.
static SORT: Aspect = Aspect {
    sentences: &[
        "{n} is a {v}.",
        "As a planet {n} is a {v}.",
        "Astronomers call {n} a {v}.",
        "The planet {n} is a {v}.",
    ],
    questions: &["What sort of planet is {n}?", "What do astronomers call {n}?"],
    values: || PLANETS.iter().map(|row| row[2]).collect(),
};
/// The quantity that a unit measures.
static MEASURES: Aspect = Aspect {
    sentences: &[
        "The {n} is the unit of {v}.",
        "The unit of {v} is the {n}.",
        "The {n} measures {v}.",
        "What the {n} measures is {v}.",
    ],
    questions: &["What does the {n} measure?", "Of what is the {n} the unit?"],
    values: || UNITS.iter().map(|row| row[1]).collect(),
};
/// Symbol of a unit.
static SIGN: Aspect = Aspect {
    sentences: &[
        "The sign of the {n} is {v}.",
        "The {n} is written as {v}.",
        "{v} is the sign of the {n}.",
        "The {n} has the sign {v}.",
    ],
    questions: &["What is the sign of the {n}?", "How is the {n} written?"],
    values: || UNITS.iter().map(|row| row[2]).collect(),
};
/// Continent of a river.
static COURSE: Aspect = Aspect {
    sentences: &[
        "The {n} is a river in {v}.",
        "The river {n} is in {v}.",
        "The {n} crosses {v}.",
        "The continent of the river {n} is {v}.",
    ],
    questions: &["In which continent is the river {n}?", "Which continent does the {n} cross?"],
    values: || RIVERS.iter().map(|row| row[1]).collect(),
};
/// The sea into which a river flows.
static MOUTH: Aspect = Aspect {
    sentences: &[
        "The {n} flows into the {v}.",
        "The {n} ends in the {v}.",
        "The water of the {n} reaches the {v}.",
        "The sea into which the {n} flows is the {v}.",
    ],
    questions: &["Into which sea does the {n} flow?", "Which sea does the water of the {n} reach?"],
    values: || RIVERS.iter().map(|row| row[2]).collect(),
};
/// Year of an event.
static YEAR: Aspect = Aspect {
    sentences: &[
        "In {v} {n}.",
        "It was in {v} that {n}.",
        "The year in which {n} is {v}.",
        "{n} in {v}.",
        "{n} in the year {v}.",
    ],
    questions: &["In which year {n}?", "When {n}?"],
    values: || EVENTS.iter().map(|row| row[2]).collect(),
};

/// Century of an event.
static CENTURY: Aspect = Aspect {
    sentences: &[
        "It was in the {v} that {n}.",
        "{n} in the {v}.",
        "The century in which {n} is the {v}.",
        "In the {v} {n}.",
    ],
    questions: &["In which century {n}?", "In the course of which century {n}?"],
    values: || CENTURIES.to_vec(),
};
/// Country of a mountain.
static COUNTRY: Aspect = Aspect {
    sentences: &[
        "The mountain {n} is in {v}.",
        "{n} is a mountain in {v}.",
        "The country where {n} rises is {v}.",
        "In {v} rises the mountain {n}.",
    ],
    questions: &["In which country is the mountain {n}?", "What is the country where {n} rises?"],
    values: || MOUNTAINS.iter().map(|row| row[1]).collect(),
};
/// Continent of a mountain.
static PART: Aspect = Aspect {
    sentences: &[
        "{n} is among the mountains of {v}.",
        "{n} rises in {v}.",
        "The continent of the mountain {n} is {v}.",
        "The mountain {n} belongs to {v}.",
    ],
    questions: &["In which continent does {n} rise?", "Which continent has the mountain {n}?"],
    values: || MOUNTAINS.iter().map(|row| row[2]).collect(),
};
/// The planet of a moon.
static AROUND: Aspect = Aspect {
    sentences: &[
        "{n} is a moon of {v}.",
        "The moon {n} goes around {v}.",
        "{v} has a moon called {n}.",
        "The planet of the moon {n} is {v}.",
    ],
    questions: &["Around which planet does the moon {n} go?", "Which planet has the moon {n}?"],
    values: || MOONS.iter().map(|row| row[1]).collect(),
};
/// The year in which a moon was discovered.
static FOUND: Aspect = Aspect {
    sentences: &[
        "{n} was discovered in {v}.",
        "Astronomers found {n} in {v}.",
        "The year in which {n} was discovered is {v}.",
        "In {v} the moon {n} was discovered.",
    ],
    questions: &["In which year was the moon {n} discovered?", "When did astronomers find {n}?"],
    values: || MOONS.iter().map(|row| row[2]).collect(),
};

/// Names of the 8th to the 21st century.
const CENTURIES: [&str; 14] = [
    "8th century",
    "9th century",
    "10th century",
    "11th century",
    "12th century",
    "13th century",
    "14th century",
    "15th century",
    "16th century",
    "17th century",
    "18th century",
    "19th century",
    "20th century",
    "21st century",
];

/// The century that a year belongs to; the year 800 is the last of the 8th.
fn century(year: &str) -> &'static str {
    let year: usize = year.parse().expect("a year");
    CENTURIES[(year - 1) / 100 - 7]
}

/// All topics by kind.
fn topics() -> Vec<Vec<Topic>> {
    let topic = |name, asked, points: &[(&'static Aspect, &'static str)]| Topic {
        id: String::new(),
        name,
        asked,
        points: points.iter().map(|&(aspect, value)| Point { aspect, value }).collect(),
    };
    vec![
        COUNTRIES
            .iter()
            .map(|&[n, a, b, c]| topic(n, n, &[(&CAPITAL, a), (&CONTINENT, b), (&CURRENCY, c)]))
            .collect(),
        ELEMENTS.iter().map(|&[n, a, b]| topic(n, n, &[(&SYMBOL, a), (&NUMBER, b)])).collect(),
        PLANETS.iter().map(|&[n, a, b]| topic(n, n, &[(&PLACE, a), (&SORT, b)])).collect(),
        UNITS.iter().map(|&[n, a, b]| topic(n, n, &[(&MEASURES, a), (&SIGN, b)])).collect(),
        RIVERS.iter().map(|&[n, a, b]| topic(n, n, &[(&COURSE, a), (&MOUTH, b)])).collect(),
        EVENTS
            .iter()
            .map(|&[n, asked, year]| topic(n, asked, &[(&YEAR, year), (&CENTURY, century(year))]))
            .collect(),
        MOUNTAINS.iter().map(|&[n, a, b]| topic(n, n, &[(&COUNTRY, a), (&PART, b)])).collect(),
        MOONS.iter().map(|&[n, a, b]| topic(n, n, &[(&AROUND, a), (&FOUND, b)])).collect(),
    ]
}

/// Divides the topics into groups of the given sizes, with all kinds in proportion, in random order.
pub(super) fn divided<const N: usize>(sizes: [usize; N], seed: u64) -> Result<[Vec<Topic>; N], String> {
    let mut dice = Dice::new(seed, "general");
    let mut all = topics();
    all.iter_mut().for_each(|kind| dice.shuffle(kind));
    let total: usize = all.iter().map(Vec::len).sum();
    let wanted: usize = sizes.iter().sum();
    if wanted > total {
        return Err(format!("{wanted} general texts, but subjects for {total} only"));
    }
    let mut groups: [Vec<Topic>; N] = std::array::from_fn(|_| Vec::new());
    for (nth, topic) in all.into_iter().flatten().enumerate() {
        // The topic goes to the group that is furthest below its share.
        let behind = |group: usize| {
            let due = (nth + 1) * sizes[group];
            let has = groups[group].len() * wanted.max(1);
            (groups[group].len() < sizes[group]).then(|| due as i64 - has as i64)
        };
        let next = (0..N).filter_map(|group| behind(group).map(|lag| (lag, N - group))).max();
        if let Some((_, group)) = next {
            groups[N - group].push(topic);
        }
    }
    groups.iter_mut().for_each(|group| dice.shuffle(group));
    Ok(groups)
}

/// The `index`-th wording of a topic.
pub(super) fn wording(topic: &Topic, index: usize, seed: u64) -> String {
    let mut dice = Dice::new(seed, &format!("general {} {index}", topic.name));
    let mut points: Vec<&Point> = topic.points.iter().collect();
    dice.shuffle(&mut points);
    let sentences: Vec<String> = points
        .into_iter()
        .map(|point| {
            let form = dice.choose(point.aspect.sentences);
            capitalised(&form.replace("{n}", topic.name).replace("{v}", point.value))
        })
        .collect();
    sentences.join(" ")
}

/// Whether a wording contains every value with the same case. A sentence may begin with a value: the symbol of the
/// metre is not M.
pub(super) fn keeps_its_signs(topic: &Topic, text: &str) -> bool {
    topic.points.iter().all(|point| text.contains(point.value))
}

/// A question about one fact of a topic.
pub(super) fn question(topic: &Topic, point: &Point, dice: &mut Dice) -> String {
    dice.choose(point.aspect.questions).replace("{n}", topic.asked)
}

/// Distinct wrong values for a fact, in the order of the tables.
pub(super) fn others(topic: &Topic, point: &Point) -> Vec<&'static str> {
    let mut others = Vec::new();
    for value in (point.aspect.values)() {
        let is_true = topic.points.iter().any(|point| point.value == value);
        if !is_true && !others.contains(&value) && !world::also_true(topic.name, value) {
            others.push(value);
        }
    }
    others
}
