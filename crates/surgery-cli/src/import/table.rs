//! CSV files with a header, read row by row.

use std::ops::Range;
use std::rc::Rc;

use csv::StringRecord;
use surgery_core::files::Folder;
use surgery_core::{Error, Result};

use super::place::{Place, Unit, shown};
use super::records::FILE_LIMIT;
use super::{Draft, Reason};

/// A CSV file.
pub struct Table {
    /// How messages name it.
    pub file: Rc<str>,
    columns: Vec<String>,
    /// A row that cannot be read is none, so that the others keep their numbers.
    rows: Vec<Option<StringRecord>>,
}

impl Table {
    /// Reads a file; a row that is not UTF-8 is left out.
    pub fn read(folder: &Folder, name: &str, draft: &mut Draft) -> Result<Self> {
        let file: Rc<str> = folder.label(name).into();
        let wrong = |problem: String| Error::Data {
            path: file.to_string(),
            problem,
            remedy: "give a CSV file in UTF-8 with a header".into(),
        };
        let bytes = folder.read(name, FILE_LIMIT)?;
        let content = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(content);
        let header = reader.headers().map_err(|_| wrong("has a header that is not UTF-8".into()))?;
        let columns: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
        if columns.iter().all(String::is_empty) {
            return Err(wrong("is empty".into()));
        }
        let mut rows = Vec::new();
        for record in reader.records() {
            let row = record.inspect_err(|error| {
                let place = Place::new(&file, Unit::Row, rows.len() + 1);
                let column = match error.kind() {
                    csv::ErrorKind::Utf8 { err, .. } => columns.get(err.field()),
                    _ => None,
                };
                let place = column.map_or(place.clone(), |column| place.field(column));
                draft.leave_out(Reason::UnreadableRow, &place, "is not UTF-8");
            });
            rows.push(row.ok());
        }
        Ok(Self { file, columns, rows })
    }

    /// How many rows there are, those that cannot be read among them.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is a column of this name.
    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|name| name == column)
    }

    /// The error for a file that lacks columns.
    pub fn lacks(&self, what: &str) -> Error {
        Error::Data {
            path: self.file.to_string(),
            problem: format!("has no column {what}; its header is `{}`", shown(&self.columns.join(","))),
            remedy: "give a CSV file with this column".into(),
        }
    }

    /// The cells of a column in these rows, counted from 1, with their places; where a row has none, it is left out.
    pub fn cells<'a>(
        &'a self,
        column: &str,
        rows: &Range<usize>,
        draft: &mut Draft,
    ) -> Vec<(Place, &'a str)> {
        let Some(index) = self.columns.iter().position(|name| name == column) else { return Vec::new() };
        let mut cells = Vec::new();
        for number in rows.clone() {
            let Some(row) = &self.rows[number - 1] else { continue };
            let place = Place::new(&self.file, Unit::Row, number).field(column);
            match row.get(index) {
                Some(cell) => cells.push((place, cell)),
                None => {
                    let problem =
                        format!("is missing: the row has {} of {} cells", row.len(), self.columns.len());
                    draft.leave_out(Reason::UnreadableCell, &place, problem);
                }
            }
        }
        cells
    }
}
