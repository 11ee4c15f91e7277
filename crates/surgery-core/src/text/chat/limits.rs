//! Limits on chat templates. A template is a program from the internet: it may loop, recurse, and double a text until memory
//! is full.
//!
//! The engine limits the number of instructions (fuel) and the recursion. In addition, a rendering has a budget of work. An
//! operation whose time or memory is proportional to a value is charged for the value first; [`super::source`] inserts the
//! charges.

use std::cell::Cell;
use std::io::{self, Write};

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// Maximum bytes of a rendering.
pub(super) const MOST_OUTPUT: usize = 64 << 20;
/// Maximum depth of lists within lists.
pub(super) const MOST_DEPTH: usize = 64;
/// Cost of a value besides its bytes.
const VALUE: usize = 16;
/// Basic budget of a rendering, in bytes processed.
const WORK: u64 = 32 << 20;
/// Additional budget for each byte of the input.
const WORK_PER_BYTE: u64 = 256;
/// Maximum budget of a rendering.
const MOST_WORK: u64 = 1 << 30;
/// Maximum number of instructions of a rendering.
const FUEL: u64 = 10_000_000;
/// Maximum bytes that the template's own text may add to the output and to variables.
const MOST_LITERALS: u64 = 2 << 30;

thread_local! {
    /// The budget left to the rendering on this thread.
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

/// Sets the budget for a rendering with `input` bytes of input.
pub(super) fn begin(input: usize) {
    LEFT.set((WORK + WORK_PER_BYTE.saturating_mul(input as u64)).min(MOST_WORK));
}

/// Maximum number of instructions of a rendering. It is lower if the template has a long literal, because one instruction
/// writes all of it.
pub(super) fn fuel(longest_literal: usize) -> u64 {
    FUEL.min(MOST_LITERALS / (longest_literal as u64).max(1))
}

/// Subtracts the cost of an operation from the budget.
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

/// Subtracts the cost of an operation that processes the whole of `value`.
pub(super) fn spend_on(value: &Value) -> Result<(), Error> {
    within(value, 0)
}

fn within(value: &Value, depth: usize) -> Result<(), Error> {
    if depth > MOST_DEPTH {
        return Err(too_deep());
    }
    spend(VALUE)?;
    match value.kind() {
        // A text within a list is not copied, so it costs less.
        ValueKind::String | ValueKind::Bytes => {
            let length = text_length(value);
            spend(if depth == 0 { length } else { length / VALUE })
        }
        ValueKind::Seq | ValueKind::Iterable => {
            // Charge the stated length first: a lazy list may have too many elements to count.
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

/// The error of lists nested too deep.
pub(super) fn too_deep() -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("has lists or mappings nested deeper than {MOST_DEPTH}"))
}

/// The bytes of a text; `Value::len` counts its letters.
fn text_length(value: &Value) -> usize {
    value.as_str().map_or(0, str::len)
}

/// The filter that charges for a value and returns it unchanged.
pub(super) fn paid(value: Value) -> Result<Value, Error> {
    spend_on(&value)?;
    Ok(value)
}

/// As [`paid`], for an operation on the letters of a text; a list, whose elements are taken one by one, is free.
pub(super) fn paid_if_text(value: Value) -> Result<Value, Error> {
    if value.kind() == ValueKind::String {
        spend(text_length(&value))?;
    }
    Ok(value)
}

/// As [`paid`], for a factor of a multiplication. A list or a text that is repeated must be short.
pub(super) fn factor(value: Value) -> Result<Value, Error> {
    const LONGEST: usize = 256;
    match value.kind() {
        // The engine refuses to repeat a text more often than that.
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
