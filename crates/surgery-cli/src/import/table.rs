//! CSV files with a header. A row is left out as a whole if its columns are ambiguous: if it has more or fewer cells
//! than the header, or a faulty quote.

use std::rc::Rc;

use surgery_core::files::Folder;
use surgery_core::{Error, Result};

use super::csv::{Record, records};
use super::place::{Place, Unit, shown};
use super::records::FILE_LIMIT;
use super::{Draft, Reason};

/// A CSV file.
pub struct Table {
    /// Its name in messages.
    pub file: Rc<str>,
    columns: Vec<String>,
    rows: Vec<Row>,
    len: usize,
}

/// A row with a cell for each column.
pub struct Row {
    /// Its position; the number also counts the rows left out.
    pub place: Place,
    cells: Vec<String>,
}

impl Table {
    /// Reads a file. Unreadable rows are left out.
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

    /// The number of rows, including those left out.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The readable rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Whether the column exists.
    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|name| name == column)
    }

    /// The error for missing columns.
    pub fn lacks(&self, what: &str) -> Error {
        Error::Data {
            path: self.file.to_string(),
            problem: format!("has no column {what}; its header is `{}`", shown(&self.columns.join(","))),
            remedy: "give a CSV file with this column".into(),
        }
    }

    /// Refuses a header that repeats one of these columns.
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

    /// A row's cell in a column with its position, if the column exists.
    pub fn cell<'a>(&self, row: &'a Row, column: &str) -> Option<(Place, &'a str)> {
        let index = self.columns.iter().position(|name| name == column)?;
        Some((row.place.field(column), &row.cells[index]))
    }
}

/// The cells of a record as strings, or its fault with the index of the faulty cell. `expected` is the required
/// number of cells.
fn cells(record: Record, expected: Option<usize>) -> Result<Vec<String>, (String, Option<usize>)> {
    if let Some(fault) = record.fault {
        return Err((fault, None));
    }
    let found = record.cells.len();
    if let Some(expected) = expected.filter(|&expected| expected != found) {
        let why = if found > expected { "; a cell that holds a comma needs quotes around it" } else { "" };
        return Err((format!("the row has {found} cells, but the header has {expected}{why}"), None));
    }
    let text = |(index, cell)| String::from_utf8(cell).map_err(|_| ("is not UTF-8".into(), Some(index)));
    record.cells.into_iter().enumerate().map(text).collect()
}

/// Whether a cell holds a missing value as numpy, pandas and `str` write it.
pub fn is_missing(cell: &str) -> bool {
    ["nan", "NaN", "<NA>", "None"].contains(&cell.trim())
}
