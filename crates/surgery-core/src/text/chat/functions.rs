//! The template engine with the settings that transformers gives Jinja (`_cached_compile_jinja_template` in its
//! `utils/chat_template_utils.py`). Filters, tests and formats of values that differ from Jinja's are replaced.

use std::cell::Cell;
use std::fmt;
use std::time::SystemTime;

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::date;
use super::limits::{self, paid, paid_if_text, spend, spend_on};
use super::python::{string, tojson};
use super::writer::{FACTOR, GENERATION, ITEM, PAID, PAID_IF_TEXT};

/// A test of two values.
type Comparison = fn(&Value, &Value) -> bool;

/// Filters that make large values from small ones. Templates for transformers do not need them.
const REMOVED: [&str; 6] = ["batch", "slice", "zip", "chain", "format", "pprint"];

thread_local! {
    /// The characters that mark the beginning and the end of a generation block in this thread's rendering.
    pub(super) static MARKS: Cell<[char; 2]> = const { Cell::new(['\u{f0000}', '\u{f0001}']) };
}

/// The error of a template's `raise_exception(message)`.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// An engine without a template. `now` is the time of `strftime_now`.
pub(super) fn environment(now: SystemTime) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_recursion_limit(100);
    environment.set_formatter(|out, _, value| {
        let text = string(value)?;
        spend(text.len())?;
        Ok(out.write_str(&text)?)
    });
    environment.set_unknown_method_callback(method);

    environment.add_filter(PAID, paid);
    environment.add_filter(PAID_IF_TEXT, paid_if_text);
    environment.add_filter(ITEM, item);
    environment.add_filter(FACTOR, limits::factor);
    environment.add_filter("string", |value: Value| string(&value));
    environment.add_filter("tojson", |value: Value, arguments: Rest<Value>, named: Kwargs| {
        tojson(&value, &arguments, &named)
    });
    environment.add_filter("trim", |value: Value, letters: Option<String>| {
        let text = string(&value)?;
        Ok::<_, Error>(match letters {
            None => text.trim().to_owned(),
            Some(letters) => text.trim_matches(|letter| letters.contains(letter)).to_owned(),
        })
    });
    environment.add_filter("join", join);
    environment.add_filter("replace", |value: Value, from: Value, to: Value, count: Option<usize>| {
        replace(&string(&value)?, &string(&from)?, &string(&to)?, count)
    });
    environment.add_filter("indent", indent);
    REMOVED.iter().for_each(|name| environment.remove_filter(name));

    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map | ValueKind::String)
    });
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    let comparisons: [(&[&str], Comparison); 6] = [
        (&["eq", "equalto", "==", "sameas"], |a, b| a == b),
        (&["ne", "!="], |a, b| a != b),
        (&["lt", "lessthan", "<"], |a, b| a < b),
        (&["le", "<="], |a, b| a <= b),
        (&["gt", "greaterthan", ">"], |a, b| a > b),
        (&["ge", ">="], |a, b| a >= b),
    ];
    for (names, compare) in comparisons {
        for name in names {
            environment.add_test(*name, move |a: Value, b: Value| -> Result<bool, Error> {
                spend_on(&a)?;
                spend_on(&b)?;
                Ok(compare(&a, &b))
            });
        }
    }

    environment.remove_global("debug");
    environment.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        let message = string(&message)?;
        Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
    });
    environment.add_function("strftime_now", move |format: &str| {
        date::format(now, format).map_err(|code| {
            let problem = format!("strftime_now: the code %{code} of {format:?} is not supported");
            Error::new(ErrorKind::InvalidOperation, problem)
        })
    });
    environment.add_function(GENERATION, |state: &State, named: Kwargs| {
        let caller: Value = named.get("caller")?;
        let inside = caller.call(state, &[])?;
        let [begin, end] = MARKS.get();
        Ok::<_, Error>(format!("{begin}{}{end}", string(&inside)?))
    });
    environment
}

