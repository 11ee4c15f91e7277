//! JSON lines of documents and questions, and the CSV files of an import.

use std::fs;
use std::path::Path;

use super::{SINGLE, copy_model, refuse, scratch};

/// An evaluation must refuse each of these contents of a file in a data folder.
fn refuse_lines(test: &str, file: &str, cases: &[(&str, Vec<u8>, &[&str])]) {
    let folder = scratch(test);
    copy_model(SINGLE, &folder.join("model"));
    for (name, content, named) in cases {
        let data = folder.join(name);
        fs::create_dir_all(data.join("questions")).unwrap();
        fs::write(data.join(file), content).unwrap();
        let named = [&[file], *named].concat();
        refuse(&folder, name, &["eval", "--model", "model", "--data", name], &named);
        fs::remove_dir_all(data).unwrap();
    }
}

/// A valid line, followed by `line`.
fn second(line: impl AsRef<[u8]>) -> Vec<u8> {
    [b"{\"id\": \"a\", \"text\": \"A text.\"}\n", line.as_ref()].concat()
}

#[test]
fn documents_are_refused_by_file_and_line() {
    let long = [b"{\"id\": \"b\", \"text\": \"", vec![b'x'; 65 << 20].as_slice(), b"\"}"].concat();
    let utf16: Vec<u8> = "{\"id\": \"a\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty", Vec::new(), &["no document"]),
        ("blank", b"\n \r\n\t\n".to_vec(), &["no document"]),
        ("mark-only", b"\xEF\xBB\xBF".to_vec(), &["no document"]),
        ("latin1", second(b"{\"id\": \"b\", \"text\": \"caf\xe9\"}"), &["line 2", "UTF-8", "byte 25"]),
        ("latin1-with-mark", b"\xEF\xBB\xBF{\"id\": \"\xe9\"".to_vec(), &["line 1", "UTF-8"]),
        ("cut-character", second(b"{\"id\": \"b\", \"text\": \"\xe4\xb8"), &["line 2", "UTF-8"]),
        ("utf16", utf16, &["line 1"]),
        ("zeros", vec![0; 1 << 20], &["line 1"]),
        ("cut", second("{\"id\": \"b\", \"te"), &["line 2", "column"]),
        (
            "cut-windows",
            b"\xEF\xBB\xBF{\"id\": \"a\", \"text\": \"A text.\"}\r\n\r\n{\"id\"\r\n".to_vec(),
            &["line 3"],
        ),
        ("two-on-a-line", second("{\"id\": \"b\", \"text\": \"B\"} {}"), &["line 2"]),
        ("array", b"[{\"id\": \"a\", \"text\": \"A text.\"}]".to_vec(), &["line 1"]),
        ("text-only", second("\"A text.\""), &["line 2"]),
        ("no-id", second("{\"text\": \"B\"}"), &["line 2", "`id`"]),
        ("no-text", second("{\"id\": \"b\"}"), &["line 2", "`text`"]),
        ("number-id", second("{\"id\": 7, \"text\": \"B\"}"), &["line 2", "integer `7`"]),
        ("null-text", second("{\"id\": \"b\", \"text\": null}"), &["line 2", "null"]),
        ("list-text", second("{\"id\": \"b\", \"text\": [\"B\"]}"), &["line 2", "sequence"]),
        ("key-twice", second("{\"id\": \"b\", \"text\": \"B\", \"text\": \"C\"}"), &["line 2", "`text`"]),
        ("lone-surrogate", second("{\"id\": \"b\", \"text\": \"\\ud800\"}"), &["line 2"]),
        ("deep", second(format!("{{\"id\": \"b\", \"x\": {}", "[".repeat(1 << 20))), &["line 2"]),
        ("deep-text", second(format!("{{\"text\": {}", "[".repeat(1 << 20))), &["line 2"]),
        ("large-number", second(format!("{{\"id\": {}}}", "9".repeat(1 << 20))), &["line 2"]),
        (
            "large-value",
            second(format!("{{\"id\": \"b\", \"text\": {{\"x\": \"{}\"", "x".repeat(1 << 20))),
            &["line 2"],
        ),
        ("empty-text", second("{\"id\": \"b\", \"text\": \"\"}"), &["line 2", "\"b\"", "empty"]),
        ("blank-text", second("{\"id\": \"b\", \"text\": \" \\n\\u00a0\"}"), &["line 2", "\"b\"", "empty"]),
        ("same-id", second("\n{\"id\": \"a\", \"text\": \"B\"}"), &["line 3", "\"a\"", "line 1"]),
        ("obeyed", second("{\"id\": \"\\u001b[2J\", \"text\": \"\"}"), &["line 2", "empty"]),
        ("long-line", second(long), &["line 2", "longer than 67108864 bytes"]),
    ];
    refuse_lines("documents", "unlearn.jsonl", &cases);
}

