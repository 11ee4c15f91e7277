//! Many sequences of words to look for, a hash of each.

use std::collections::{BTreeMap, HashSet};

use crate::data::words::hash;

/// Sequences of words: eight bytes each, by their length.
#[derive(Debug, Clone, Default)]
pub(super) struct Sequences(BTreeMap<usize, HashSet<u64>>);

impl Sequences {
    /// Adds one; none without a word.
    pub(super) fn insert(&mut self, words: &[u32]) {
        self.insert_hash(words.len(), hash(words));
    }

    /// Adds one of so many words by its hash.
    pub(super) fn insert_hash(&mut self, length: usize, hash: u64) {
        if length > 0 {
            self.0.entry(length).or_default().insert(hash);
        }
    }

    /// Removes those that stand in `text`.
    pub(super) fn remove_in(&mut self, text: &[u32]) {
        for (&length, hashes) in &mut self.0 {
            for window in text.windows(length) {
                hashes.remove(&hash(window));
            }
        }
    }

    /// Whether one of them stands in `text`.
    pub(super) fn is_in(&self, text: &[u32]) -> bool {
        let mut lengths = self.0.iter().filter(|(_, hashes)| !hashes.is_empty());
        lengths.any(|(&length, hashes)| text.windows(length).any(|window| hashes.contains(&hash(window))))
    }
}
