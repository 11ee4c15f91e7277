//! Finds names in texts. Not all data gives subjects, and a text about one person names others too.
//!
//! In a script with capitals, a name is two to five consecutive capitalised words, or one capitalised word that does
//! not merely begin a sentence. Japanese writes foreign names in katakana, and kana delimit names in other letters.
//! In all other scripts, names are recognised by repetition: a word, or two to four letters in a script without
//! spaces. A candidate that the other texts use just as much is no name.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::sequences::Sequences;
use crate::data::words::{Words, hash, is_unspaced};

/// Maximum number of words in a capitalised name; longer sequences are headlines.
const LONGEST: usize = 5;
/// Number of letters of a name that is recognised by repetition in a script without spaces.
const LETTERS: std::ops::RangeInclusive<usize> = 2..=4;
/// Number of letters of a name that kana delimit.
const BETWEEN_KANA: std::ops::RangeInclusive<usize> = 3..=6;
/// A name's share of the texts must exceed its share of the other texts by this factor.
const RATIO: usize = 4;

/// The evidence for a candidate being a name.
#[derive(Default)]
struct Candidate {
    /// Its spelling alone marks it as a name.
    is_written_as_name: bool,
    /// Its script has no capitals.
    is_caseless: bool,
    /// It is a part of a given subject.
    is_given: bool,
    /// Number of occurrences in the texts.
    count: usize,
    /// Maximum number of occurrences in one of the texts.
    in_one: usize,
    /// Number of the texts that contain it, and of the others.
    texts: [usize; 2],
}

/// Adds to `names` the names found in `texts`, and those of `given`, parts of subjects, that `others` do not use as
/// much.
pub(super) fn find_names(
    texts: &[&str],
    others: &[&str],
    given: &[&str],
    words: &mut Words,
    names: &mut Sequences,
) {
    let mut scan = Scan { words, candidates: HashMap::new(), within: HashSet::new(), small: HashSet::new() };
    texts.iter().for_each(|text| scan.text(text));
    others.iter().for_each(|text| scan.small_words(&pieces(text)));
    for part in given {
        let candidate = scan.candidate(part);
        candidate.is_given = true;
    }
    let Scan { words, mut candidates, within, small } = scan;
    let lengths: BTreeSet<usize> =
        candidates.keys().map(|&(length, _)| length).filter(|&length| length > 0).collect();
    for (side, texts) in [texts, others].into_iter().enumerate() {
        for text in texts {
            let text = words.known(text);
            let mut counts: HashMap<(usize, u64), usize> = HashMap::new();
            for &length in &lengths {
                for window in text.windows(length) {
                    let key = (length, hash(window));
                    if candidates.contains_key(&key) {
                        *counts.entry(key).or_default() += 1;
                    }
                }
            }
            for (key, count) in counts {
                let candidate = candidates.get_mut(&key).expect("was there");
                candidate.texts[side] += 1;
                if side == 0 {
                    candidate.count += count;
                    candidate.in_one = candidate.in_one.max(count);
                }
            }
        }
    }
    let is_name = |&(&(length, number), candidate): &(&(usize, u64), &Candidate)| {
        let [own, other] = candidate.texts;
        // Both shares multiplied by both numbers of texts.
        let (share, share_of_others) = (own * others.len().max(1), other * texts.len());
        if candidate.is_given {
            return !small.contains(&number) && (other == 0 || share > share_of_others);
        }
        let is_repeated = match (candidate.is_written_as_name, candidate.is_caseless) {
            (true, _) => true,
            (false, true) if length == 2 => candidate.in_one > 1 && other == 0,
            (false, true) => candidate.count > 1 && other == 0,
            (false, false) => candidate.count > 1 && within.contains(&number) && !small.contains(&number),
        };
        is_repeated && share > RATIO * share_of_others
    };
    candidates.iter().filter(is_name).for_each(|(&(length, number), _)| names.insert_hash(length, number));
}

