//! Samples the documents of each step: without replacement, epoch after epoch, in an order fixed by the seed. A
//! sampler's position can be saved and restored.

use std::collections::{BTreeMap, HashSet};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use super::Set;
use super::stream::{Left, Stream};

/// A random generator for one purpose; `stream` distinguishes purposes with the same seed.
pub(crate) fn seeded(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(stream);
    generator
}

/// Number of documents of each set in a step. A smaller set contributes all its documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DocumentsPerStep {
    /// Unlearn documents.
    pub unlearn: usize,
    /// edit_unlearn documents.
    pub edit_unlearn: usize,
    /// edit_update documents.
    pub edit_update: usize,
    /// Retain documents, including replay documents.
    pub retain: usize,
}

impl DocumentsPerStep {
    /// The same number for every set.
    pub fn all(count: usize) -> Self {
        Self { unlearn: count, edit_unlearn: count, edit_update: count, retain: count }
    }

    /// The number for one set; 0 for the held-out set.
    pub fn of(&self, set: Set) -> usize {
        match set {
            Set::Unlearn => self.unlearn,
            Set::EditUnlearn => self.edit_unlearn,
            Set::EditUpdate => self.edit_update,
            Set::Retain => self.retain,
            Set::RetainHeldout => 0,
        }
    }
}

/// A recipe has one number for all sets, or a table.
impl<'de> Deserialize<'de> for DocumentsPerStep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const PAPER: usize = 8;
        fn paper() -> usize {
            PAPER
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            #[serde(default = "paper")]
            unlearn: usize,
            #[serde(default = "paper")]
            edit_unlearn: usize,
            #[serde(default = "paper")]
            edit_update: usize,
            #[serde(default = "paper")]
            retain: usize,
        }
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = DocumentsPerStep;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a whole number, or a table such as { unlearn = 4, edit_update = 16 }")
            }
            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Self::Value, E> {
                Ok(DocumentsPerStep::all(count as usize))
            }
            fn visit_i64<E: de::Error>(self, count: i64) -> Result<Self::Value, E> {
                let count = usize::try_from(count)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(count), &self))?;
                Ok(DocumentsPerStep::all(count))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let Table { unlearn, edit_unlearn, edit_update, retain } = table;
                Ok(DocumentsPerStep { unlearn, edit_unlearn, edit_update, retain })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The documents of one step: for each set, indices into its documents.
pub type StepSample = BTreeMap<Set, Vec<usize>>;

/// Samples the documents of each step.
#[derive(Debug, Clone)]
pub struct Sampler {
    streams: BTreeMap<Set, (Stream, usize)>,
}

impl Sampler {
    /// A sampler over `sets`, given as the subjects of their documents, with `counts` documents of each in a step.
    pub fn new(
        sets: impl IntoIterator<Item = (Set, Vec<Option<String>>)>,
        counts: DocumentsPerStep,
        seed: u64,
    ) -> Self {
        let streams = sets
            .into_iter()
            .map(|(set, subjects)| (set, (Stream::new(subjects, seeded(seed, set as u64)), counts.of(set))));
        Self { streams: streams.collect() }
    }

    /// A sampler over one set of `documents` texts without subjects, for pretraining. They count as edit_update
    /// documents, whose loss descends.
    pub(crate) fn of_texts(documents: usize, count: usize, seed: u64) -> Self {
        const STREAM: u64 = 3 << 32;
        let stream = Stream::new(vec![None; documents], seeded(seed, STREAM));
        Self { streams: BTreeMap::from([(Set::EditUpdate, (stream, count))]) }
    }

    /// The current position.
    pub(crate) fn position(&self) -> Position {
        let position = |stream: &Stream| StreamPosition {
            words: stream.generator.get_word_pos() as u64,
            left: stream.left.indices().collect(),
        };
        let streams = self.streams.iter();
        Position(streams.map(|(set, (stream, _))| (set.name().to_owned(), position(stream))).collect())
    }

