//! The text of a template, rewritten before the engine compiles it.
//!
//! - transformers' own tag, `{% generation %}`, becomes a call block of the function [`GENERATION`].
//! - Operations whose time or memory grows with a value pay for the value first (see [`super::limits`]): `a ~ b` becomes
//!   `a|paid ~ b|paid`.
//! - The escapes in strings are those of Python.

use std::iter::Peekable;
use std::str::Chars;

/// The function that a generation block calls.
pub(super) const GENERATION: &str = "__generation";
/// The filter of [`super::limits::paid`].
pub(super) const PAID: &str = "__paid";
/// The filter of [`super::limits::paid_if_text`].
pub(super) const PAID_IF_TEXT: &str = "__paid_if_text";
/// The filter of [`super::limits::factor`].
pub(super) const FACTOR: &str = "__factor";
/// The operators whose operands are paid for.
const OPERATORS: [&str; 10] = ["~", "+", "*", "==", "!=", "<", "<=", ">", ">=", "in"];
/// The words that are no operands.
const KEYWORDS: [&str; 7] = ["and", "or", "not", "in", "is", "if", "else"];
/// The filters that take no longer for a longer value, or pay by themselves.
const FREE: [&str; 9] = ["length", "count", "first", "last", "default", "d", "string", "tojson", "join"];
/// The most tokens of a tag: the engine goes as deep into a chain of operators as it is long.
const MOST_TOKENS: usize = 1000;
/// The most `elif` of a template: the engine goes as deep as they are many.
const MOST_ELIFS: usize = 300;
/// Brackets within brackets, at most.
const MOST_DEPTH: usize = 40;

/// A template that the engine can compile.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub(super) source: String,
    /// Whether it has generation blocks.
    pub(super) has_generation: bool,
    /// The bytes of the longest stretch of text outside its tags.
    pub(super) longest_literal: usize,
    elifs: usize,
}

/// Rewrites a template, or says what is wrong with it.
pub(super) fn rewrite(source: &str) -> Result<Rewritten, String> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut rewritten = Rewritten {
        source: String::with_capacity(2 * source.len()),
        has_generation: false,
        longest_literal: 0,
        elifs: 0,
    };
    let mut rest = source.as_str();
    loop {
        let begin = rest.match_indices('{').map(|(at, _)| at);
        let begin = begin.into_iter().find(|at| rest[at + 1..].starts_with(['{', '%', '#']));
        let literal = &rest[..begin.unwrap_or(rest.len())];
        rewritten.longest_literal = rewritten.longest_literal.max(literal.len());
        rewritten.source.push_str(literal);
        let Some(begin) = begin else { return Ok(rewritten) };
        let tag = &rest[begin..];
        let line = || source[..source.len() - tag.len()].matches('\n').count() + 1;
        let length = match &tag[..2] {
            "{#" => {
                let end = tag
                    .find("#}")
                    .ok_or_else(|| format!("has a comment without an end (line {})", line()))?;
                rewritten.source.push_str(&tag[..end + 2]);
                end + 2
            }
            _ => match raw_block(tag) {
                Some(length) => {
                    rewritten.longest_literal = rewritten.longest_literal.max(length);
                    rewritten.source.push_str(&tag[..length]);
                    length
                }
                None => rewrite_tag(tag, &mut rewritten)
                    .map_err(|problem| format!("{problem} (line {})", line()))?,
            },
        };
        rest = &tag[length..];
    }
}

/// The length of the raw block at the beginning of `text`, where there is one: from its first tag to the end of its last.
fn raw_block(text: &str) -> Option<usize> {
    /// What follows a tag that holds one word alone.
    fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
        let text = text.strip_prefix("{%")?;
        let text =
            text.strip_prefix(['-', '+']).unwrap_or(text).trim_start().strip_prefix(word)?.trim_start();
        text.strip_prefix(['-', '+']).unwrap_or(text).strip_prefix("%}")
    }
    let mut inside = after(text, "raw")?;
    while let Some(at) = inside.find("{%") {
        if let Some(rest) = after(&inside[at..], "endraw") {
            return Some(text.len() - rest.len());
        }
        inside = &inside[at + 2..];
    }
    None
}

