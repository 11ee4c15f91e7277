//! JSON lines, read one by one with a limit on their size. Every error has a line number.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::files::Folder;

/// Maximum length of a line in bytes.
const LINE_LIMIT: u64 = 64 << 20;

/// Each non-empty line of `file` as a `T`, with its number, counted from 1.
pub(super) fn read<T: DeserializeOwned>(folder: &Folder, file: &str) -> Result<Vec<(usize, T)>> {
    let path = folder.label(file);
    let wrong = |line: usize, problem: String| Error::Line { path: path.clone(), line, problem };
    let (handle, _) = folder.open(file)?;
    let mut reader = BufReader::new(handle);
    let mut records = Vec::new();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let failed = |source| Error::Read { path: path.clone(), source };
        let length = (&mut reader).take(LINE_LIMIT + 1).read_until(b'\n', &mut bytes).map_err(failed)?;
        if length == 0 {
            break;
        }
        if length as u64 > LINE_LIMIT {
            return Err(wrong(line, format!("is longer than {LINE_LIMIT} bytes; split the document")));
        }
        let content = if line == 1 { bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes) } else { &bytes };
        let text = std::str::from_utf8(content).map_err(|error| {
            wrong(line, format!("is not UTF-8 (byte {} of the line)", error.valid_up_to() + 1))
        })?;
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        let record = parse(text).map_err(|problem| wrong(line, problem))?;
        records.push((line, record));
    }
    Ok(records)
}

/// The object of a line, or what is wrong with it: the key, the problem and the column.
fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    if !text.starts_with('{') {
        return Err("is no JSON object; expected `{` at its beginning".into());
    }
    let mut values = serde_json::Deserializer::from_str(text);
    let (error, key) = match serde_path_to_error::deserialize(&mut values) {
        Ok(value) => match values.end() {
            Ok(()) => return Ok(value),
            Err(error) => (error, None),
        },
        Err(error) => {
            let key = error.path().to_string();
            (error.into_inner(), (key != ".").then_some(key))
        }
    };
    // serde_json says "at line 1 column C". The line is known, and a problem of the whole object has column 0.
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let key = key.map_or_else(String::new, |key| format!("`{key}`: "));
    let column = match error.column() {
        0 => String::new(),
        column => format!(" (column {column})"),
    };
    Err(format!("{key}{message}{column}"))
}

/// Refuses an id that occurs twice.
pub(super) fn refuse_duplicates<'a>(path: &str, ids: impl Iterator<Item = (usize, &'a str)>) -> Result<()> {
    let mut seen = HashMap::new();
    for (line, id) in ids {
        if let Some(first) = seen.insert(id, line) {
            let problem = format!("id {id:?} occurred before, on line {first}; ids must be unique in a file");
            return Err(Error::Line { path: path.into(), line, problem });
        }
    }
    Ok(())
}
