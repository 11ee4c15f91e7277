use super::*;

/// The document of a file of one line, or the error message.
fn read(line: &'static str) -> Result<Document, String> {
    let files = vec![("data.jsonl", line.as_bytes())];
    let folder = Folder::Embedded { name: "d".into(), files };
    let documents = read_documents(&folder, "data.jsonl").map_err(|error| error.to_string());
    documents.map(|mut documents| documents.remove(0))
}

#[test]
fn the_three_forms_are_read_and_other_keys_ignored() {
    let text = read(r#"{"id": "a", "subject": "s", "text": " x\n", "label": 3}"#).unwrap();
    assert_eq!(text, Document::of_text("a", Some("s".into()), " x\n"));

    let line = r#"{"id": "a", "prompt": "Q: ", "completion": "yes", "alternative": "no"}"#;
    let completion = read(line).unwrap();
    assert_eq!(completion.text(), "Q: yes");
    assert_eq!(completion.alternatives, ["no"]);

    let line = r#"{"id": "a", "subject": null, "text": null, "alternative": ["x", "y"], "messages": [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "name": "n"}]}"#;
    let line = Box::leak(line.replace('\n', " ").into_boxed_str());
    let messages = read(line).unwrap();
    assert_eq!(messages.text(), "ab\nc");
    assert_eq!(messages.alternatives, ["x", "y"]);
    let Content::Messages(messages) = messages.content else { panic!("messages") };
    assert_eq!(messages[0].content, MessageContent::Parts(vec!["a".into(), "b".into()]));
}

#[test]
fn a_line_that_is_not_one_of_the_three_forms_is_refused() {
    let cases = [
        (r#"{"id": "a"}"#, "has no text; expected `text`, or `prompt` and `completion`, or `messages`"),
        (r#"{"id": "a", "text": "x", "prompt": "y"}"#, "has `text` and `prompt`; expected only"),
        (r#"{"id": "a", "text": "x", "messages": []}"#, "has `text` and `messages`; expected only"),
        (r#"{"id": "a", "prompt": "x"}"#, "has a `prompt` without a `completion`"),
        (r#"{"id": "a", "completion": "x"}"#, "has a `completion` without a `prompt`"),
        (r#"{"id": "a", "prompt": "x", "completion": " "}"#, "has a blank `completion`"),
        (r#"{"id": "a", "text": " \n"}"#, "has an empty text"),
        (r#"{"id": "a", "messages": []}"#, "has an empty list of `messages`"),
        (r#"{"id": "a", "messages": [{"role": "user", "content": "x"}]}"#, "has no message whose `role` is"),
        (r#"{"id": "a", "messages": [{"role": "user"}]}"#, "missing field `content`"),
        (r#"{"id": "a", "messages": [{"content": "x"}]}"#, "missing field `role`"),
        (
            r#"{"id": "a", "messages": [{"role": "user", "content": 3}]}"#,
            "the `content` of a message is neither",
        ),
        (
            r#"{"id": "a", "messages": [{"role": "user", "content": [{"type": "image", "text": "x"}]}]}"#,
            "the `content` of a message is neither",
        ),
        (r#"{"id": "a", "text": "x", "alternative": 3}"#, "`alternative` is neither"),
        (r#"{"id": "a", "text": "x", "alternative": ["y", ""]}"#, "has a blank `alternative`"),
        (
            r#"{"id": "a", "messages": [{"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}],
                "alternative": "z"}"#,
            "has an `alternative`, which replaces the last message",
        ),
        (r#"{"text": "x"}"#, "missing field `id`"),
        (r#"["a", null, "x"]"#, "is no JSON object; expected `{`"),
        (r#"{"id": "a", "text": 5}"#, "`text`: invalid type: integer `5`, expected a string (column 21)"),
        (r#"{"id": "a", "messages": ["hi"]}"#, "`messages[0]`: "),
        (r#"{"id": "a", "messages": ["hi"]}"#, "expected an object with `role` and `content`"),
        (r#"{"id": "a", "text": "x"} y"#, "trailing characters (column 26)"),
    ];
    for (line, expected) in cases {
        let line = Box::leak(line.replace('\n', " ").into_boxed_str());
        let message = read(line).unwrap_err();
        assert!(message.starts_with("d/data.jsonl, line 1: "), "{message}");
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains("column 0"), "{message}");
    }
}