/// Rewrites the tag at the beginning of `text`, and says how long it is.
fn rewrite_tag(text: &str, rewritten: &mut Rewritten) -> Result<usize, String> {
    let is_statement = text.starts_with("{%");
    let opening = if text[2..].starts_with(['-', '+']) { &text[..3] } else { &text[..2] };
    let (tokens, closing, length) = tokens(text, opening.len(), if is_statement { "%}" } else { "}}" })?;
    let mut writer = Writer { tokens: &tokens, at: 0, depth: 0, out: opening.to_owned() };
    if is_statement {
        rewritten.elifs += usize::from(writer.is_next("elif"));
        if rewritten.elifs > MOST_ELIFS {
            return Err(format!("has more than {MOST_ELIFS} tags `elif`"));
        }
        rewritten.has_generation |= writer.statement()?;
    } else {
        writer.expressions(None)?;
    }
    if let Some(token) = writer.tokens.get(writer.at) {
        return Err(format!("has a {:?} without its counterpart", token.text));
    }
    // A literal is not to join with a bracket before it.
    rewritten.source.push_str(&writer.out);
    rewritten.source.push_str(closing);
    Ok(length)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Name,
    Number,
    String,
    Operator,
}

/// A token of a tag, with the blanks before it.
#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    kind: Kind,
    text: &'a str,
    blanks: &'a str,
}

/// The tokens of a tag from byte `at` on; what closes it, blanks included; and how long it is.
fn tokens<'a>(text: &'a str, mut at: usize, end: &str) -> Result<(Vec<Token<'a>>, &'a str, usize), String> {
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

/// The length of the string in quotes at the beginning of `text`.
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

/// Writes the tokens of a tag.
struct Writer<'a> {
    tokens: &'a [Token<'a>],
    /// The next token.
    at: usize,
    depth: usize,
    out: String,
}

