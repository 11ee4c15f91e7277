//! CSV files with a header, row by row. A row is read whole or left out whole: one with more or fewer cells than the
//! header, or with a quote where none may stand, tells nobody which cell is which.

use std::rc::Rc;

use surgery_core::files::Folder;
use surgery_core::{Error, Result};

use super::csv::{Record, records};
use super::place::{Place, Unit, shown};
use super::records::FILE_LIMIT;
use super::{Draft, Reason};

/// A CSV file.
pub struct Table {
    /// How messages name it.
    pub file: Rc<str>,
    columns: Vec<String>,
    rows: Vec<Row>,
    len: usize,
}

/// A row that has a cell for each column.
pub struct Row {
    /// Where it stands; its number counts the rows that are left out, too.
    pub place: Place,
    cells: Vec<String>,
}

impl Table {
    /// Reads a file; a row that cannot be read is left out.
    pub fn read(folder: &Folder, name: &str, draft: &mut Draft) -> Result<Self> {
        let file: Rc<str> = folder.label(name).into();
        let wrong = |problem: String| Error::Data {
            path: file.to_string(),
            problem,
            remedy: "give a CSV file in UTF-8 with a header".into(),
        };
        let bytes = folder.read(name, FILE_LIMIT)?;
        let content = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
        let mut records = records(content);
        let header = records.next().ok_or_else(|| wrong("is empty".into()))?;
        let columns = cells(header, None)
            .map_err(|(problem, _)| wrong(format!("has a header that cannot be read ({problem})")))?;
        let columns: Vec<String> = columns.iter().map(|name| name.trim().to_owned()).collect();
        if columns.iter().all(String::is_empty) {
            return Err(wrong("is empty".into()));
        }
        let (mut rows, mut len) = (Vec::new(), 0);
        for record in records {
            len += 1;
            let place = Place::new(&file, Unit::Row(record.lines.0, record.lines.1), len);
            match cells(record, Some(columns.len())) {
                Ok(cells) => rows.push(Row { place, cells }),
                Err((problem, column)) => {
                    let column = column.and_then(|column| columns.get(column));
                    let place = column.map_or(place.clone(), |column| place.field(column));
                    draft.leave_out(Reason::UnreadableRow, &place, problem);
                }
            }
        }
        Ok(Self { file, columns, rows, len })
    }

    /// How many rows the file has, those that are left out among them.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The rows that can be read.
    pub fn rows(&self) -> &[Row] {
        &self.rows
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

    /// Refuses a file that has one of these columns twice: nobody can tell which is meant.
    pub fn refuse_repeated(&self, columns: &[&str]) -> Result<()> {
        let is_repeated = |column: &&&str| self.columns.iter().filter(|name| name == *column).count() > 1;
        match columns.iter().find(is_repeated) {
            None => Ok(()),
            Some(column) => Err(Error::Data {
                path: self.file.to_string(),
                problem: format!("has a header that names the column `{column}` twice"),
                remedy: "give the two columns different names, or remove one".into(),
            }),
        }
    }

    /// A row's cell in a column, if there is such a column, and its place.
    pub fn cell<'a>(&self, row: &'a Row, column: &str) -> Option<(Place, &'a str)> {
        let index = self.columns.iter().position(|name| name == column)?;
        Some((row.place.field(column), &row.cells[index]))
    }
}

/// The cells of a record as texts, or what is wrong with it and in which cell. It must have `expected` cells, where
/// there is something to expect.
fn cells(record: Record, expected: Option<usize>) -> Result<Vec<String>, (String, Option<usize>)> {
    if let Some(fault) = record.fault {
        return Err((fault, None));
    }
    let found = record.cells.len();
    if let Some(expected) = expected.filter(|&expected| expected != found) {
        let why = if found > expected { "; a cell that holds a comma needs quotes around it" } else { "" };
        return Err((format!("the row has {found} cells, and the header has {expected}{why}"), None));
    }
    let text = |(index, cell)| String::from_utf8(cell).map_err(|_| ("is not UTF-8".into(), Some(index)));
    record.cells.into_iter().enumerate().map(text).collect()
}

/// Whether a cell is what numpy, pandas and `str` write where there is no value.
pub fn is_missing(cell: &str) -> bool {
    ["nan", "NaN", "<NA>", "None"].contains(&cell.trim())
}
