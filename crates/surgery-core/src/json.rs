//! JSON as Python writes it: `NaN`, `Infinity` and `-Infinity` are numbers there, and model files hold them.
//!
//! Such a number is read as a string that begins with [`MARK`]. A key that is not used is then no fault, one that is
//! used is refused as any other string in the place of a number, and the file can be written as it was read.

use serde_json::Value;

/// Stands before the name of a number that JSON does not have. A noncharacter of Unicode: no text holds it.
const MARK: char = '\u{FDD0}';
/// What Python's `json` reads and writes beyond JSON, the longest that begins alike first.
const NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Reads JSON with Python's three numbers.
pub(crate) fn parse(bytes: &[u8]) -> serde_json::Result<Value> {
    match serde_json::from_slice(bytes) {
        Ok(value) => Ok(value),
        Err(error) => match marked(bytes) {
            Some(marked) => serde_json::from_slice(&marked),
            None => Err(error),
        },
    }
}

/// Writes what [`parse`] read, with line breaks.
pub(crate) fn to_vec(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_string_pretty(value).expect("it was JSON before");
    for number in NUMBERS {
        text = text.replace(&format!("\"{MARK}{number}\""), number);
    }
    text.into_bytes()
}

/// A value as a message shows it.
pub(crate) fn shown(value: &Value) -> String {
    match value.as_str().and_then(|text| text.strip_prefix(MARK)) {
        Some(number) => number.to_owned(),
        None => value.to_string(),
    }
}

/// The same text with a marked string in the place of each such number outside of strings; none where there is none.
fn marked(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut output, mut found) = (Vec::with_capacity(bytes.len() + 64), false);
    let (mut rest, mut in_string) = (bytes, false);
    while let Some((&byte, after)) = rest.split_first() {
        let number = NUMBERS.iter().find(|number| !in_string && rest.starts_with(number.as_bytes()));
        if let Some(number) = number {
            output.extend(format!("\"{MARK}{number}\"").bytes());
            rest = &rest[number.len()..];
            found = true;
            continue;
        }
        // An escaped character is copied with its backslash, so that `\"` ends no string.
        let length = if in_string && byte == b'\\' && !after.is_empty() { 2 } else { 1 };
        in_string ^= byte == b'"';
        output.extend(&rest[..length]);
        rest = &rest[length..];
    }
    found.then_some(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_python_are_read_and_written_back() {
        let text =
            r#"{"a": [1, Infinity, -Infinity], "b": NaN, "c": "NaN, \" Infinity", "d\\": "-Infinity"}"#;
        let value = parse(text.as_bytes()).unwrap();
        assert_eq!(value["c"], "NaN, \" Infinity");
        assert_eq!(value["d\\"], "-Infinity");
        assert_eq!((shown(&value["b"]), shown(&value["a"][2])), ("NaN".into(), "-Infinity".into()));
        assert!(value["b"].as_f64().is_none());
        let written = String::from_utf8(to_vec(&value)).unwrap();
        assert_eq!(parse(written.as_bytes()).unwrap(), value);
        assert!(written.contains("\"b\": NaN") && written.contains("\"d\\\\\": \"-Infinity\""), "{written}");
    }

    #[test]
    fn what_is_no_json_stays_none() {
        for text in ["", "{", "NaNa", "[Infinity", "\"Infinity", "[--Infinity]"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
