//! Positions in input files, for messages.

use std::fmt;
use std::rc::Rc;

/// The unit that positions in a file count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A record of a CSV file, with its first and last line; row 1 is the first after the header.
    Row(usize, usize),
    /// A line of a JSON Lines file.
    Line,
    /// An element of a JSON array.
    Entry,
    /// A file read as one text.
    Whole,
}

/// A file, a record in it, and optionally a field of the record.
#[derive(Debug, Clone)]
pub struct Place {
    file: Rc<str>,
    unit: Unit,
    number: usize,
    field: Option<String>,
}

impl Place {
    /// The record with this number, counting from 1.
    pub fn new(file: &Rc<str>, unit: Unit, number: usize) -> Self {
        Self { file: file.clone(), unit, number, field: None }
    }

    /// The same record with a column or key.
    pub fn field(&self, name: impl Into<String>) -> Self {
        Self { field: Some(name.into()), ..self.clone() }
    }

    /// The record's number, counting from 1.
    pub fn number(&self) -> usize {
        self.number
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (unit, field) = match self.unit {
            Unit::Row(..) => ("row", "column"),
            Unit::Line => ("line", "key"),
            Unit::Entry => ("entry", "key"),
            Unit::Whole => return f.write_str(&self.file),
        };
        write!(f, "{}, {unit} {}", self.file, self.number)?;
        match self.unit {
            Unit::Row(first, last) if first == last => write!(f, " (line {first})")?,
            Unit::Row(first, last) => write!(f, " (lines {first} to {last})")?,
            _ => {}
        }
        match &self.field {
            Some(name) => write!(f, ", {field} `{name}`"),
            None => Ok(()),
        }
    }
}

/// The first 60 characters of a text, on one line.
pub fn shown(text: &str) -> String {
    const MOST: usize = 60;
    let mut shown: String = text.chars().take(MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}
