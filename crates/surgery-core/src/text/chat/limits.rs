//! Bounds on what a chat template may do. A template is a program from the internet: it may loop, recurse, and double a
//! text until no memory holds it.
//!
//! The engine itself bounds the number of instructions (fuel) and the recursion. Beside that, a rendering has a budget
//! of work: [`super::source`] has every operation that takes time or memory in proportion to a value pay for the value
//! here first.

use std::cell::Cell;
use std::io::{self, Write};

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// The most bytes of a rendering.
pub(super) const MOST_OUTPUT: usize = 64 << 20;
/// Lists within lists, at most.
pub(super) const MOST_DEPTH: usize = 64;
/// What it costs to look at a value, in bytes.
const VALUE: usize = 16;
/// The work that any rendering may do, in bytes looked at.
const WORK: u64 = 32 << 20;
/// What it may do beside that, for each byte of its input.
const WORK_PER_BYTE: u64 = 256;
/// What it may do in all.
const MOST_WORK: u64 = 1 << 30;
/// The instructions of a rendering.
const FUEL: u64 = 10_000_000;
/// The most bytes that the template's own text may add to the output and to variables.
const MOST_LITERALS: u64 = 2 << 30;

thread_local! {
    /// The work that the rendering on this thread may still do.
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// Begins a rendering of an input of so many bytes.
pub(super) fn begin(input: usize) {
    LEFT.set((WORK + WORK_PER_BYTE.saturating_mul(input as u64)).min(MOST_WORK));
}

/// The instructions that a rendering may execute: fewer where the template has a long stretch of text, which one
/// instruction puts out.
pub(super) fn fuel(longest_literal: usize) -> u64 {
    FUEL.min(MOST_LITERALS / (longest_literal as u64).max(1))
}

/// Takes the cost of an operation from what is left.
pub(super) fn spend(cost: usize) -> Result<(), Error> {
    match LEFT.get().checked_sub(cost as u64) {
        Some(left) => {
            LEFT.set(left);
            Ok(())
        }
        None => {
            LEFT.set(0);
            Err(Error::new(ErrorKind::InvalidOperation, "does more work than a conversation can need"))
        }
    }
}

/// Takes the cost of an operation that looks at the whole of `value`.
pub(super) fn spend_on(value: &Value) -> Result<(), Error> {
    within(value, 0)
}

fn within(value: &Value, depth: usize) -> Result<(), Error> {
    if depth > MOST_DEPTH {
        return Err(too_deep());
    }
    spend(VALUE)?;
    match value.kind() {
        // A text within a list is looked at quickly, and is not copied.
        ValueKind::String | ValueKind::Bytes => {
            let length = text_length(value);
            spend(if depth == 0 { length } else { length / VALUE })
        }
        ValueKind::Seq | ValueKind::Iterable => {
            // A lazy list may say that it has more elements than can be counted.
            spend(value.len().unwrap_or_default())?;
            value.try_iter()?.try_for_each(|item| within(&item, depth + 1))
        }
        ValueKind::Map => value.try_iter()?.try_for_each(|key| {
            within(&key, depth + 1)?;
            within(&value.get_item(&key)?, depth + 1)
        }),
        _ => Ok(()),
    }
}

/// Lists within lists, too many.
pub(super) fn too_deep() -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("has lists or mappings nested deeper than {MOST_DEPTH}"))
}

/// The bytes of a text; `Value::len` would count its letters.
fn text_length(value: &Value) -> usize {
    value.as_str().map_or(0, str::len)
}

/// The filter that pays for a value and leaves it as it is.
pub(super) fn paid(value: Value) -> Result<Value, Error> {
    spend_on(&value)?;
    Ok(value)
}

/// As [`paid`], for an operation that goes through the letters of a text, or takes the elements of a list one by one.
pub(super) fn paid_if_text(value: Value) -> Result<Value, Error> {
    if value.kind() == ValueKind::String {
        spend(text_length(&value))?;
    }
    Ok(value)
}

/// As [`paid`], for a factor: a list or a text that is repeated must be short.
pub(super) fn factor(value: Value) -> Result<Value, Error> {
    const LONGEST: usize = 256;
    match value.kind() {
        // Of a larger number no text is made: the engine refuses it.
        ValueKind::Number => spend(value.as_usize().filter(|&number| number <= 100_000_000).unwrap_or(1))?,
        _ if value.len().is_some_and(|length| length > LONGEST) => {
            return Err(Error::new(ErrorKind::InvalidOperation, "repeats a long text or list"));
        }
        _ => {}
    }
    Ok(value)
}

/// The bytes of a rendering, up to [`MOST_OUTPUT`].
#[derive(Default)]
pub(super) struct Limited(pub(super) Vec<u8>);

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_OUTPUT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
