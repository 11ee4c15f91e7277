//! A set of word sequences, stored as hashes.

use std::collections::{BTreeMap, HashSet};

use crate::data::words::hash;

/// Hashes of word sequences, by length. Each takes eight bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Sequences(BTreeMap<usize, HashSet<u64>>);

impl Sequences {
    /// Adds a sequence. Empty ones are ignored.
    pub(super) fn insert(&mut self, words: &[u32]) {
        self.insert_hash(words.len(), hash(words));
    }

    /// Adds a sequence given by length and hash.
    pub(super) fn insert_hash(&mut self, length: usize, hash: u64) {
        if length > 0 {
            self.0.entry(length).or_default().insert(hash);
        }
    }

    /// Removes the sequences that occur in `text`.
    pub(super) fn remove_in(&mut self, text: &[u32]) {
        for (&length, hashes) in &mut self.0 {
            for window in text.windows(length) {
                hashes.remove(&hash(window));
            }
        }
    }

    /// Whether any of the sequences occurs in `text`.
    pub(super) fn is_in(&self, text: &[u32]) -> bool {
        let mut lengths = self.0.iter().filter(|(_, hashes)| !hashes.is_empty());
        lengths.any(|(&length, hashes)| text.windows(length).any(|window| hashes.contains(&hash(window))))
    }
}
