//! Texts that are nearly the same.
//!
//! Two texts are held to be nearly the same where half of the runs of [`RUN`] words of the shorter one stand in the
//! other, and at least [`LEAST`] of them (or all, where it has fewer): a copy with some words changed, or a passage
//! within a longer text. A run of a text that more than [`MOST`] of the others have too is a template's, and counts on
//! neither side. Every such pair is found, and every pair of texts that are the same word for word, templates included.
//!
//! An index says which of the others have a run; the runs that two texts share are counted as it is read. The time
//! grows with the number of runs, [`MOST`] times at most, whatever the texts have in common.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::data::words::hash;

/// Words of a run.
const RUN: usize = 5;
/// Common runs, at least: fewer are a turn of phrase.
const LEAST: usize = 8;
/// The most texts that a run makes alike.
const MOST: usize = 200;

/// For each of `texts`, given as words, the first of `others` that is nearly the same.
pub(super) fn near_duplicates(texts: &[Vec<u32>], others: &[Vec<u32>]) -> Vec<Option<usize>> {
    let index = Index::new(texts, others);
    // How many runs each of the others shares with a text, and which of them share any.
    let (mut shared, mut sharing) = (vec![0; others.len()], Vec::new());
    let near = |words: &Vec<u32>| {
        let mut length = 0;
        for run in runs(words) {
            let having = &index.having[&run];
            if having.len() > MOST {
                continue;
            }
            length += 1;
            for &other in having {
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

/// The distinct runs of a text, each as a number: that of all its words where it has fewer than a run.
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

/// A map from the numbers of runs, or of whole texts.
type ByRun<T> = HashMap<u64, T, BuildHasherDefault<Itself>>;

/// How many runs of a text of so many must stand in another.
fn needed(runs: usize) -> usize {
    runs.min(runs.div_ceil(2).max(LEAST))
}

/// The texts that others are compared with.
struct Index {
    /// For each run of the texts that are compared, those that have it too.
    having: ByRun<Vec<u32>>,
    /// How many runs each has that count.
    lengths: Vec<usize>,
    /// The first that is all these words.
    whole: ByRun<usize>,
}

impl Index {
    fn new(texts: &[Vec<u32>], others: &[Vec<u32>]) -> Self {
        let mut having: ByRun<Vec<u32>> =
            texts.iter().flat_map(|words| runs(words)).map(|run| (run, Vec::new())).collect();
        let (mut lengths, mut whole) = (Vec::with_capacity(others.len()), ByRun::default());
        for (other, words) in others.iter().enumerate() {
            let runs = runs(words);
            for run in &runs {
                if let Some(having) = having.get_mut(run) {
                    having.push(other as u32);
                }
            }
            lengths.push(runs.len());
            if !words.is_empty() {
                whole.entry(hash(words)).or_insert(other);
            }
        }
        for having in having.values().filter(|having| having.len() > MOST) {
            having.iter().for_each(|&other| lengths[other as usize] -= 1);
        }
        Self { having, lengths, whole }
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

    #[test]
    fn a_long_template_makes_no_pairs_and_hides_no_copy() {
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
