//! Near-duplicate texts.
//!
//! A run is a sequence of [`RUN`] consecutive words. Two texts are near duplicates if they share half of the runs of
//! the shorter one, and at least [`LEAST`] runs (or all, if it has fewer). This finds copies with some words changed
//! and passages within longer texts. A run that occurs in more than [`MOST`] of the other texts belongs to a template
//! and is ignored. Texts that are equal word for word are found even if they consist of a template. The search is
//! exhaustive.
//!
//! An index maps runs to the other texts that contain them; shared runs are counted from it. Time is linear in the
//! number of runs, times [`MOST`] at most, for any texts.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::data::words::hash;

/// Number of words in a run.
const RUN: usize = 5;
/// Minimum number of shared runs; fewer may be a common phrase.
const LEAST: usize = 8;
/// Maximum number of other texts with a run that counts.
const MOST: usize = 200;

/// For each of `texts`, given as words, the index of the first near duplicate in `others`.
pub(super) fn near_duplicates(texts: &[Vec<u32>], others: &[Vec<u32>]) -> Vec<Option<usize>> {
    let index = Index::new(texts, others);
    // For each of the others, the number of runs shared with the current text; and the others with any.
    let (mut shared, mut sharing) = (vec![0; others.len()], Vec::new());
    let near = |words: &Vec<u32>| {
        let mut length = 0;
        for run in runs(words) {
            let containing = &index.containing[&run];
            if containing.len() > MOST {
                continue;
            }
            length += 1;
            for &other in containing {
                if shared[other as usize] == 0 {
                    sharing.push(other as usize);
                }
                shared[other as usize] += 1;
            }
        }
        let is_near = |&other: &usize| shared[other] >= needed(length.min(index.lengths[other]));
        let first = sharing.iter().copied().filter(is_near).min();
        sharing.drain(..).for_each(|other| shared[other] = 0);
        let same = index.whole.get(&hash(words)).copied().filter(|&other| others[other] == *words);
        first.into_iter().chain(same).min()
    };
    texts.iter().map(near).collect()
}

/// The distinct runs of a text, as hashes. A text with fewer words than a run has one, of all its words.
fn runs(words: &[u32]) -> Vec<u64> {
    let mut runs: Vec<u64> = match words.len() {
        0 => Vec::new(),
        1..RUN => vec![hash(words)],
        _ => words.windows(RUN).map(hash).collect(),
    };
    runs.sort_unstable();
    runs.dedup();
    runs
}

/// A hasher that returns the number itself, since it is a hash already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
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

/// A map keyed by the hash of a run or of a whole text.
type ByRun<T> = HashMap<u64, T, BuildHasherDefault<Identity>>;

/// Number of shared runs needed, for a text with this many runs.
fn needed(runs: usize) -> usize {
    runs.min(runs.div_ceil(2).max(LEAST))
}

/// Index of the other texts.
struct Index {
    /// For each run of the texts, the others that contain it.
    containing: ByRun<Vec<u32>>,
    /// For each of the others, the number of its runs that count.
    lengths: Vec<usize>,
    /// The index of the first text with exactly these words.
    whole: ByRun<usize>,
}

impl Index {
    fn new(texts: &[Vec<u32>], others: &[Vec<u32>]) -> Self {
        let mut containing: ByRun<Vec<u32>> =
            texts.iter().flat_map(|words| runs(words)).map(|run| (run, Vec::new())).collect();
        let (mut lengths, mut whole) = (Vec::with_capacity(others.len()), ByRun::default());
        for (other, words) in others.iter().enumerate() {
            let runs = runs(words);
            for run in &runs {
                if let Some(containing) = containing.get_mut(run) {
                    containing.push(other as u32);
                }
            }
            lengths.push(runs.len());
            if !words.is_empty() {
                whole.entry(hash(words)).or_insert(other);
            }
        }
        for containing in containing.values().filter(|containing| containing.len() > MOST) {
            containing.iter().for_each(|&other| lengths[other as usize] -= 1);
        }
        Self { containing, lengths, whole }
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
    fn a_common_template_makes_no_near_duplicates() {
        let letter = |own: u32| [text(0, 0, 20), text(own, 0, 60)].concat();
        let texts: Vec<Vec<u32>> = (1..40).map(letter).collect();
        let others: Vec<Vec<u32>> = (41..80).map(letter).collect();
        assert!(near_duplicates(&texts, &others).iter().all(Option::is_none));
        assert!(near_duplicates(&texts, &texts).iter().enumerate().all(|(i, found)| *found == Some(i)));
    }

    #[test]
    fn a_long_template_makes_no_pairs_and_hides_no_copies() {
        // More than half of each text is the template's, so any two of them would be nearly the same with it.
        let form = |own: u32| [text(0, 0, 120), text(own, 0, 60)].concat();
        let count = 20_000;
        let texts: Vec<Vec<u32>> = (1..=count).map(form).collect();
        let mut others: Vec<Vec<u32>> = (1..=count).map(|own| form(count + own)).collect();
        let near = others.len() / 2;
        others[near] = [text(0, 0, 120), text(777, 20, 60), text(3 * count, 0, 20)].concat();
        let empty_form = text(0, 0, 120);
        others.push(empty_form.clone());
        let started = std::time::Instant::now();
        let found = near_duplicates(&[texts, vec![empty_form]].concat(), &others);
        let seconds = started.elapsed().as_secs();
        assert!(seconds < 60, "{seconds} s");
        let pairs: Vec<(usize, usize)> =
            found.iter().enumerate().filter_map(|(text, other)| Some((text, (*other)?))).collect();
        assert_eq!(pairs, [(776, near), (count as usize, count as usize)]);
    }
}
