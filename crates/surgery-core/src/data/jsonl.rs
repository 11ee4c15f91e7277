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
        let record = serde_json::from_str(text).map_err(|error| {
            // serde_json says "at line 1 column C"; replace its line number by that of the file.
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            wrong(line, format!("{message} (column {})", error.column()))
        })?;
        records.push((line, record));
    }
    Ok(records)
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