impl<'a> Writer<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    fn is_next(&self, text: &str) -> bool {
        self.peek().is_some_and(|token| token.kind != Kind::String && token.text == text)
    }

    /// Writes the next token as it stands.
    fn copy(&mut self) -> Result<(), String> {
        let Some(token) = self.peek() else { return Ok(()) };
        self.at += 1;
        self.out.push_str(token.blanks);
        match token.kind {
            Kind::String => self.out.push_str(&string(token.text)?),
            _ => self.out.push_str(token.text),
        }
        Ok(())
    }

    /// Writes what is up to one of these words or signs outside brackets as it stands.
    fn copy_until(&mut self, ends: &[&str]) -> Result<(), String> {
        let mut depth = 0usize;
        while let Some(token) = self.peek() {
            match token.text {
                text if depth == 0 && token.kind != Kind::String && ends.contains(&text) => break,
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.copy()?;
        }
        Ok(())
    }

    /// Writes a statement; whether it begins a generation block.
    fn statement(&mut self) -> Result<bool, String> {
        let Some(first) = self.peek() else { return Ok(false) };
        match first.text {
            "generation" | "endgeneration" if self.tokens.len() == 1 => {
                let is_beginning = first.text == "generation";
                let word = if is_beginning { format!("call {GENERATION}()") } else { "endcall".into() };
                self.out.push_str(first.blanks);
                self.out.push_str(&word);
                self.at += 1;
                return Ok(is_beginning);
            }
            "include" | "import" | "from" | "extends" => {
                return Err(format!("has a tag `{}`, and there is no other template", first.text));
            }
            "set" => {
                self.copy_until(&["="])?;
                if self.is_next("=") {
                    self.copy()?;
                    self.paid_for(PAID, &[])?;
                    return Ok(false);
                }
            }
            "for" => {
                self.copy_until(&["in"])?;
                self.copy()?;
                self.paid_for(PAID_IF_TEXT, &["if", "recursive"])?;
            }
            "call" => {
                self.copy()?;
                if self.is_next("(") {
                    self.copy_until(&[")"])?;
                }
            }
            _ => self.copy()?,
        }
        self.expressions(None)?;
        Ok(false)
    }

    /// Writes the expressions up to one of the words outside brackets as one that is paid for.
    fn paid_for(&mut self, filter: &str, ends: &[&str]) -> Result<(), String> {
        let begin = self.at;
        let mut depth = 0usize;
        let outside = |token: &&Token| {
            match token.text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth > 0 || token.kind != Kind::Name || !ends.contains(&token.text)
        };
        let end = begin + self.tokens[begin..].iter().take_while(outside).count();
        let all = self.tokens;
        self.tokens = &all[..end];
        self.out.push_str(" (");
        let outcome = self.expressions(None);
        self.tokens = all;
        outcome?;
        self.out.push_str(&format!(")|{filter}"));
        Ok(())
    }

    /// Writes expressions up to a closing bracket, or to the end. Whether there is a comma, and whether there is a colon.
    fn expressions(&mut self, closing: Option<&str>) -> Result<(bool, bool), String> {
        let (mut has_comma, mut has_colon) = (false, false);
        // The operator before the operand that comes next, and whether an operand came last.
        let (mut operator, mut is_operand) = ("", false);
        while let Some(token) = self.peek() {
            if closing.is_some_and(|closing| self.is_next(closing)) {
                break;
            }
            let is_keyword = token.kind == Kind::Name && KEYWORDS.contains(&token.text);
            if token.kind == Kind::Operator && [")", "]", "}"].contains(&token.text) {
                break;
            }
            if is_keyword || (token.kind == Kind::Operator && !["(", "[", "{"].contains(&token.text)) {
                has_comma |= token.text == ",";
                has_colon |= token.text == ":";
                // A sign belongs to the operand behind it.
                let is_sign = !is_operand && ["-", "+"].contains(&token.text);
                operator = if is_sign { operator } else { token.text };
                is_operand = false;
                self.copy()?;
                if token.text == "is" {
                    self.test()?;
                }
                continue;
            }
            let begin = self.out.len();
            self.operand()?;
            let is_before_in =
                self.is_next("not") && self.tokens.get(self.at + 1).is_some_and(|token| token.text == "in");
            let next = self.peek().filter(|token| token.kind != Kind::String);
            let is_before = next.is_some_and(|token| OPERATORS.contains(&token.text));
            if self.out.len() > begin && (OPERATORS.contains(&operator) || is_before || is_before_in) {
                let repeats = operator == "*" || self.is_next("*");
                self.out.push_str(&format!("|{}", if repeats { FACTOR } else { PAID }));
            }
            (operator, is_operand) = ("", true);
        }
        Ok((has_comma, has_colon))
    }

    /// Writes the name of a test, behind `is`, and its arguments in brackets.
    fn test(&mut self) -> Result<(), String> {
        if self.is_next("not") {
            self.copy()?;
        }
        self.copy()?;
        if self.is_next("(") { self.bracket(")").map(drop) } else { Ok(()) }
    }

    /// Writes a bracket and what is in it; as [`Self::expressions`].
    fn bracket(&mut self, closing: &str) -> Result<(bool, bool), String> {
        self.depth += 1;
        if self.depth > MOST_DEPTH {
            return Err(format!("has brackets nested deeper than {MOST_DEPTH}"));
        }
        self.copy()?;
        let inside = self.expressions(Some(closing))?;
        if !self.is_next(closing) {
            return Err(format!("has a bracket without its {closing:?}"));
        }
        self.copy()?;
        self.depth -= 1;
        Ok(inside)
    }

    /// Writes an operand: a literal, a name or brackets, and what is looked up in it, called of it and filtered from it.
    fn operand(&mut self) -> Result<(), String> {
        let Some(token) = self.peek() else { return Ok(()) };
        let begin = self.out.len();
        match token.text {
            "(" if token.kind == Kind::Operator => {
                let (is_tuple, _) = self.bracket(")")?;
                if is_tuple {
                    self.wrap(begin);
                }
            }
            "[" | "{" if token.kind == Kind::Operator => {
                self.bracket(if token.text == "[" { "]" } else { "}" })?;
                self.wrap(begin);
            }
            _ => {
                self.copy()?;
                while token.kind == Kind::String && self.peek().is_some_and(|next| next.kind == Kind::String)
                {
                    self.copy()?;
                }
            }
        }
        loop {
            if self.is_next(".") {
                self.copy()?;
                self.copy()?;
            } else if self.is_next("(") {
                self.bracket(")")?;
            } else if self.is_next("[") {
                let before = self.out.len();
                let (_, is_slice) = self.bracket("]")?;
                if is_slice {
                    let slice = self.out.split_off(before);
                    self.wrap(begin);
                    self.out.push_str(&slice);
                }
            } else if self.is_next("|") {
                let is_free = self.tokens.get(self.at + 1).is_some_and(|name| FREE.contains(&name.text));
                if !is_free {
                    self.out.push_str(&format!("|{PAID}"));
                }
                self.copy()?;
                self.copy()?;
            } else {
                return Ok(());
            }
        }
    }

    /// Has what was written from `begin` on paid for.
    fn wrap(&mut self, begin: usize) {
        let inner = self.out.split_off(begin);
        self.out.push_str(&format!(" ({inner}|{PAID})"));
    }
}

/// A string with the escapes of Python, as one that the engine reads alike.
fn string(quoted: &str) -> Result<String, String> {
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
        let wrong = |code: char| format!("has a string with an escape \\{code} that stands for no letter");
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

/// The letter of a number of so many digits.
fn code(letters: &mut Peekable<Chars>, radix: u32, least: usize, most: usize) -> Option<char> {
    let mut digits = String::new();
    while digits.len() < most && letters.peek().is_some_and(|letter| letter.is_digit(radix)) {
        digits.extend(letters.next());
    }
    let number = u32::from_str_radix(&digits, radix).ok().filter(|_| digits.len() >= least)?;
    char::from_u32(number)
}