/// The script of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Script {
    /// With capitals, starting with one.
    Capital,
    /// With capitals, not starting with one.
    Small,
    /// Without capitals, with spaces between words.
    Caseless,
    Katakana,
    Hiragana,
    /// Any other script without spaces.
    Unspaced,
}

/// A word; in a script without spaces, a sequence of letters of one script.
#[derive(Debug, Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    /// Byte offset in the text.
    at: usize,
    script: Script,
    /// Only a space, hyphen, apostrophe or an initial's dot separates it from the previous piece.
    is_joined: bool,
    /// It begins a sentence.
    is_first: bool,
}

impl Piece<'_> {
    fn end(&self) -> usize {
        self.at + self.text.len()
    }
}

fn script_of(letter: char) -> Script {
    match letter {
        '\u{30A0}'..='\u{30FF}' | '\u{31F0}'..='\u{31FF}' | '\u{FF66}'..='\u{FF9F}' => Script::Katakana,
        '\u{3040}'..='\u{309F}' => Script::Hiragana,
        letter if is_unspaced(letter) => Script::Unspaced,
        letter if letter.is_uppercase() => Script::Capital,
        letter if letter.is_lowercase() || letter.is_numeric() => Script::Small,
        _ => Script::Caseless,
    }
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces: Vec<Piece> = Vec::new();
    let (mut is_joined, mut is_first, mut gap) = (false, true, true);
    for (at, letter) in text.char_indices() {
        if !letter.is_alphanumeric() {
            let is_initial = pieces
                .last()
                .is_some_and(|last| last.script == Script::Capital && last.text.chars().count() == 1);
            match letter {
                ' ' | '-' | '\'' | '’' => {}
                '.' if is_initial => {}
                '.' | '!' | '?' | ':' | '…' | '\n' | '\r' | '。' | '！' | '？' => {
                    (is_joined, is_first) = (false, true);
                }
                _ => is_joined = false,
            }
            gap = true;
            continue;
        }
        let script = script_of(letter);
        let is_spaced = !is_unspaced(letter);
        let goes_on = |last: &Piece| match is_spaced {
            true => !matches!(last.script, Script::Katakana | Script::Hiragana | Script::Unspaced),
            false => last.script == script,
        };
        match pieces.last_mut().filter(|last| !gap && goes_on(last)) {
            Some(last) => last.text = &text[last.at..at + letter.len_utf8()],
            None => {
                let text = &text[at..at + letter.len_utf8()];
                pieces.push(Piece { text, at, script, is_joined, is_first });
            }
        }
        (is_joined, is_first, gap) = (true, false, false);
    }
    pieces
}

/// Scans texts for candidates.
struct Scan<'a> {
    words: &'a mut Words,
    /// Candidates by number of words and hash.
    candidates: HashMap<(usize, u64), Candidate>,
    /// Hashes of words that are capitalised within a sentence.
    within: HashSet<u64>,
    /// Hashes of words that occur in lower case.
    small: HashSet<u64>,
}

