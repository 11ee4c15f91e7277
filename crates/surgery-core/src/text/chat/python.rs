//! Formatting of values as in Python: `str`, `repr` and `json.dumps`.

use std::fmt::Write;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use super::limits::{MOST_DEPTH, spend, too_deep};

/// Python's `str(value)`; empty for an undefined value.
pub(super) fn string(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    match value.as_str() {
        Some(text) => {
            spend(text.len())?;
            out.push_str(text);
        }
        None if value.is_undefined() => {}
        None => repr(value, 0, &mut out)?,
    }
    Ok(out)
}

fn repr(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > MOST_DEPTH {
        return Err(too_deep());
    }
    let before = out.len();
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => out.push_str(&number(value)),
        ValueKind::String => quote(value.as_str().unwrap_or_default(), out)?,
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (index, item) in value.try_iter()?.enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                repr(&item, depth + 1, out)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                repr(&key, depth + 1, out)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, depth + 1, out)?;
            }
            out.push('}');
        }
        _ => out.push_str("<object>"),
    }
    // Nested values were charged already. Charging them again limits the depth, too.
    spend(1 + out.len() - before)
}

/// A number: `1`, `1.0`, `1e+16`.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(number) = f64::try_from(value.clone()) else { return value.to_string() };
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".into() } else { "-inf".into() };
    }
    // Rust's `Debug` uses exponents for the same numbers as Python, but in a shorter form.
    let shown = format!("{number:?}");
    match shown.split_once('e') {
        None => shown,
        Some((mantissa, exponent)) => {
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            format!("{}e{sign}{digits:0>2}", mantissa.strip_suffix(".0").unwrap_or(mantissa))
        }
    }
}

/// A text in quotes, as in `repr`.
fn quote(text: &str, out: &mut String) -> Result<(), Error> {
    spend(text.len())?;
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for letter in text.chars() {
        match letter {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            letter if letter == mark => out.extend(['\\', letter]),
            letter if letter.is_control() => {
                write!(out, "\\x{:02x}", letter as u32).expect("a text can grow");
            }
            letter => out.push(letter),
        }
    }
    out.push(mark);
    Ok(())
}

/// The settings of `json.dumps`.
struct Json {
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    separators: (String, String),
}

/// transformers' filter `tojson`: `json.dumps` with four of its arguments, by position or by name.
pub(super) fn tojson(value: &Value, positional: &[Value], named: &Kwargs) -> Result<String, Error> {
    const NAMES: [&str; 4] = ["ensure_ascii", "indent", "separators", "sort_keys"];
    if positional.len() > NAMES.len() {
        return Err(Error::new(ErrorKind::TooManyArguments, "tojson takes four arguments"));
    }
    let argument = |index: usize| -> Result<Option<Value>, Error> {
        let given = match positional.get(index) {
            Some(value) => Some(value.clone()),
            None => named.get::<Option<Value>>(NAMES[index])?,
        };
        Ok(given.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let flag = |index| Ok::<_, Error>(argument(index)?.is_some_and(|value| value.is_true()));
    let indent = match argument(1)? {
        None => None,
        Some(value) => Some(match (value.as_str(), value.as_usize()) {
            (Some(text), _) => text.to_owned(),
            (None, Some(width)) if width <= 256 => " ".repeat(width),
            _ => return Err(Error::new(ErrorKind::InvalidOperation, "tojson: an indent that is too wide")),
        }),
    };
    let separators = match argument(2)? {
        Some(pair) => (string(&pair.get_item_by_index(0)?)?, string(&pair.get_item_by_index(1)?)?),
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let json = Json { ensure_ascii: flag(0)?, sort_keys: flag(3)?, indent, separators };
    named.assert_all_used()?;
    let mut out = String::new();
    json.write(value, 0, &mut out)?;
    Ok(out)
}

impl Json {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > MOST_DEPTH {
            return Err(too_deep());
        }
        let before = out.len();
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&match number(value).as_str() {
                "nan" => "NaN".to_owned(),
                "inf" => "Infinity".to_owned(),
                "-inf" => "-Infinity".to_owned(),
                number => number.to_owned(),
            }),
            ValueKind::String => self.quote(value.as_str().unwrap_or_default(), out)?,
            ValueKind::Seq | ValueKind::Iterable => {
                out.push('[');
                let mut is_empty = true;
                for item in value.try_iter()? {
                    self.begin_item(&mut is_empty, depth, out);
                    self.write(&item, depth + 1, out)?;
                }
                self.end(is_empty, depth, ']', out);
            }
            ValueKind::Map => {
                out.push('{');
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                let mut is_empty = true;
                for key in keys {
                    self.begin_item(&mut is_empty, depth, out);
                    match key.as_str() {
                        Some(text) => self.quote(text, out)?,
                        None => {
                            let mut text = String::new();
                            self.write(&key, MOST_DEPTH, &mut text)?;
                            self.quote(&text, out)?;
                        }
                    }
                    out.push_str(&self.separators.1);
                    self.write(&value.get_item(&key)?, depth + 1, out)?;
                }
                self.end(is_empty, depth, '}', out);
            }
            kind => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("tojson: {kind} has no form in JSON"),
                ));
            }
        }
        spend(1 + out.len() - before)
    }

    fn begin_item(&self, is_empty: &mut bool, depth: usize, out: &mut String) {
        if !*is_empty {
            out.push_str(&self.separators.0);
        }
        *is_empty = false;
        self.new_line(depth + 1, out);
    }

    fn end(&self, is_empty: bool, depth: usize, mark: char, out: &mut String) {
        if !is_empty {
            self.new_line(depth, out);
        }
        out.push(mark);
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    fn quote(&self, text: &str, out: &mut String) -> Result<(), Error> {
        spend(text.len())?;
        out.push('"');
        for letter in text.chars() {
            match letter {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                letter if letter < ' ' || (self.ensure_ascii && !(' '..='~').contains(&letter)) => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        write!(out, "\\u{unit:04x}").expect("a text can grow");
                    }
                }
                letter => out.push(letter),
            }
        }
        out.push('"');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::begin;
    use super::*;

    #[test]
    fn values_are_written_as_python_writes_them() {
        begin(0);
        let value = Value::from_serialize(serde_json::json!({
            "b": [true, null, 1, 1.0, 0.5, 1e16, 1e-7, 1e300], "a": "it's \"ü\"\n", "c": {}, "d": "it's"
        }));
        assert_eq!(
            string(&value).unwrap(),
            "{'b': [True, None, 1, 1.0, 0.5, 1e+16, 1e-07, 1e+300], 'a': 'it\\'s \"ü\"\\n', 'c': {}, 'd': \"it's\"}"
        );
        assert_eq!(string(&Value::UNDEFINED).unwrap(), "");
        let json = |named: &[(&str, Value)]| tojson(&value, &[], &named.iter().cloned().collect()).unwrap();
        assert_eq!(
            json(&[]),
            r#"{"b": [true, null, 1, 1.0, 0.5, 1e+16, 1e-07, 1e+300], "a": "it's \"ü\"\n", "c": {}, "d": "it's"}"#
        );
        let named = [("ensure_ascii", true.into()), ("sort_keys", true.into()), ("indent", 1.into())];
        assert!(json(&named).starts_with("{\n \"a\": \"it's \\\"\\u00fc\\\"\\n\",\n \"b\": [\n  true,\n"));
        assert!(tojson(&Value::UNDEFINED, &[], &Kwargs::from_iter([] as [(&str, Value); 0])).is_err());
    }
}