    /// Moves to a position from a sampler over the same sets with the same seed. Returns the problem if the position
    /// does not fit.
    pub(crate) fn go_to(&mut self, position: Position) -> Result<(), String> {
        let Position(mut positions) = position;
        let is_ours = |name: &String| self.streams.keys().any(|set| set.name() == name);
        if let Some(other) = positions.keys().find(|name| !is_ours(name)) {
            return Err(format!("has another set: {other}"));
        }
        for (set, (stream, _)) in &mut self.streams {
            let position =
                positions.remove(set.name()).ok_or_else(|| format!("has no entry for the set {set}"))?;
            let distinct: HashSet<&usize> = position.left.iter().collect();
            let beyond = position.left.iter().any(|&index| index >= stream.subjects.len());
            if beyond || distinct.len() < position.left.len() {
                return Err(format!("does not fit the {} documents of {set}", stream.subjects.len()));
            }
            stream.generator.set_word_pos(position.words.into());
            stream.left = Left::new(position.left, &stream.subjects);
        }
        Ok(())
    }

    /// Samples the documents of the next step. The edit set with fewer documents in a step is
    /// sampled first. The other then prefers the same subjects, in turn, among the documents left in its epoch. So
    /// the outdated and new texts of a subject occur in the same step, as in the paper's protocol: always if both
    /// sets have the same subjects and the same number of texts in an epoch for each, otherwise as far as sampling
    /// without replacement allows.
    pub fn draw(&mut self) -> StepSample {
        let mut draw = StepSample::new();
        let count = |set| self.streams.get(&set).map_or(0, |(_, count)| *count);
        let mut edits = [Set::EditUnlearn, Set::EditUpdate];
        edits.sort_by_key(|&set| count(set));
        let mut subjects = Vec::new();
        for set in edits.into_iter().chain([Set::Unlearn, Set::Retain]) {
            let Some((stream, count)) = self.streams.get_mut(&set) else { continue };
            let wanted: &[String] = if set == edits[1] { &subjects } else { &[] };
            let drawn = stream.draw(*count, wanted);
            if set == edits[0] {
                subjects = drawn.iter().filter_map(|&index| stream.subjects[index].clone()).collect();
            }
            draw.insert(set, drawn);
        }
        draw
    }
}