impl Scan<'_> {
    fn candidate(&mut self, name: &str) -> &mut Candidate {
        let words = self.words.of(name);
        self.candidates.entry((words.len(), hash(&words))).or_default()
    }

    fn small_words(&mut self, pieces: &[Piece]) {
        for piece in pieces.iter().filter(|piece| piece.script == Script::Small) {
            self.small.insert(hash(&self.words.of(piece.text)));
        }
    }

    fn text(&mut self, text: &str) {
        let pieces = pieces(text);
        self.small_words(&pieces);
        for (index, piece) in pieces.iter().enumerate() {
            match piece.script {
                Script::Katakana if piece.text.chars().nth(1).is_some() => {
                    self.candidate(piece.text).is_written_as_name = true;
                }
                Script::Unspaced => self.unspaced(piece, &pieces, index),
                Script::Caseless if piece.text.chars().nth(2).is_some() => {
                    self.candidate(piece.text).is_caseless = true;
                }
                _ => {}
            }
        }
        // "I" is the one English word that is always capitalised.
        let is_capital = |piece: &Piece| piece.script == Script::Capital && piece.text != "I";
        let goes_on = |a: &Piece, b: &Piece| is_capital(a) && is_capital(b) && b.is_joined;
        for row in pieces.chunk_by(goes_on).filter(|row| is_capital(&row[0])) {
            for piece in row.iter().filter(|piece| !piece.is_first) {
                self.within.insert(hash(&self.words.of(piece.text)));
            }
            // The first word of a sentence may be any word, so the sequence is also tried without it.
            let from = if row[0].is_first { 0..row.len().min(2) } else { 0..1 };
            for row in from.map(|from| &row[from..]).filter(|row| row.len() <= LONGEST) {
                let name = &text[row[0].at..row[row.len() - 1].end()];
                if name.chars().nth(1).is_some() {
                    self.candidate(name).is_written_as_name |= row.len() > 1;
                }
            }
        }
    }

    fn unspaced(&mut self, piece: &Piece, pieces: &[Piece], index: usize) {
        let ends: Vec<usize> =
            piece.text.char_indices().map(|(at, _)| at).chain([piece.text.len()]).collect();
        let is_kana = |other: Option<&Piece>| {
            other.is_some_and(|other| matches!(other.script, Script::Katakana | Script::Hiragana))
        };
        let before = index.checked_sub(1).and_then(|before| pieces.get(before));
        let before = before.filter(|before| before.end() == piece.at);
        let after = pieces.get(index + 1).filter(|after| after.at == piece.end());
        if BETWEEN_KANA.contains(&(ends.len() - 1)) && (is_kana(before) || is_kana(after)) {
            self.candidate(piece.text).is_written_as_name = true;
        }
        for length in LETTERS {
            for ends in ends.windows(length + 1) {
                self.candidate(&piece.text[ends[0]..ends[length]]).is_caseless = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn found(texts: &[&str], others: &[&str], names: &[&str], no_names: &[&str]) {
        let mut words = Words::default();
        let mut found = Sequences::default();
        find_names(texts, others, &[], &mut words, &mut found);
        for name in names {
            assert!(found.is_in(&words.known(name)), "{name} is a name");
        }
        for none in no_names {
            assert!(!found.is_in(&words.known(none)), "{none} is not a name");
        }
    }

    #[test]
    fn capitalised_words_are_names_unless_they_begin_sentences() {
        let texts = [
            "Marla Quist mends nets. The nets of Quist are blue. Her boat lies in Tarn.",
            "Yesterday J. R. O'Dell met Bo near Old Pier. Yesterday they parted. Bo left. So I left, and I slept. Every Net Is Torn By The Sea.",
        ];
        let others = ["The nets of Old Pier are blue. They mend Nets."];
        found(
            &texts,
            &others,
            &["Marla Quist", "MARLA QUIST'S", "Quist", "j r o'dell", "Bo"],
            &[
                "marla",
                "The nets",
                "Her",
                "nets",
                "old pier",
                "Tarn",
                "Yesterday",
                "every net is torn by the sea",
            ],
        );
    }

    #[test]
    fn names_in_letters_without_spaces_are_found() {
        let texts = [
            "陆明远住在海边。陆明远修船。",
            "何苗捕鱼。夜里何苗唱歌。",
            "佐倉健二郎は海辺でマルタ・クイストと会った。",
        ];
        let others = ["他住在山里，修桥。", "彼は山で会った。"];
        found(
            &texts,
            &others,
            &["从前陆明远说", "何苗", "佐倉健二郎さん", "マルタ", "クイスト"],
            &["住在", "他修船", "海辺", "会った"],
        );
    }

    #[test]
    fn names_in_scripts_without_capitals_are_found_by_repetition() {
        found(&["سليم نجار. يعيش سليم هنا."], &["يعيش نجار هنا."], &["سليم"], &["يعيش", "نجار", "هنا"]);
    }
}
