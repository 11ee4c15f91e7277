//! Parser for Python literals as `repr` writes them: lists, tuples, dicts, strings, numbers, None, True and False.
//!
//! Not supported: sets, bytes, f-strings, complex and non-decimal numbers, named characters (`\N{…}`).

/// Maximum nesting depth.
const DEEPEST: usize = 32;

/// A literal.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A number, as written.
    Number(String),
    /// A string.
    Text(String),
    /// A list or a tuple.
    List(Vec<Literal>),
    /// A dict in source order.
    Dict(Vec<(Literal, Literal)>),
}

impl Literal {
    /// The value of a key; the last one if the key is repeated.
    pub fn get(&self, key: &str) -> Option<&Literal> {
        let Literal::Dict(pairs) = self else { return None };
        pairs
            .iter()
            .rev()
            .find(|(name, _)| matches!(name, Literal::Text(name) if name == key))
            .map(|(_, v)| v)
    }

    /// A string, or a number as written.
    pub fn text(&self) -> Option<&str> {
        match self {
            Literal::Text(text) | Literal::Number(text) => Some(text),
            _ => None,
        }
    }
}

/// Parses the whole of `text` as one literal.
pub fn parse(text: &str) -> Result<Literal, String> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    parser.skip_space();
    match parser.peek() {
        None => Ok(value),
        Some(c) => Err(parser.wrong(format!("found {c:?} after the end of the literal"))),
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Position of the next byte, always at a character boundary.
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Skips `expected` if it comes next.
    fn skip(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    /// Takes the next characters that satisfy `is`.
    fn take_while(&mut self, is: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !is(c)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn skip_space(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            if self.peek() != Some('#') {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    /// An error message with the position of the next character.
    fn wrong(&self, problem: impl std::fmt::Display) -> String {
        format!("character {}: {problem}", self.text[..self.at].chars().count() + 1)
    }

    fn value(&mut self, depth: usize) -> Result<Literal, String> {
        if depth > DEEPEST {
            return Err(self.wrong(format!("nested deeper than {DEEPEST}")));
        }
        self.skip_space();
        match self.peek() {
            None => Err(self.wrong("ends where a literal should begin")),
            Some('[') => Ok(Literal::List(self.sequence(']', depth)?.0)),
            Some('(') => {
                let (mut values, comma) = self.sequence(')', depth)?;
                // Without a comma, the parentheses only group.
                Ok(if values.len() == 1 && !comma { values.remove(0) } else { Literal::List(values) })
            }
            Some('{') => self.dict(depth),
            Some(c) if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => self.number(),
            Some(_) => match self.string_start() {
                Some(_) => self.strings(),
                None => self.name(),
            },
        }
    }

    /// Parses comma-separated values up to `close`, and returns whether a comma followed the last one.
    fn sequence(&mut self, close: char, depth: usize) -> Result<(Vec<Literal>, bool), String> {
        self.next();
        let mut values = Vec::new();
        let mut comma = false;
        loop {
            self.skip_space();
            match self.peek() {
                Some(c) if c == close => {
                    self.next();
                    return Ok((values, comma));
                }
                Some(_) if values.is_empty() || comma => values.push(self.value(depth + 1)?),
                found => return Err(self.expected(&format!("`,` or `{close}`"), found)),
            }
            self.skip_space();
            comma = self.skip(",");
        }
    }

    fn dict(&mut self, depth: usize) -> Result<Literal, String> {
        self.next();
        let mut pairs = Vec::new();
        let mut comma = true;
        loop {
            self.skip_space();
            match self.peek() {
                Some('}') => {
                    self.next();
                    return Ok(Literal::Dict(pairs));
                }
                Some(_) if comma => {
                    let key = self.value(depth + 1)?;
                    self.skip_space();
                    if !self.skip(":") {
                        return Err(self.expected("`:`", self.peek()));
                    }
                    pairs.push((key, self.value(depth + 1)?));
                }
                found => return Err(self.expected("`,` or `}`", found)),
            }
            self.skip_space();
            comma = self.skip(",");
        }
    }

    fn expected(&self, expected: &str, found: Option<char>) -> String {
        match found {
            Some(c) => self.wrong(format!("found {c:?}, expected {expected}")),
            None => self.wrong(format!("ends, expected {expected}")),
        }
    }

    fn number(&mut self) -> Result<Literal, String> {
        let start = self.at;
        self.take_while(|c| matches!(c, '+' | '-'));
        let mut before = ' ';
        while let Some(c) = self.peek() {
            let exponent = matches!(c, '+' | '-') && matches!(before, 'e' | 'E');
            if !(c.is_alphanumeric() || matches!(c, '_' | '.') || exponent) {
                break;
            }
            before = c;
            self.next();
        }
        let written = &self.text[start..self.at];
        // Rust also parses `inf` and `nan`, which are names in Python.
        let is_decimal = !written.contains(|c: char| c.is_alphabetic() && !matches!(c, 'e' | 'E'));
        if !is_decimal || written.replace('_', "").parse::<f64>().is_err() {
            self.at = start;
            return Err(self.wrong(format!("`{}` is not a decimal number", super::place::shown(written))));
        }
        Ok(Literal::Number(written.into()))
    }

    fn name(&mut self) -> Result<Literal, String> {
        let start = self.at;
        let name = self.take_while(|c| c.is_alphanumeric() || c == '_');
        match name {
            "None" => Ok(Literal::None),
            "True" => Ok(Literal::Bool(true)),
            "False" => Ok(Literal::Bool(false)),
            _ => {
                self.at = start;
                let found = if name.is_empty() { self.rest() } else { name };
                Err(self.wrong(format!("`{}` is not a literal", super::place::shown(found))))
            }
        }
    }

    /// The prefix of a string that comes next; `None` if no string does.
    fn string_start(&self) -> Option<&'a str> {
        let rest = self.rest();
        // A prefix has at most two letters. A longer search would make parsing quadratic.
        let length = rest.bytes().take(3).position(|byte| matches!(byte, b'\'' | b'"'))?;
        let prefix = &rest[..length];
        prefix.chars().all(|c| matches!(c.to_ascii_lowercase(), 'r' | 'u' | 'b' | 'f')).then_some(prefix)
    }

    /// One string, or adjacent strings joined.
    fn strings(&mut self) -> Result<Literal, String> {
        let mut text = String::new();
        while let Some(prefix) = self.string_start() {
            let raw = match prefix {
                "" | "u" | "U" => false,
                "r" | "R" => true,
                other => {
                    return Err(self.wrong(format!("a string with the prefix `{other}` is not supported")));
                }
            };
            self.at += prefix.len();
            self.string(raw, &mut text)?;
            self.skip_space();
        }
        Ok(Literal::Text(text))
    }

    fn string(&mut self, raw: bool, text: &mut String) -> Result<(), String> {
        let start = self.at;
        let quote = if self.rest().starts_with('\'') { "'" } else { "\"" };
        let triple = quote.repeat(3);
        let long = self.skip(&triple);
        let close = if long { triple.as_str() } else { quote };
        if !long {
            self.skip(quote);
        }
        loop {
            if self.skip(close) {
                return Ok(());
            }
            match self.next() {
                Some('\\') if raw => {
                    text.push('\\');
                    text.extend(self.next());
                }
                Some('\\') => self.escape(text)?,
                Some('\n') if !long => break,
                Some(c) => text.push(c),
                None => break,
            }
        }
        self.at = start;
        Err(self.wrong("a string that does not end"))
    }

    /// Parses the escape sequence after a backslash.
    fn escape(&mut self, text: &mut String) -> Result<(), String> {
        let Some(c) = self.next() else { return Ok(()) };
        let meant = match c {
            '\n' => return Ok(()),
            '\\' | '\'' | '"' => c,
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '0'..='7' => {
                let mut code = c as u32 - '0' as u32;
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else { break };
                    code = code * 8 + digit;
                    self.next();
                }
                self.character(code)?
            }
            'x' => {
                let code = self.hex(2)?;
                self.character(code)?
            }
            'u' => {
                let mut code = self.hex(4)?;
                // A surrogate pair, as JSON escapes characters beyond the first plane.
                if (0xd800..0xdc00).contains(&code) && self.skip("\\u") {
                    let low = self.hex(4)?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return Err(self.wrong("half a character (a lone surrogate)"));
                    }
                    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                }
                self.character(code)?
            }
            'U' => {
                let code = self.hex(8)?;
                self.character(code)?
            }
            'N' => return Err(self.wrong("a named character (`\\N{…}`) is not supported")),
            // As in Python, an unknown escape keeps its backslash.
            other => {
                text.push('\\');
                other
            }
        };
        text.push(meant);
        Ok(())
    }

    fn hex(&mut self, digits: usize) -> Result<u32, String> {
        let mut code: u32 = 0;
        for _ in 0..digits {
            let digit = self.peek().and_then(|c| c.to_digit(16));
            let digit = digit.ok_or_else(|| self.wrong(format!("expected {digits} hexadecimal digits")))?;
            code = (code << 4) | digit;
            self.next();
        }
        Ok(code)
    }

    fn character(&self, code: u32) -> Result<char, String> {
        char::from_u32(code).ok_or_else(|| self.wrong(format!("{code:#x} is not a character")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Literal {
        Literal::Text(text.into())
    }

    #[test]
    fn literals_are_read_as_python_reads_them() {
        for (written, expected) in [
            ("'a'", text("a")),
            (r#"  "it's"  # and more"#, text("it's")),
            (r"'it\'s \x41\u00e9\101\n\q'", text("it's AéA\n\\q")),
            (r"'\U0001F600 \ud83d\ude00'", text("😀 😀")),
            (r"r'\n' u'\t'", text("\\n\t")),
            ("'''a\n'b' '' '''", text("a\n'b' '' ")),
            ("'a' \"b\"\n'c'", text("abc")),
            ("'a\\\nb'", text("ab")),
            ("''", text("")),
            ("-1_000.5e-3", Literal::Number("-1_000.5e-3".into())),
            (".5", Literal::Number(".5".into())),
            ("None", Literal::None),
            ("[True, False,]", Literal::List(vec![Literal::Bool(true), Literal::Bool(false)])),
            ("('a')", text("a")),
            ("('a',)", Literal::List(vec![text("a")])),
            ("()", Literal::List(vec![])),
            ("{}", Literal::Dict(vec![])),
            ("{'a': [1], 2: 'b',}", {
                let number = |written: &str| Literal::Number(written.into());
                Literal::Dict(vec![(text("a"), Literal::List(vec![number("1")])), (number("2"), text("b"))])
            }),
        ] {
            assert_eq!(parse(written), Ok(expected), "{written}");
        }
        let twice = parse("{'a': 'x', 'a': 'y', 'n': 3}").unwrap();
        assert_eq!(twice.get("a").and_then(Literal::text), Some("y"));
        assert_eq!(twice.get("n").and_then(Literal::text), Some("3"));
        assert_eq!(twice.get("missing"), None);
    }

    #[test]
    fn invalid_literals_are_refused_with_their_position() {
        for (written, named) in [
            ("", "character 1"),
            ("nan", "`nan` is not a literal"),
            ("[1, 2", "character 6"),
            ("[1 2]", "character 4"),
            ("[,]", "character 2"),
            ("{'a'}", "expected `:`"),
            ("{'a': }", "character 7"),
            ("{,}", "character 2"),
            ("'é", "character 1: a string that does not end"),
            ("'a\nb'", "does not end"),
            ("'''a''", "does not end"),
            ("'a\\", "does not end"),
            (r"'\x4'", "hexadecimal"),
            (r"'\ud83d'", "is not a character"),
            (r"'\ud83d\u0041'", "lone surrogate"),
            (r"'\Uffffffff'", "is not a character"),
            (r"'\N{DASH}'", "named character"),
            ("b'a'", "prefix `b`"),
            ("f'{a}'", "prefix `f`"),
            ("0x1F", "not a decimal number"),
            ("1inf", "not a decimal number"),
            ("-inf", "not a decimal number"),
            ("-", "not a decimal number"),
            ("1 + 2j", "after the end"),
            ("__import__('os')", "is not a literal"),
            ("[1]]", "after the end"),
            ("\u{0}", "character 1"),
        ] {
            let problem = parse(written).expect_err(written);
            assert!(problem.contains(named), "{written:?}: {problem}");
        }
    }

    #[test]
    fn nesting_depth_is_limited() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(DEEPEST)).is_ok());
        for hostile in [nested(100_000), "[".repeat(1_000_000), "{(".repeat(500_000), "{0:".repeat(500_000)] {
            assert!(parse(&hostile).unwrap_err().contains("nested deeper"));
        }
        assert_eq!(parse(&"'a' ".repeat(10_000)), Ok(text(&"a".repeat(10_000))));
        // This length takes a quadratic parser too long.
        assert!(parse(&format!("[{}]", "None, ".repeat(200_000))).is_ok());
    }

    #[test]
    fn no_part_of_a_literal_makes_the_parser_panic() {
        let whole = r#"[{"Q": 'é\u00e9\x41?', 'option1': r"\d", 'n': -1.5e3, 'b': (True, None,)}] # 'end"#;
        for end in 0..=whole.len() {
            for start in 0..end {
                if let Some(piece) = whole.get(start..end) {
                    let _ = parse(piece);
                }
            }
        }
    }
}
