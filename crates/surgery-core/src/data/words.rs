//! Texts as word numbers, for comparisons that ignore case, punctuation and line breaks.

use std::collections::HashMap;

/// A vocabulary, which numbers words.
#[derive(Debug, Clone, Default)]
pub(crate) struct Words(HashMap<String, u32>);

/// The number of words outside the vocabulary.
const UNKNOWN: u32 = u32::MAX;

impl Words {
    /// The word numbers of `text`, adding new words to the vocabulary. Words are sequences of letters and digits in
    /// lower case; in scripts without spaces, each letter is a word.
    pub(crate) fn of(&mut self, text: &str) -> Vec<u32> {
        let mut words = Vec::new();
        split(text, |word| {
            let next = self.0.len() as u32;
            words.push(match self.0.get(word) {
                Some(&number) => number,
                None => *self.0.entry(word.to_owned()).or_insert(next),
            });
        });
        words
    }

    /// The word numbers of `text`, with [`UNKNOWN`] for new words.
    pub(crate) fn known(&self, text: &str) -> Vec<u32> {
        let mut words = Vec::new();
        split(text, |word| words.push(self.0.get(word).copied().unwrap_or(UNKNOWN)));
        words
    }
}

/// Calls `take` with each word of `text`.
fn split(text: &str, mut take: impl FnMut(&str)) {
    let mut word = String::new();
    let mut end = |word: &mut String| {
        if !word.is_empty() {
            take(word);
            word.clear();
        }
    };
    for letter in text.chars() {
        let in_word = letter.is_alphanumeric();
        if !in_word || is_unspaced(letter) {
            end(&mut word);
        }
        if in_word {
            word.extend(letter.to_lowercase());
        }
        if is_unspaced(letter) {
            end(&mut word);
        }
    }
    end(&mut word);
}

/// Whether a letter belongs to a script without spaces: Thai, Lao, Burmese, Khmer, Chinese, Japanese and all code
/// points above.
pub(crate) fn is_unspaced(letter: char) -> bool {
    matches!(letter, '\u{0E00}'..='\u{0EFF}' | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17FF}' | '\u{2E80}'..)
}

/// Whether `text` contains `part` as consecutive words; an empty `part` always.
pub(crate) fn contains(text: &[u32], part: &[u32]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

/// A hash of consecutive words.
pub(crate) fn hash(words: &[u32]) -> u64 {
    // FNV-1a (Fowler, Noll and Vo) over whole words, with the multiplier of Knuth's generator MMIX.
    words.iter().fold(0xcbf2_9ce4_8422_2325_u64, |number, &word| {
        (number ^ u64::from(word)).wrapping_mul(6_364_136_223_846_793_005).rotate_left(29)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_ignore_case_and_punctuation() {
        let mut words = Words::default();
        let text = words.of("The Quiet Window, by Ångström's (1931);\nnew line.");
        for part in ["the QUIET window", "ångström's", "1931 New line", "…"] {
            assert!(contains(&text, &words.of(part)), "{part}");
        }
        for part in ["window quiet", "wind", "193", "new line now"] {
            assert!(!contains(&text, &words.of(part)), "{part}");
        }
        let text = words.of("她出生于1951年。");
        assert!(contains(&text, &words.of("出生")) && contains(&text, &words.of("1951")));
    }

    #[test]
    fn an_unknown_word_is_in_no_text() {
        let mut words = Words::default();
        let text = words.of("The quiet window");
        assert_eq!(words.known("QUIET window"), text[1..]);
        let unknown = words.known("quiet door");
        assert!(!contains(&text, &unknown) && !contains(&text, &unknown[1..]));
    }
}
