//! The data folder, from a draft.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use surgery_core::data::{Corpus, Document, Question, QuestionSet, Set};
use surgery_core::files::{Folder, hex, write_text};
use surgery_core::{Error, Result};

use super::Draft;
use crate::output::Output;

/// Writes the data folder, after `check_output`. `dataset.toml` comes last, once the folder has been read back as
/// `run` reads it, so a folder that has one is whole; a failure leaves nothing behind.
pub fn write(draft: &Draft, output: &Path) -> Result<()> {
    let existed = output.is_dir();
    let claimed = Output::claim(Some(output))?;
    let folder = claimed.path();
    let mut written = Vec::new();
    let outcome = write_files(draft, folder, &mut written);
    if outcome.is_err() {
        // That something cannot be removed adds nothing to the failure.
        for path in &written {
            let _ = fs::remove_file(path);
        }
        let _ = fs::remove_dir(folder.join("questions"));
        drop(claimed);
        if !existed {
            let _ = fs::remove_dir(output);
        }
    }
    outcome
}

fn write_files(draft: &Draft, folder: &Path, written: &mut Vec<PathBuf>) -> Result<()> {
    let mut counts = toml::Table::new();
    let mut sums = toml::Table::new();
    let mut put = |name: String, lines: Vec<Value>| -> Result<()> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let file = format!("{name}.jsonl");
        let path = folder.join(&file);
        write_text(&path, &text)?;
        written.push(path);
        counts.insert(name, toml::Value::Integer(lines.len() as i64));
        sums.insert(file, toml::Value::String(hex(&Sha256::digest(text.as_bytes()))));
        Ok(())
    };
    for (set, documents) in &draft.documents {
        put(set.name().into(), documents.iter().map(document_line).collect())?;
    }
    if !draft.questions.is_empty() {
        let questions = folder.join("questions");
        fs::create_dir_all(&questions).map_err(Error::write(&questions))?;
    }
    for (name, questions) in &draft.questions {
        put(format!("questions/{name}"), questions.iter().map(question_line).collect())?;
    }

    let disk = Folder::Disk(folder.to_path_buf());
    let trained: Vec<Set> =
        Set::TRAINED.into_iter().filter(|set| draft.documents.contains_key(set)).collect();
    Corpus::load(&disk, &trained)?;
    QuestionSet::load_all(&disk)?;

    let mut about = toml::Table::new();
    about.insert("name".into(), draft.about.name.into());
    about.insert("description".into(), draft.about.description.into());
    about.extend(draft.about.licence.map(|licence| ("licence".to_owned(), licence.into())));
    about.insert("counts".into(), counts.into());
    about.insert("sha256".into(), sums.into());
    let path = folder.join("dataset.toml");
    let text = toml::to_string(&about).expect("strings and numbers");
    write_text(&path, &text)
}

fn document_line(document: &Document) -> Value {
    record(&document.id, document.subject.as_deref(), [("text", json!(document.text))])
}

fn question_line(question: &Question) -> Value {
    let rest = [
        ("question", json!(question.question)),
        ("options", json!(question.options)),
        ("answer", json!(question.answer)),
        ("split", json!(question.split)),
    ];
    record(&question.id, question.subject.as_deref(), rest)
}

fn record<const N: usize>(id: &str, subject: Option<&str>, rest: [(&str, Value); N]) -> Value {
    let mut record = Map::new();
    record.insert("id".into(), id.into());
    record.extend(subject.map(|subject| ("subject".to_owned(), subject.into())));
    record.extend(rest.map(|(key, value)| (key.to_owned(), value)));
    Value::Object(record)
}