/// A sampler's position, by the name of each set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position(BTreeMap<String, StreamPosition>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StreamPosition {
    /// Position of the generator in words of 32 bits.
    words: u64,
    /// Documents left in the epoch.
    left: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Document;

    fn documents(count: usize, wordings: usize) -> Vec<Document> {
        let document = |i: usize| Document::of_text(i.to_string(), Some(format!("s{}", i / wordings)), "x");
        (0..count * wordings).map(document).collect()
    }

    fn of_documents<'a>(
        sets: impl IntoIterator<Item = (Set, &'a [Document])>,
        counts: DocumentsPerStep,
        seed: u64,
    ) -> Sampler {
        let subjects = |documents: &[Document]| documents.iter().map(|d| d.subject.clone()).collect();
        Sampler::new(sets.into_iter().map(|(set, documents)| (set, subjects(documents))), counts, seed)
    }

    #[test]
    fn an_epoch_draws_every_document_once() {
        let documents = documents(7, 1);
        let counts = DocumentsPerStep::all(3);
        let mut sampler = of_documents([(Set::Retain, documents.as_slice())], counts, 1);
        let drawn: Vec<usize> = (0..7).flat_map(|_| sampler.draw()[&Set::Retain].clone()).collect();
        for epoch in drawn.chunks(7) {
            let mut epoch = epoch.to_vec();
            epoch.sort_unstable();
            assert_eq!(epoch, [0, 1, 2, 3, 4, 5, 6]);
        }
    }

    #[test]
    fn documents_without_a_subject_are_spread_evenly_over_an_epoch() {
        let mut subjects: Vec<Option<String>> =
            (0..30).map(|index| Some(format!("s{}", index / 3))).collect();
        subjects.extend(vec![None; 30]);
        let mut sampler = Sampler::new([(Set::Retain, subjects)], DocumentsPerStep::all(12), 5);
        for step in 0..10 {
            let drawn = &sampler.draw()[&Set::Retain];
            let without = drawn.iter().filter(|&&index| index >= 30).count();
            assert_eq!(without, 6, "step {step}");
        }
    }

    #[test]
    fn no_step_draws_a_document_twice() {
        let documents = documents(5, 1);
        let mut sampler = of_documents([(Set::Retain, documents.as_slice())], DocumentsPerStep::all(4), 3);
        for _ in 0..50 {
            let mut drawn = sampler.draw()[&Set::Retain].clone();
            drawn.sort_unstable();
            drawn.dedup();
            assert_eq!(drawn.len(), 4);
        }
    }

    #[test]
    fn edits_of_one_subject_are_drawn_together() {
        for (subjects, wordings, edit_unlearn, edit_update) in
            [(10, 1, 4, 4), (10, 5, 4, 4), (24, 8, 5, 5), (24, 8, 4, 16), (24, 8, 8, 16), (24, 8, 6, 12)]
        {
            let (old, new) = (documents(subjects, 1), documents(subjects, wordings));
            let sets = [(Set::EditUnlearn, old.as_slice()), (Set::EditUpdate, new.as_slice())];
            let counts = DocumentsPerStep { edit_unlearn, edit_update, ..DocumentsPerStep::all(0) };
            for seed in 0..20 {
                let mut sampler = of_documents(sets, counts, seed);
                for _ in 0..120 {
                    let draw = sampler.draw();
                    let subjects = |set, documents: &[Document]| -> Vec<String> {
                        draw[&set].iter().filter_map(|&i| documents[i].subject.clone()).collect()
                    };
                    let updated = subjects(Set::EditUpdate, &new);
                    for subject in subjects(Set::EditUnlearn, &old) {
                        assert!(updated.contains(&subject), "{counts:?}: {subject} without its update");
                    }
                    let mut once = draw[&Set::EditUpdate].clone();
                    once.sort_unstable();
                    once.dedup();
                    assert_eq!(once.len(), edit_update, "{counts:?}: a document twice in one step");
                }
            }
        }
    }

    #[test]
    fn a_restored_position_continues_the_same_order() {
        let (old, new) = (documents(7, 1), documents(7, 2));
        let sampler = || {
            let sets = [(Set::EditUnlearn, old.as_slice()), (Set::EditUpdate, new.as_slice())];
            of_documents(sets, DocumentsPerStep::all(3), 1)
        };
        let mut first = sampler();
        for _ in 0..20 {
            let text = serde_json::to_string(&first.position()).unwrap();
            let mut second = sampler();
            second.go_to(serde_json::from_str(&text).unwrap()).unwrap();
            let mut third = first.clone();
            for _ in 0..9 {
                assert_eq!(second.draw(), third.draw());
            }
            first.draw();
        }
    }

    #[test]
    fn a_position_of_other_documents_is_refused() {
        let documents = documents(9, 1);
        let sampler =
            |count: usize| of_documents([(Set::Retain, &documents[..count])], DocumentsPerStep::all(2), 1);
        let mut larger = sampler(9);
        larger.draw();
        assert!(sampler(4).go_to(larger.position()).unwrap_err().contains("4 documents of retain"));
        let other = Sampler::of_texts(9, 2, 1).position();
        assert!(larger.go_to(other).unwrap_err().contains("edit_update"));
    }

    #[test]
    fn the_seed_fixes_the_order() {
        let documents = documents(9, 1);
        let run = |seed| {
            let sets = [(Set::Unlearn, documents.as_slice())];
            let mut sampler = of_documents(sets, DocumentsPerStep::all(2), seed);
            (0..9).map(|_| sampler.draw()).collect::<Vec<_>>()
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
    }
}