/// Methods of Python's strings, dictionaries and lists.
fn method(state: &State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return unknown_method_callback(state, value, name, arguments) };
    spend(text.len())?;
    arguments.iter().try_for_each(spend_on)?;
    let argument = |index: usize| arguments.get(index).and_then(Value::as_str);
    match (name, argument(0), argument(1)) {
        ("replace", Some(from), Some(to)) => {
            let count = arguments.get(2).and_then(Value::as_usize);
            Ok(replace(text, from, to, count)?.into())
        }
        ("removeprefix", Some(prefix), None) => Ok(text.strip_prefix(prefix).unwrap_or(text).into()),
        ("removesuffix", Some(suffix), None) => Ok(text.strip_suffix(suffix).unwrap_or(text).into()),
        ("join", ..) if arguments.len() == 1 => Ok(joined(arguments[0].try_iter()?.map(Ok), text)?.into()),
        // A width could make a text of any length.
        ("format", ..) if text.contains(':') => Err(Error::new(
            ErrorKind::InvalidOperation,
            "the method `format` with a format inside braces is not supported",
        )),
        _ => unknown_method_callback(state, value, name, arguments),
    }
}

/// The item of a value under a key; for a text and an index, a letter.
fn item(value: Value, key: Value) -> Result<Value, Error> {
    let (Some(text), Some(index)) = (value.as_str(), key.as_i64()) else { return value.get_item(&key) };
    spend(text.len())?;
    let letter = match usize::try_from(index) {
        Ok(index) => text.chars().nth(index),
        Err(_) => text.chars().rev().nth(index.unsigned_abs() as usize - 1),
    };
    Ok(letter.map_or(Value::UNDEFINED, |letter| letter.to_string().into()))
}

fn join(value: Value, separator: Option<Value>, named: Kwargs) -> Result<String, Error> {
    let attribute: Option<String> = named.get("attribute")?;
    named.assert_all_used()?;
    let items = value.try_iter()?.map(|item| match &attribute {
        Some(name) => item.get_attr(name),
        None => Ok(item),
    });
    joined(items, &separator.map_or(Ok(String::new()), |separator| string(&separator))?)
}

fn joined(items: impl Iterator<Item = Result<Value, Error>>, separator: &str) -> Result<String, Error> {
    let mut out = String::new();
    for (index, item) in items.enumerate() {
        spend(1 + separator.len())?;
        out.push_str(if index > 0 { separator } else { "" });
        out.push_str(&string(&item?)?);
    }
    Ok(out)
}

fn replace(text: &str, from: &str, to: &str, count: Option<usize>) -> Result<String, Error> {
    spend(text.len())?;
    let count = count.unwrap_or(usize::MAX).min(text.matches(from).count());
    spend(count.saturating_mul(to.len()))?;
    Ok(text.replacen(from, to, count))
}

/// The filter `indent`. By default it does not indent the first line and empty lines.
fn indent(
    value: Value,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    named: Kwargs,
) -> Result<String, Error> {
    let text = string(&value)?;
    let width = width.or(named.get("width")?).unwrap_or(Value::from(4));
    let first = first.or(named.get("first")?).unwrap_or(false);
    let blank = blank.or(named.get("blank")?).unwrap_or(false);
    named.assert_all_used()?;
    let indention = match (width.as_str(), width.as_usize()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(width)) if width <= 256 => " ".repeat(width),
        _ => return Err(Error::new(ErrorKind::InvalidOperation, "indent: a width of 0 to 256 is expected")),
    };
    spend(indention.len().saturating_mul(text.matches('\n').count()))?;
    let mut out = String::new();
    for (index, line) in text.split('\n').enumerate() {
        out.push_str(if index > 0 { "\n" } else { "" });
        let is_indented = if index == 0 { first } else { blank || !line.is_empty() };
        out.push_str(if is_indented { &indention } else { "" });
        out.push_str(line);
    }
    Ok(out)
}