/// A question with these options, answer and split.
fn question(options: &str, answer: &str, split: &str) -> Vec<u8> {
    format!(
        "{{\"id\": \"q\", \"question\": \"Which?\", \"options\": {options}, \"answer\": {answer}, \"split\": {split}}}\n"
    )
    .into_bytes()
}

#[test]
fn questions_are_refused_by_file_and_line() {
    let (two, test) = ("[\"x\", \"y\"]", "\"test\"");
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty", Vec::new(), &["no question"]),
        ("answer-beyond", question(two, "2", test), &["line 1", "\"q\"", "answer 2", "0 to 1"]),
        ("answer-largest", question(two, "18446744073709551615", test), &["line 1", "answer 1844", "0 to 1"]),
        ("answer-larger", question(two, "1e30", test), &["line 1", "1e+30"]),
        ("answer-negative", question(two, "-1", test), &["line 1", "-1"]),
        ("answer-text", question(two, "\"x\"", test), &["line 1", "\"x\""]),
        ("no-option", question("[]", "0", test), &["line 1", "0 options"]),
        ("one-option", question("[\"x\"]", "0", test), &["line 1", "1 options"]),
        ("empty-option", question("[\"x\", \" \"]", "0", test), &["line 1", "option 1", "empty"]),
        ("number-option", question("[\"x\", 3]", "0", test), &["line 1", "3"]),
        ("options-object", question("{\"a\": \"x\"}", "0", test), &["line 1", "map"]),
        ("other-split", question(two, "0", "\"train\""), &["line 1", "train", "validation"]),
        (
            "no-split",
            b"{\"id\": \"q\", \"question\": \"?\", \"options\": [], \"answer\": 0}".to_vec(),
            &["line 1", "`split`"],
        ),
        (
            "no-question",
            b"{\"id\": \"q\", \"options\": [], \"answer\": 0}".to_vec(),
            &["line 1", "`question`"],
        ),
        (
            "same-id",
            [question(two, "0", test), question(two, "1", test)].concat(),
            &["line 2", "\"q\"", "line 1"],
        ),
        ("latin1", b"{\"id\": \"\xe9\"}".to_vec(), &["line 1", "UTF-8"]),
    ];
    refuse_lines("questions", "questions/unlearn.jsonl", &cases);
}

#[test]
fn texts_to_score_are_refused_by_file_and_line() {
    let folder = scratch("score");
    copy_model(SINGLE, &folder.join("model"));
    fs::create_dir(folder.join("folder.jsonl")).unwrap();
    fs::write(folder.join("cut.jsonl"), second("{")).unwrap();
    let mut cases: Vec<(&str, &[&str])> =
        vec![("folder.jsonl", &[]), ("cut.jsonl", &["line 2"]), ("none.jsonl", &[])];
    if Path::new("/dev/zero").exists() {
        cases.push(("/dev/zero", &["line 1", "longer than"]));
    }
    for (file, named) in cases {
        let named = [&[file], named].concat();
        refuse(&folder, file, &["score", "--model", "model", "--input", file], &named);
    }
}

/// Limits on files. Rows with errors are omitted and reported; `tests/import.rs` tests that.
#[test]
fn tables_are_read_within_bounds() {
    let folder = scratch("tables");
    fs::write(folder.join("names.txt"), "Ada\n").unwrap();
    let header = "wiki_bio_text,gpt4_bio_text,wiki_bio_text_qa,gpt4_inaccurate_text_qa";
    let row = |cell: &str| format!("{header}\n,,\"{cell}\",\"{cell}\"\n");
    let unusable = "no usable entry";
    for (file, content, named) in [
        ("nones.csv", row(&format!("[{}]", "None,".repeat(100_000))), unusable),
        ("bare.csv", row(&"a".repeat(1 << 20)), unusable),
        ("backslashes.csv", row(&format!("'{}", "\\".repeat((1 << 20) + 1))), unusable),
        ("deep.csv", row(&"({[".repeat(1 << 18)), unusable),
        ("columns.csv", ",".repeat(1 << 20), "is empty"),
        ("quotes.csv", "\"".repeat(1 << 20), "has no column"),
    ] {
        fs::write(folder.join(file), content).unwrap();
        let arguments = ["import", "authors", file, "--subjects", "names.txt", "--output", "out"];
        refuse(&folder, file, &arguments, &[file, named]);
        assert!(!folder.join("out").exists(), "{file} left something");
    }
}
