//! The tokens of a tag.

use std::iter::Peekable;
use std::str::Chars;

/// Maximum number of tokens of a tag, because the engine recurses once for each operator of a chain.
const MOST_TOKENS: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Name,
    Number,
    String,
    Operator,
}

/// A token of a tag, with the blanks before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    pub(super) blanks: &'a str,
}

/// The tokens of a tag from byte `at` on, its end with the blanks before it, and its length.
pub(super) fn tokens<'a>(
    text: &'a str,
    mut at: usize,
    end: &str,
) -> Result<(Vec<Token<'a>>, &'a str, usize), String> {
    let mut tokens = Vec::new();
    let mut depth = 0usize;
    loop {
        if tokens.len() > MOST_TOKENS {
            return Err(format!("has a tag of more than {MOST_TOKENS} words and signs"));
        }
        let rest = &text[at..];
        let trimmed = rest.trim_start();
        let blanks = &rest[..rest.len() - trimmed.len()];
        let unsigned = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
        if depth == 0 && unsigned.starts_with(end) {
            let length = text.len() - unsigned.len() + end.len();
            return Ok((tokens, &text[at..length], length));
        }
        let first = trimmed.chars().next().ok_or("has a tag without an end")?;
        let while_letters =
            |is_part: &dyn Fn(char) -> bool| trimmed.find(|letter| !is_part(letter)).unwrap_or(trimmed.len());
        let (kind, length) = match first {
            '"' | '\'' => (Kind::String, string_length(trimmed, first).ok_or("has a string without an end")?),
            '0'..='9' => {
                let whole = while_letters(&|letter| letter.is_ascii_alphanumeric() || letter == '_');
                let after = trimmed[whole..].strip_prefix('.').unwrap_or_default();
                let fraction =
                    after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                let has_fraction = after.starts_with(|c: char| c.is_ascii_digit());
                (Kind::Number, whole + if has_fraction { 1 + fraction } else { 0 })
            }
            letter if letter.is_alphabetic() || letter == '_' => {
                (Kind::Name, while_letters(&|letter| letter.is_alphanumeric() || letter == '_'))
            }
            letter => {
                match letter {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                let is_double =
                    ["**", "//", "==", "!=", "<=", ">="].iter().any(|two| trimmed.starts_with(two));
                (Kind::Operator, if is_double { 2 } else { letter.len_utf8() })
            }
        };
        tokens.push(Token { kind, text: &trimmed[..length], blanks });
        at = text.len() - trimmed.len() + length;
    }
}

/// The length of the quoted string at the beginning of `text`.
fn string_length(text: &str, mark: char) -> Option<usize> {
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => {
                letters.next();
            }
            letter if letter == mark => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Converts a quoted string with the escapes of Python to one that the engine reads as the same text.
pub(super) fn string(quoted: &str) -> Result<String, String> {
    let text = unescape(&quoted[1..quoted.len() - 1])?;
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            out.push(letter);
            continue;
        }
        let wrong = |code: char| format!("has a string with an invalid escape \\{code}");
        match letters.next().unwrap_or('\\') {
            '\n' => {}
            mark @ ('\\' | '\'' | '"') => out.push(mark),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\u{b}'),
            'x' => out.push(code(&mut letters, 16, 2, 2).ok_or_else(|| wrong('x'))?),
            'u' => out.push(code(&mut letters, 16, 4, 4).ok_or_else(|| wrong('u'))?),
            'U' => out.push(code(&mut letters, 16, 8, 8).ok_or_else(|| wrong('U'))?),
            'N' => return Err(wrong('N')),
            digit @ '0'..='7' => {
                let mut all = String::from(digit).chars().chain(letters.clone()).collect::<String>();
                all.truncate(all.find(|c: char| !c.is_digit(8)).unwrap_or(all.len()).min(3));
                (1..all.len()).for_each(|_| {
                    letters.next();
                });
                out.extend(u32::from_str_radix(&all, 8).ok().and_then(char::from_u32));
            }
            other => out.extend(['\\', other]),
        }
    }
    Ok(out)
}

/// The character with the code of the next `least` to `most` digits.
fn code(letters: &mut Peekable<Chars>, radix: u32, least: usize, most: usize) -> Option<char> {
    let mut digits = String::new();
    while digits.len() < most && letters.peek().is_some_and(|letter| letter.is_digit(radix)) {
        digits.extend(letters.next());
    }
    let number = u32::from_str_radix(&digits, radix).ok().filter(|_| digits.len() >= least)?;
    char::from_u32(number)
}
