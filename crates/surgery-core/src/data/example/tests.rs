use super::*;
use crate::files::Folder;
use serde_json::{Value, json};

/// A tokenizer with a token for each of `tokens` and for each letter of `abcdefghij <>/|`. It adds the two tokens
/// `around` before and after a text.
fn encoder(tokens: &[&str], around: [&str; 2], settings: Value) -> TextEncoder {
    let letters = "abcdefghij <>/|".chars().map(String::from);
    let vocabulary: serde_json::Map<String, Value> = ["<s>", "</s>"]
        .into_iter()
        .map(str::to_owned)
        .chain(letters)
        .chain(tokens.iter().map(|token| token.to_string()))
        .enumerate()
        .map(|(id, token)| (token, id.into()))
        .collect();
    let merges: Vec<_> = tokens.iter().map(|token| json!([token[..1], token[1..]])).collect();
    let special = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false })
    };
    let part = |token: &str| match token {
        "" => None,
        token => Some(json!({ "SpecialToken": { "id": token, "type_id": 0 } })),
    };
    let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let single: Vec<_> = part(around[0]).into_iter().chain([text]).chain(part(around[1])).collect();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null, "decoder": null,
        "added_tokens": [special(0, "<s>"), special(1, "</s>")],
        "post_processor": {
            "type": "TemplateProcessing", "single": single, "pair": [{ "Sequence": { "id": "A", "type_id": 0 } },
            { "Sequence": { "id": "B", "type_id": 0 } }],
            "special_tokens": {
                "<s>": { "id": "<s>", "ids": [0], "tokens": ["<s>"] }, "</s>": { "id": "</s>", "ids": [1], "tokens": ["</s>"] }
            }
        },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocabulary, "merges": merges
        }
    });
    let leak = |value: Value| -> &'static [u8] { value.to_string().leak().as_bytes() };
    let files = vec![
        ("tokenizer.json", leak(file)),
        ("tokenizer_config.json", leak(settings)),
        ("config.json", leak(json!({ "eos_token_id": [1, 0] }))),
    ];
    let vocab_size = vocabulary_size(tokens);
    TextEncoder::load(&Folder::Embedded { name: "m".into(), files }, vocab_size).unwrap()
}

fn vocabulary_size(tokens: &[&str]) -> usize {
    17 + tokens.len()
}

fn completion(prompt: &str, completion: &str) -> Document {
    let content = Content::Completion { prompt: prompt.into(), completion: completion.into() };
    Document { id: "d".into(), subject: None, content, alternatives: Vec::new() }
}

fn conversation(messages: &[(&str, &str)]) -> Document {
    let message = |&(role, content): &(&str, &str)| Message {
        role: role.into(),
        content: MessageContent::Text(content.into()),
    };
    let content = Content::Messages(messages.iter().map(message).collect());
    Document { id: "d".into(), subject: None, content, alternatives: Vec::new() }
}

#[test]
fn the_completion_and_the_end_token_are_predicted() {
    let plain = encoder(&["bc"], ["<s>", ""], json!({}));
    // `b` of the prompt and `c` of the completion are one token.
    let example = encode("test.jsonl", &completion("ab", "cd"), &plain).unwrap();
    assert_eq!(
        (example.tokens.as_slice(), example.predicted.as_slice()),
        ([0, 2, 17, 5, 1].as_slice(), [2..5].as_slice())
    );
    assert_eq!(example.num_predicted(), 3);
    assert_eq!([0, 1, 2, 4, 5].map(|index| example.is_predicted(index)), [false, false, true, true, false]);

    // An end token that the tokenizer adds is not repeated; one in the data is part of the completion.
    let ending = encoder(&["bc"], ["<s>", "</s>"], json!({ "eos_token": "</s>" }));
    assert_eq!(encode("test.jsonl", &completion("ab", "cd"), &ending).unwrap(), example);
    let written = encode("test.jsonl", &completion("a", "d</s>"), &plain).unwrap();
    assert_eq!(
        (written.tokens.as_slice(), written.predicted.as_slice()),
        ([0, 2, 5, 1, 1].as_slice(), [2..5].as_slice())
    );

    // If the tokenizer adds no token before the text, the text's first token is not predicted.
    let bare = encoder(&[], ["", ""], json!({ "eos_token": "<s>" }));
    let example = encode("test.jsonl", &completion("", "ab"), &bare).unwrap();
    assert_eq!(
        (example.tokens.as_slice(), example.predicted.as_slice()),
        ([2, 3, 0].as_slice(), [1..3].as_slice())
    );
    let refused = encode("test.jsonl", &completion("", "a"), &bare).unwrap_err().to_string();
    assert!(refused.contains("document \"d\" encodes to 2 token(s), none of which"), "{refused}");
}

