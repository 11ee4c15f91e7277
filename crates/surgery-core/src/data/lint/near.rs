//! Texts that are nearly the same.
//!
//! Two texts are held to be nearly the same where half of the runs of [`RUN`] words of the shorter one stand in the
//! other, and at least [`LEAST`] of them (or all, where it has fewer): a copy with some words changed, or a passage
//! within a longer text. Every such pair is found; an index of the runs that occur on both sides, and of each
//! text only the rarest of these, keep it from comparing every text with every other.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Words of a run.
const RUN: usize = 5;
/// Common runs, at least: fewer are a turn of phrase.
const LEAST: usize = 8;

/// For each of `texts`, given as words, the first of `others` found to be nearly the same.
pub(super) fn near_duplicates(texts: &[Vec<u32>], others: &[Vec<u32>]) -> Vec<Option<usize>> {
    let sides = [texts, others].map(|side| side.iter().map(|words| runs(words)).collect::<Vec<_>>());
    let [ours, theirs] = Index::pair(&sides);
    let mut found = vec![None; texts.len()];
    // Of a pair the shorter one is looked up among those that are as long or longer.
    for (text, found) in found.iter_mut().enumerate() {
        *found = ours.candidates(text, &theirs).into_iter().find(|&other| ours.is_near(text, &theirs, other));
    }
    for other in 0..others.len() {
        for text in theirs.candidates(other, &ours) {
            if found[text].is_none() && theirs.is_near(other, &ours, text) {
                found[text] = Some(other);
            }
        }
    }
    found
}

/// The distinct runs of a text, each as a number: that of all its words where it has fewer than a run.
fn runs(words: &[u32]) -> Vec<u64> {
    // FNV-1a (Fowler, Noll and Vo) over whole words, with the multiplier of Knuth's generator MMIX.
    let number = |run: &[u32]| {
        run.iter().fold(0xcbf2_9ce4_8422_2325_u64, |number, &word| {
            (number ^ u64::from(word)).wrapping_mul(6_364_136_223_846_793_005).rotate_left(29)
        })
    };
    let mut runs: Vec<u64> = match words.len() {
        0 => Vec::new(),
        1..RUN => vec![number(words)],
        _ => words.windows(RUN).map(number).collect(),
    };
    runs.sort_unstable();
    runs.dedup();
    runs
}

/// The hash of a run's number, which is as good as random: itself.
#[derive(Default)]
struct Itself(u64);

impl Hasher for Itself {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = self.0.rotate_left(8) ^ u64::from(byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// How many runs of a text of so many must stand in another.
fn needed(runs: usize) -> usize {
    runs.min(runs.div_ceil(2).max(LEAST))
}

/// One side of the comparison: of each text the runs that occur on both sides.
struct Index {
    /// How many runs each text has in all.
    lengths: Vec<usize>,
    /// The common runs of each text, by their numbers, in order.
    common: Vec<Vec<usize>>,
    /// The texts of each common run.
    texts: Vec<Vec<usize>>,
}

impl Index {
    fn pair(sides: &[Vec<Vec<u64>>; 2]) -> [Self; 2] {
        let mut number: HashMap<u64, Option<usize>, BuildHasherDefault<Itself>> = HashMap::default();
        for run in sides[0].iter().flatten() {
            number.insert(*run, None);
        }
        let mut count = 0;
        for run in sides[1].iter().flatten() {
            if let Some(unnumbered @ None) = number.get_mut(run) {
                *unnumbered = Some(count);
                count += 1;
            }
        }
        [0, 1].map(|side| {
            let mut texts = vec![Vec::new(); count];
            let mut common = Vec::with_capacity(sides[side].len());
            for (text, runs) in sides[side].iter().enumerate() {
                let mut numbers: Vec<usize> =
                    runs.iter().filter_map(|run| number.get(run).copied().flatten()).collect();
                numbers.sort_unstable();
                numbers.iter().for_each(|&number| texts[number].push(text));
                common.push(numbers);
            }
            Self { lengths: sides[side].iter().map(Vec::len).collect(), common, texts }
        })
    }

    /// The texts of `others`, as long as `text` or longer, that may be near it: of the runs that must be common, one
    /// at least is among the rarest.
    fn candidates(&self, text: usize, others: &Index) -> Vec<usize> {
        let (length, mut common) = (self.lengths[text], self.common[text].clone());
        let needed = needed(length);
        if length == 0 || common.len() < needed {
            return Vec::new();
        }
        common.sort_by_key(|&run| others.texts[run].len());
        let rarest = &common[..common.len() - needed + 1];
        let texts = rarest.iter().flat_map(|&run| others.texts[run].iter().copied());
        let mut candidates: Vec<usize> = texts.filter(|&other| others.lengths[other] >= length).collect();
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }

    /// Whether enough runs of `text` stand in `other`.
    fn is_near(&self, text: usize, others: &Index, other: usize) -> bool {
        let theirs = &others.common[other];
        let shared = self.common[text].iter().filter(|run| theirs.binary_search(run).is_ok()).count();
        shared >= needed(self.lengths[text])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words that differ from text to text: `from..to` of a sequence of its own.
    fn text(own: u32, from: u32, to: u32) -> Vec<u32> {
        (from..to).map(|word| own * 1000 + word).collect()
    }

    #[test]
    fn copies_passages_and_changed_words_are_found() {
        let original = text(1, 0, 60);
        let mut changed = original.clone();
        for at in [5, 20, 35, 50] {
            changed[at] = 999_999;
        }
        let mut other = original.clone();
        for at in (0..60).step_by(6) {
            other[at] = 999_999;
        }
        let within = [text(2, 0, 300), original[10..40].to_vec(), text(3, 0, 300)].concat();
        let around = [text(4, 0, 200), original.clone()].concat();
        let short = text(5, 0, 4);
        let others = [text(6, 0, 60), changed, within, around, short.clone(), other];
        let near = |text: &Vec<u32>| near_duplicates(std::slice::from_ref(text), &others)[0];
        assert_eq!(near(&original), Some(1));
        assert_eq!(near(&original[10..40].to_vec()), Some(1), "and the first of several");
        assert_eq!(near(&text(2, 100, 250)), Some(2), "a passage of a longer text");
        assert_eq!(near(&[text(6, 0, 60), text(7, 0, 500)].concat()), Some(0), "a text around it");
        assert_eq!(near(&short), Some(4), "a text of few words is the same or is not");
        assert_eq!(near(&text(5, 0, 3)), None);
        assert_eq!(near(&text(6, 0, 9)), Some(0));
        assert_eq!(near_duplicates(&[text(1, 0, 60)], &others[5..])[0], None, "every sixth word another");
        assert_eq!(near(&Vec::new()), None);
        assert_eq!(near_duplicates(&[], &others), []);
    }

    #[test]
    fn what_all_texts_have_in_common_is_no_copy() {
        let letter = |own: u32| [text(0, 0, 20), text(own, 0, 60)].concat();
        let texts: Vec<Vec<u32>> = (1..40).map(letter).collect();
        let others: Vec<Vec<u32>> = (41..80).map(letter).collect();
        assert!(near_duplicates(&texts, &others).iter().all(Option::is_none));
        assert!(near_duplicates(&texts, &texts).iter().enumerate().all(|(i, found)| *found == Some(i)));
    }
}
