//! Conversations, and prompts with completions, rendered and encoded as in transformers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use surgery_core::data::{Content, Document, Example, Message, encode};
use surgery_core::files::Folder;
use surgery_core::text::TextEncoder;
use surgery_tests::{golden, golden_json, ids};

/// More rows than any token needs here.
const ROWS: usize = 1000;

const TEMPLATES: [&str; 8] =
    ["chatml", "llama2", "llama3", "mistral", "zephyr", "smollm2", "generation", "generation-lines"];

/// The tokenizer of a golden model, with a chat template of this name.
fn encoder(model: &str, name: &str, template: Option<&str>, now: SystemTime) -> TextEncoder {
    let folder: PathBuf =
        [env!("CARGO_TARGET_TMPDIR"), "chat", &format!("{name}-{model}")].iter().collect::<PathBuf>();
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json", "config.json"] {
        fs::copy(golden(&format!("models/{model}/{file}")), Path::new(&folder).join(file)).unwrap();
    }
    if let Some(template) = template {
        fs::write(folder.join("chat_template.jinja"), template).unwrap();
    }
    let mut encoder = TextEncoder::load(&Folder::Disk(folder), ROWS).unwrap();
    encoder.set_now(now).unwrap();
    encoder
}

/// The time of the golden values: 2024-07-06T15:04:05.
fn now(values: &Value) -> SystemTime {
    assert_eq!(values["now"], json!("2024-07-06T15:04:05"));
    UNIX_EPOCH + Duration::from_secs(1_720_278_245)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn messages(value: &Value) -> Vec<Message> {
    serde_json::from_value(value.clone()).unwrap()
}

fn document(content: Content) -> Document {
    Document { id: "d".into(), subject: None, content, alternatives: Vec::new() }
}

#[track_caller]
fn assert_example(example: &Example, case: &Value, about: &str) {
    assert_eq!(example.tokens, ids(&case["ids"]), "{about}");
    let mask: Vec<u32> =
        (0..example.tokens.len()).map(|index| u32::from(example.is_predicted(index))).collect();
    assert_eq!(mask, ids(&case["mask"]), "{about}");
    assert_eq!(example.num_predicted(), mask.iter().sum::<u32>() as usize, "{about}");
}

#[test]
fn conversations_are_rendered_and_encoded_as_in_transformers() {
    for name in TEMPLATES {
        let values = golden_json(&format!("chat/{name}.json"));
        let cases = values["cases"].as_array().unwrap();
        assert!(cases.len() >= 3);
        for case in cases {
            let about = format!("{name}, {}, {}", case["conversation"], case["model"]);
            let encoder = encoder(text(&case["model"]), name, Some(text(&values["template"])), now(&values));
            let messages = messages(&case["messages"]);
            let template = encoder.chat().unwrap();
            assert_eq!(template.render(&messages, false).unwrap().text, text(&case["text"]), "{about}");
            assert_eq!(template.render(&messages, true).unwrap().text, text(&case["prompted"]), "{about}");
            let example = encode("test.jsonl", &document(Content::Messages(messages)), &encoder).unwrap();
            assert_example(&example, case, &about);
        }
    }
}

#[test]
fn expressions_have_the_same_values_as_in_jinja() {
    let values = golden_json("chat/expressions.json");
    let messages = messages(&values["messages"]);
    let mut wrong = Vec::new();
    for case in values["cases"].as_array().unwrap() {
        let template = text(&case["template"]);
        let encoder = encoder(text(&values["model"]), "expressions", Some(template), now(&values));
        let rendered = encoder.chat().and_then(|chat| chat.render(&messages, false));
        match rendered {
            Ok(rendered) if rendered.text == text(&case["text"]) => {}
            Ok(rendered) => {
                wrong.push(format!("{template}\n  {:?}\n  {:?}", rendered.text, text(&case["text"])))
            }
            Err(error) => wrong.push(format!("{template}\n  {error}")),
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn completions_are_predicted_from_the_first_token_that_overlaps_them() {
    let cases = golden_json("chat/completions.json");
    for case in cases.as_array().unwrap() {
        let encoder = encoder(text(&case["model"]), "completions", None, UNIX_EPOCH);
        let (prompt, completion) = (text(&case["prompt"]).to_owned(), text(&case["completion"]).to_owned());
        let about = format!("{}: {prompt:?} {completion:?}", case["model"]);
        let example =
            encode("test.jsonl", &document(Content::Completion { prompt, completion }), &encoder).unwrap();
        assert_example(&example, case, &about);
    }
}
