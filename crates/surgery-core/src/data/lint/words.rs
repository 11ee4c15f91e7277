//! Texts as words, so that case, punctuation and line breaks make no two texts different.

use std::collections::HashMap;

/// Gives every word a number.
#[derive(Debug, Default)]
pub(super) struct Words(HashMap<String, u32>);

impl Words {
    /// The words of `text`: runs of letters and digits in lower case; where a script puts no spaces between words,
    /// each letter.
    pub(super) fn of(&mut self, text: &str) -> Vec<u32> {
        let mut words = Vec::new();
        let mut word = String::new();
        for letter in text.chars() {
            let in_word = letter.is_alphanumeric();
            if !in_word || is_unspaced(letter) {
                self.end(&mut word, &mut words);
            }
            if in_word {
                word.extend(letter.to_lowercase());
            }
            if is_unspaced(letter) {
                self.end(&mut word, &mut words);
            }
        }
        self.end(&mut word, &mut words);
        words
    }

    fn end(&mut self, word: &mut String, words: &mut Vec<u32>) {
        if word.is_empty() {
            return;
        }
        let next = self.0.len() as u32;
        let number = match self.0.get(word.as_str()) {
            Some(&number) => number,
            None => *self.0.entry(word.clone()).or_insert(next),
        };
        words.push(number);
        word.clear();
    }
}

/// Thai and its neighbours, Burmese, Khmer, and everything from the radicals of Chinese upwards.
fn is_unspaced(letter: char) -> bool {
    matches!(letter, '\u{0E00}'..='\u{0EFF}' | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17FF}' | '\u{2E80}'..)
}

/// Whether `part` stands in `text` word for word; nothing stands in everything.
pub(super) fn contains(text: &[u32], part: &[u32]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_know_no_case_and_no_punctuation() {
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
}
