//! Where in an input something stands, for messages.

use std::fmt;
use std::rc::Rc;

/// What a file is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A record of a CSV file, whose first after the header is row 1; and its first and last line in it.
    Row(usize, usize),
    /// A line of a file of JSON lines.
    Line,
    /// An element of a file that is one JSON array.
    Entry,
    /// A file that is one text.
    Whole,
}

/// A file, a record of it, and perhaps one of the record's fields.
#[derive(Debug, Clone)]
pub struct Place {
    file: Rc<str>,
    unit: Unit,
    number: usize,
    field: Option<String>,
}

impl Place {
    /// The record with this number, counted from 1.
    pub fn new(file: &Rc<str>, unit: Unit, number: usize) -> Self {
        Self { file: file.clone(), unit, number, field: None }
    }

    /// A column or key of the record.
    pub fn field(&self, name: impl Into<String>) -> Self {
        Self { field: Some(name.into()), ..self.clone() }
    }

    /// The record's number, counted from 1.
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

/// The beginning of a text that may be long, on one line.
pub fn shown(text: &str) -> String {
    const MOST: usize = 60;
    let mut shown: String = text.chars().take(MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    shown
}
