//! Globs over parameter names: `*` matches any characters, dots included, `?` one character, `{a,b}` one of several texts,
//! and `{5..7}` a whole number from 5 to 7. Braces do not nest; `*` and `?` are wildcards inside them, too.

use serde::{Deserialize, Serialize};

/// A glob.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Glob {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Character(char),
    /// `?`
    One,
    /// `*`
    Any,
    /// `{5..7}`
    Number(u64, u64),
    /// `{a,b}`
    Either(Vec<Vec<Piece>>),
}

impl Glob {
    /// Parses a glob, or returns the problem.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            let inside = brace.strip_prefix('{').ok_or("has a `}` without a `{`")?;
            let (inside, after) = inside.split_once('}').ok_or("has a `{` without a `}`")?;
            if inside.contains('{') {
                return Err("has braces inside braces; they are not supported".into());
            }
            pieces.extend(plain(before));
            let alternatives = inside.split(',').map(alternative).collect::<Result<_, _>>()?;
            pieces.push(Piece::Either(alternatives));
            rest = after;
        }
        pieces.extend(plain(rest));
        Ok(Self { text: text.into(), pieces })
    }

    /// The text that it was parsed from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it matches the whole of `name`.
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let mut reached = vec![false; name.len() + 1];
        reached[0] = true;
        advance(&self.pieces, &name, reached)[name.len()]
    }
}

impl TryFrom<String> for Glob {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|problem| format!("the glob `{text}` {problem}"))
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> String {
        glob.text
    }
}

/// The pieces of a text without braces.
fn plain(text: &str) -> impl Iterator<Item = Piece> {
    text.chars().map(|character| match character {
        '*' => Piece::Any,
        '?' => Piece::One,
        other => Piece::Character(other),
    })
}

/// One of the texts between braces.
fn alternative(text: &str) -> Result<Vec<Piece>, String> {
    if text.is_empty() {
        return Err("has braces with nothing in them or around a comma".into());
    }
    let Some((low, high)) = text.split_once("..") else { return Ok(plain(text).collect()) };
    match (low.parse(), high.parse()) {
        (Ok(low), Ok(high)) if low <= high => Ok(vec![Piece::Number(low, high)]),
        _ => Err(format!("has `{{{text}}}`; expected a range of whole numbers, the smaller one first")),
    }
}

/// The places in `name` where a match of `pieces` may end, if it begins at one of the places `from`. All places are
/// followed at once, so that no glob takes exponential time.
fn advance(pieces: &[Piece], name: &[char], mut from: Vec<bool>) -> Vec<bool> {
    for piece in pieces {
        let starts = || (0..from.len()).filter(|&at| from[at]);
        let mut to = vec![false; from.len()];
        match piece {
            Piece::Character(character) => {
                starts().filter(|&at| name.get(at) == Some(character)).for_each(|at| to[at + 1] = true);
            }
            Piece::One => starts().filter(|&at| at < name.len()).for_each(|at| to[at + 1] = true),
            Piece::Any => {
                if let Some(first) = starts().next() {
                    to[first..].fill(true);
                }
            }
            Piece::Number(low, high) => {
                for start in starts() {
                    for end in ends_of_number(&name[start..], *low, *high) {
                        to[start + end] = true;
                    }
                }
            }
            Piece::Either(alternatives) => {
                for alternative in alternatives {
                    let reached = advance(alternative, name, from.clone());
                    to.iter_mut().zip(reached).for_each(|(to, reached)| *to |= reached);
                }
            }
        }
        from = to;
    }
    from
}

/// The lengths of all numbers from `low` to `high`, without leading zeros, at the beginning of `text`.
fn ends_of_number(text: &[char], low: u64, high: u64) -> Vec<usize> {
    let (mut value, mut ends) = (0u64, Vec::new());
    for (index, character) in text.iter().enumerate() {
        let Some(digit) = character.to_digit(10) else { break };
        let Some(next) = value.checked_mul(10).and_then(|tens| tens.checked_add(digit.into())) else { break };
        value = next;
        if (low..=high).contains(&value) {
            ends.push(index + 1);
        }
        if value == 0 {
            break;
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(glob: &str, name: &str) -> bool {
        Glob::parse(glob).unwrap().matches(name)
    }

    #[test]
    fn a_star_crosses_dots_and_a_question_mark_is_one_character() {
        assert!(matches("*", "model.norm.weight"));
        assert!(matches("*", ""));
        assert!(matches("model.*.weight", "model.layers.0.mlp.down_proj.weight"));
        assert!(matches("*down_proj*", "model.layers.0.mlp.down_proj.weight"));
        assert!(matches("model.layers.?.mlp.*", "model.layers.7.mlp.up_proj.weight"));
        assert!(!matches("model.layers.?.mlp.*", "model.layers.17.mlp.up_proj.weight"));
        assert!(!matches("?", ""));
    }

    #[test]
    fn a_glob_without_wildcards_matches_the_whole_name_only() {
        assert!(matches("model.norm.weight", "model.norm.weight"));
        assert!(!matches("model.norm", "model.norm.weight"));
        assert!(!matches("norm.weight", "model.norm.weight"));
        assert!(!matches("", "model.norm.weight"));
    }

    #[test]
    fn braces_match_one_of_several_texts() {
        let glob = "model.layers.3.self_attn.{q,k,v}_proj.weight";
        assert!(matches(glob, "model.layers.3.self_attn.q_proj.weight"));
        assert!(matches(glob, "model.layers.3.self_attn.v_proj.weight"));
        assert!(!matches(glob, "model.layers.3.self_attn.o_proj.weight"));
        assert!(matches("{*norm,lm_head}.weight", "model.layers.3.input_layernorm.weight"));
        assert!(matches("{a,ab}c", "abc"));
    }

    #[test]
    fn ranges_are_inclusive_and_of_whole_numbers() {
        let block = |glob: &str| -> Vec<usize> {
            let glob = Glob::parse(glob).unwrap();
            (0..120).filter(|block| glob.matches(&format!("layers.{block}.mlp"))).collect()
        };
        assert_eq!(block("layers.{5..7}.*"), [5, 6, 7]);
        assert_eq!(block("layers.{0..0}.*"), [0]);
        assert_eq!(block("layers.{9..11}.*"), [9, 10, 11]);
        assert_eq!(block("layers.{0,98..100,110}.*"), [0, 98, 99, 100, 110]);
        assert!(!matches("{5..7}", "05"));
        assert!(matches("1{0..99}0", "1100"));
        assert!(matches("{0..18446744073709551615}", "18446744073709551615"));
        assert!(!matches("{0..18446744073709551615}", "99999999999999999999999"));
    }

    #[test]
    fn a_malformed_glob_is_refused_with_a_reason() {
        for (glob, expected) in [
            ("a{b", "without a `}`"),
            ("a}b", "without a `{`"),
            ("{a,{b,c}}", "inside braces"),
            ("{}", "nothing"),
            ("{a,}", "nothing"),
            ("{7..5}", "{7..5}"),
            ("{1..x}", "{1..x}"),
            ("{1..2..3}", "{1..2..3}"),
            ("{-1..3}", "{-1..3}"),
        ] {
            let problem = Glob::parse(glob).unwrap_err();
            assert!(problem.contains(expected), "{glob}: {problem}");
        }
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        let (glob, name) = ("*a".repeat(2_000) + "b", "a".repeat(1_000));
        assert!(!matches(&glob, &name));
    }
}
