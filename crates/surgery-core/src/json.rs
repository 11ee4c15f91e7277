//! JSON as Python writes it, with the numbers `NaN`, `Infinity` and `-Infinity`, which occur in model files.
//!
//! Such a number is read as a string that starts with [`MARK`]. An unused key with one is harmless, a used one is
//! refused like any string in place of a number, and the file can be written unchanged.

use serde_json::Value;

/// Prefix of a number that JSON lacks. It is a noncharacter of Unicode, which no text contains.
const MARK: char = '\u{FDD0}';
/// Numbers of Python's `json` beyond JSON. A number precedes its prefixes.
const NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Parses JSON with Python's three numbers.
pub(crate) fn parse(bytes: &[u8]) -> serde_json::Result<Value> {
    match serde_json::from_slice(bytes) {
        Ok(value) => Ok(value),
        Err(error) => match marked(bytes) {
            Some(marked) => serde_json::from_slice(&marked),
            None => Err(error),
        },
    }
}

/// Writes a value from [`parse`] with line breaks.
pub(crate) fn to_vec(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_string_pretty(value).expect("it was JSON before");
    for number in NUMBERS {
        text = text.replace(&format!("\"{MARK}{number}\""), number);
    }
    text.into_bytes()
}

/// A value as messages show it.
pub(crate) fn shown(value: &Value) -> String {
    match value.as_str().and_then(|text| text.strip_prefix(MARK)) {
        Some(number) => number.to_owned(),
        None => value.to_string(),
    }
}

/// Replaces each such number outside strings by a marked string; `None` if there is none.
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
        // An escaped character is copied together with its backslash, so that `\"` does not end a string.
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
    fn numbers_of_python_are_read_and_written_unchanged() {
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
    fn invalid_json_is_refused() {
        for text in ["", "{", "NaNa", "[Infinity", "\"Infinity", "[--Infinity]"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
