//! Files of JSON records as Hugging Face's tools write them: JSON Lines, or one array.

use std::rc::Rc;

use serde_json::Value;
use surgery_core::files::Folder;
use surgery_core::{Error, Result};

use super::place::{Place, Unit, shown};
use super::{Draft, Reason};

/// Maximum file size in bytes.
pub const FILE_LIMIT: u64 = 1 << 30;

/// The content of a text file without a byte order mark.
pub fn text(folder: &Folder, file: &str) -> Result<String> {
    let bytes = folder.read(file, FILE_LIMIT)?;
    let text = String::from_utf8(bytes).map_err(|error| Error::Data {
        path: folder.label(file),
        problem: format!("is not UTF-8 (byte {})", error.utf8_error().valid_up_to() + 1),
        remedy: "check that it is the right file for this format".into(),
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The records of a file. A line that is not JSON is left out.
pub fn records(folder: &Folder, file: &str, draft: &mut Draft) -> Result<Vec<(Place, Value)>> {
    let text = text(folder, file)?;
    let label: Rc<str> = folder.label(file).into();
    if text.trim_start().starts_with('[') {
        let entries: Vec<Value> = serde_json::from_str(&text).map_err(|error| Error::Data {
            path: label.to_string(),
            problem: format!("is not valid JSON ({error})"),
            remedy: "download it again".into(),
        })?;
        let place = |index| Place::new(&label, Unit::Entry, index + 1);
        return Ok(entries.into_iter().enumerate().map(|(index, entry)| (place(index), entry)).collect());
    }
    let mut records = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = Place::new(&label, Unit::Line, index + 1);
        match serde_json::from_str(line) {
            Ok(record) => records.push((place, record)),
            Err(_) => {
                draft.leave_out(Reason::UnreadableRow, &place, format!("`{}` is not JSON", shown(line)))
            }
        }
    }
    Ok(records)
}

/// The string at a key. If it is missing or not a string, the record is left out.
pub fn string<'a>(draft: &mut Draft, at: &Place, record: &'a Value, key: &str) -> Option<&'a str> {
    let found = record.get(key).and_then(Value::as_str);
    if found.is_none() {
        let problem = match record.get(key) {
            Some(other) => format!("is `{}`, not a string", shown(&other.to_string())),
            None => "is missing".into(),
        };
        draft.leave_out(Reason::UnreadableCell, &at.field(key), problem);
    }
    found
}

/// The strings of an array; `None` if the value is not an array of strings.
pub fn strings(value: Option<&Value>) -> Option<Vec<String>> {
    value?.as_array()?.iter().map(|entry| entry.as_str().map(str::to_owned)).collect()
}
