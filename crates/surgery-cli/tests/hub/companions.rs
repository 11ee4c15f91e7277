//! The files of a model besides its weights: those that are fetched, and those that a written model contains.

use std::fs;
use std::path::Path;

use super::server::{Answer, COMMIT, Server, hub, hub_where, model};
use super::{FETCH, Place, errors, fail, succeed};

#[test]
fn all_files_of_a_model_are_fetched_and_copied_into_a_written_model() {
    const TEMPLATE: &str = "additional_chat_templates/tool.jinja";
    const OTHERS: [&str; 5] = [
        "README.md",
        "pytorch_model.bin",
        "additional_chat_templates/notes.txt",
        "additional_chat_templates/my evil.jinja",
        "additional_chat_templates/../../../evil.jinja",
    ];
    let belongs = [
        ("LICENSE", "Do as you like.\n"),
        ("NOTICE", "Made by nobody.\n"),
        ("USE_POLICY.md", "Be kind.\n"),
        ("added_tokens.json", "{}\n"),
        ("special_tokens_map.json", "{}\n"),
        ("tokenizer.model", "pieces"),
        ("chat_template.jinja", "{{ messages[0].content }}"),
        (TEMPLATE, "{{ tools }}"),
    ];
    let mut files = model();
    files.extend(belongs.map(|(file, content)| (file.to_owned(), content.into())));
    files.extend(OTHERS.map(|file| (file.to_owned(), b"not the model's".to_vec())));
    let place = Place::new("companions");
    let server = Server::start(move |asked| hub(&files, asked));
    let fetched = place.command(&server.address, &FETCH).output().unwrap();
    let errors = errors(&fetched);
    assert_eq!(fetched.status.code(), Some(0), "{errors}");
    assert_eq!(errors.matches("evil.jinja\" is left out").count(), 2, "{errors}");
    assert!(server.asked("GET", "evil.jinja").is_empty());
    assert!(server.asked("GET", &format!("tree/{COMMIT}/additional_chat_templates")).len() == 1);
    place.assert_has_model();

    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/steps/data");
    let run = ["run", "paper", "--model", "org/tiny", "--set", "train.steps=0", "--output", "out", "--data"];
    succeed(&mut place.command(&server.address, &[&run[..], &[data.to_str().unwrap()]].concat()));
    let output = place.folder.join("out/model");
    for (file, content) in belongs {
        for folder in [&place.snapshot(), &output] {
            assert_eq!(fs::read_to_string(folder.join(file)).unwrap(), content, "{file}");
        }
    }
    for file in OTHERS {
        assert!(!place.snapshot().join(file).exists() && !output.join(file).exists(), "{file}");
    }
    let report = fs::read_to_string(place.folder.join("out/report.json")).unwrap();
    for folder in [COMMIT, "out/model"] {
        assert!(report.contains(&format!("{folder}/{TEMPLATE}")), "{report}");
    }

    // An answer that is not from the hub is not read as a list.
    let place = Place::new("no-list");
    let server = hub_where(|asked| asked.path.starts_with("/api/").then(|| Answer::new(200, b"<html>")));
    fail(&mut place.command(&server.address, &FETCH), 7, &["additional_chat_templates", "HF_ENDPOINT"]);
}
