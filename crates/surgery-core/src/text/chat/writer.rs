//! Rewriting of a tag: operands are charged for, and operations that the engine lacks are replaced.

use super::tokens::{Kind, Token, string};

/// The function that a generation block calls.
pub(super) const GENERATION: &str = "__generation";
/// The filter of [`super::limits::paid`].
pub(super) const PAID: &str = "__paid";
/// The filter of [`super::limits::paid_if_text`].
pub(super) const PAID_IF_TEXT: &str = "__paid_if_text";
/// The filter `item` of [`super::functions`].
pub(super) const ITEM: &str = "__item";
/// The filter of [`super::limits::factor`].
pub(super) const FACTOR: &str = "__factor";
/// The operators whose operands are charged for.
const OPERATORS: [&str; 10] = ["~", "+", "*", "==", "!=", "<", "<=", ">", ">=", "in"];
/// The words that are not operands.
const KEYWORDS: [&str; 7] = ["and", "or", "not", "in", "is", "if", "else"];
/// The filters that need no charge: their time does not depend on the value, or they charge for it themselves.
const FREE: [&str; 9] = ["length", "count", "first", "last", "default", "d", "string", "tojson", "join"];
/// Maximum depth of brackets within brackets.
const MOST_DEPTH: usize = 40;

/// Writes the tokens of a tag.
pub(super) struct Writer<'a> {
    pub(super) tokens: &'a [Token<'a>],
    /// The next token.
    pub(super) at: usize,
    pub(super) depth: usize,
    pub(super) out: String,
}

impl<'a> Writer<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).copied()
    }

    pub(super) fn is_next(&self, text: &str) -> bool {
        self.peek().is_some_and(|token| token.kind != Kind::String && token.text == text)
    }

    /// Copies the next token.
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

    /// Copies the tokens before the first of `ends` outside brackets.
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

    /// Writes a statement. Returns whether it begins a generation block.
    pub(super) fn statement(&mut self) -> Result<bool, String> {
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

    /// Writes the expressions before the first of `ends` outside brackets, in parentheses and with the charge `filter`.
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

    /// Writes expressions up to a closing bracket, or to the end. Returns whether there is a comma, and whether there is a
    /// colon.
    pub(super) fn expressions(&mut self, closing: Option<&str>) -> Result<(bool, bool), String> {
        let (mut has_comma, mut has_colon) = (false, false);
        // The operator before the next operand, and whether the last token was an operand.
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
                // A sign belongs to the next operand.
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

    /// Writes the name of a test after `is`, and its arguments in brackets.
    fn test(&mut self) -> Result<(), String> {
        if self.is_next("not") {
            self.copy()?;
        }
        self.copy()?;
        if self.is_next("(") { self.bracket(")").map(drop) } else { Ok(()) }
    }

    /// Writes brackets and the expressions in them. Returns the same as [`Self::expressions`].
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

    /// Writes an operand: a literal, a name or brackets, followed by attributes, subscripts, calls and filters.
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
                let is_name = self.tokens.get(self.at + 1).is_some_and(|token| token.kind == Kind::String);
                let (_, is_slice) = self.bracket("]")?;
                let brackets = self.out.split_off(before);
                if is_slice {
                    self.wrap(begin);
                    self.out.push_str(&brackets);
                } else if is_name {
                    self.out.push_str(&brackets);
                } else {
                    // The engine has no subscripts of texts.
                    let value = self.out.split_off(begin);
                    let key = brackets.trim_start();
                    self.out.push_str(&format!(" ({value}|{ITEM}({}))", &key[1..key.len() - 1]));
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

    /// Adds a charge for the output from `begin` on.
    fn wrap(&mut self, begin: usize) {
        let inner = self.out.split_off(begin);
        self.out.push_str(&format!(" ({inner}|{PAID})"));
    }
}