#[test]
fn alternatives_have_the_same_beginning() {
    let encoder = encoder(
        &[],
        ["<s>", ""],
        json!({ "chat_template": "{% for m in messages %}{{ m.content }}|{% endfor %}" }),
    );
    let mut document = completion("ab", "c");
    document.alternatives = vec!["d".into(), "ef".into()];
    let example = encode("test.jsonl", &document, &encoder).unwrap();
    let alternatives: Vec<_> = example.alternatives.iter().map(|example| example.tokens.as_slice()).collect();
    assert_eq!(alternatives, [&[0, 2, 3, 5, 1][..], &[0, 2, 3, 6, 7, 1]]);
    assert_eq!(example.alternatives[1].predicted, [3..6]);

    let mut document = conversation(&[("user", "a"), ("assistant", "b")]);
    document.alternatives = vec!["cd".into()];
    let example = encode("test.jsonl", &document, &encoder).unwrap();
    assert_eq!(
        (example.tokens.as_slice(), example.predicted.as_slice()),
        ([2, 16, 3, 16].as_slice(), [2..4].as_slice())
    );
    assert_eq!(example.alternatives[0].tokens, [2, 16, 4, 5, 16]);
}

#[test]
fn every_answer_is_predicted_and_nothing_else() {
    let template = "{% for m in messages %}<{{ m.role[0:1] | replace('u', 'c') }}>{{ m.content }}|{% endfor %}\
                    {% if add_generation_prompt %}<a>{% endif %}";
    let plain = encoder(&[], ["<s>", ""], json!({ "chat_template": template }));
    let messages = [("user", "e"), ("assistant", "f"), ("user", "g"), ("assistant", "h"), ("user", "i")];
    let example = encode("test.jsonl", &conversation(&messages), &plain).unwrap();
    // <c>e|<a>f|<c>g|<a>h|<c>i|, without a token before it.
    assert_eq!(example.tokens.len(), 25);
    assert_eq!(example.predicted, [8..10, 18..20]);

    let blocks = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}\
                  {% else %}{{ m.content }}{% endif %}{{ loop.length | replace('5', '|') }}{% endfor %}";
    let blocks = encoder(&[], ["<s>", ""], json!({ "chat_template": blocks }));
    let example = encode("test.jsonl", &conversation(&messages), &blocks).unwrap();
    assert_eq!((example.tokens.len(), example.predicted), (10, vec![2..3, 6..7]));
}

#[test]
fn messages_without_a_token_to_predict_are_refused() {
    let answer = conversation(&[("user", "a"), ("assistant", "b"), ("user", "c")]);
    let refusal = |settings: Value| {
        let encoder = encoder(&[], ["<s>", ""], settings);
        encode("test.jsonl", &answer, &encoder).unwrap_err().to_string()
    };
    let cases = [
        (
            json!({}),
            "the model has no chat template, which documents with `messages` need (document \"d\" of test.jsonl)",
        ),
        (
            json!({ "chat_template": "{{ raise_exception('no') }}" }),
            "m/tokenizer_config.json: refuses the messages: no (document \"d\" of test.jsonl)",
        ),
        (json!({ "chat_template": "{% if %}" }), "m/tokenizer_config.json: is not a template"),
        // Earlier turns are dropped.
        (
            json!({ "chat_template": "{{ messages[-1].content }}" }),
            "renders the first 2 message(s) differently if others follow",
        ),
        (
            json!({ "chat_template": "{% for m in messages %}{{ m.content if m.role == 'user' }}{% endfor %}" }),
            "none of which is to be predicted, because the model's chat template",
        ),
    ];
    for (settings, expected) in cases {
        let message = refusal(settings);
        assert!(message.contains(expected), "{message}");
    }
}
