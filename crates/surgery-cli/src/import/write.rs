//! Writes a draft as a data folder.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use surgery_core::data::{Corpus, Document, Question, QuestionSet, Set};
use surgery_core::files::{Folder, create_parent, hex, rename, write_text};
use surgery_core::{Error, Result};

use super::Draft;
use crate::output::{Output, TEMPORARY_IMPORT};

/// The subfolder of a data folder that holds its questions.
const QUESTIONS: &str = "questions";

/// The file that is written last: an imported folder with this file is complete.
const ABOUT: &str = "dataset.toml";

/// Writes the data folder after `check_output`. Files are written under temporary names, read back as `run` reads
/// them, and renamed, `dataset.toml` last. A failure leaves nothing behind.
pub fn write(draft: &Draft, output: &Path) -> Result<()> {
    let existed = output.is_dir();
    let claimed = Output::claim(Some(output))?;
    let folder = claimed.path();
    let temporary = folder.join(TEMPORARY_IMPORT);
    // A killed process may have left it.
    let emptied = match fs::remove_dir_all(&temporary) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    };
    let outcome = emptied
        .and_then(|()| fs::create_dir(&temporary))
        .map_err(Error::write(&temporary))
        .and_then(|()| write_files(draft, &temporary))
        .and_then(|names| {
            names.iter().try_for_each(|name| rename(&temporary.join(name), &folder.join(name)))
        });
    // A failed removal is ignored: it adds nothing to a failure.
    let _ = fs::remove_dir_all(&temporary);
    if outcome.is_err() {
        // The folder was empty and is locked, so these files are ours.
        for name in draft.documents.keys().map(|set| set.file()) {
            let _ = fs::remove_file(folder.join(name));
        }
        let _ = fs::remove_dir_all(folder.join(QUESTIONS));
        drop(claimed);
        if !existed {
            let _ = fs::remove_dir(output);
        }
    }
    outcome
}

/// Writes all files into `folder`, and returns the names in it in the order in which to rename them.
fn write_files(draft: &Draft, folder: &Path) -> Result<Vec<String>> {
    let mut counts = toml::Table::new();
    let mut sums = toml::Table::new();
    let mut put = |name: String, lines: Vec<Value>| -> Result<()> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let file = format!("{name}.jsonl");
        let path = folder.join(&file);
        create_parent(&path)?;
        write_text(&path, &text)?;
        counts.insert(name, toml::Value::Integer(lines.len() as i64));
        sums.insert(file, toml::Value::String(hex(&Sha256::digest(text.as_bytes()))));
        Ok(())
    };
    for (set, documents) in &draft.documents {
        put(set.name().into(), documents.iter().map(document_line).collect())?;
    }
    for (name, questions) in &draft.questions {
        put(format!("{QUESTIONS}/{name}"), questions.iter().map(question_line).collect())?;
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
    let text = toml::to_string(&about).expect("strings and numbers");
    write_text(&folder.join(ABOUT), &text)?;

    let mut names: Vec<String> = draft.documents.keys().map(|set| set.file()).collect();
    names.extend((!draft.questions.is_empty()).then(|| QUESTIONS.to_owned()));
    names.push(ABOUT.into());
    Ok(names)
}

fn document_line(document: &Document) -> Value {
    record(&document.id, document.subject.as_deref(), [("text", json!(document.text()))])
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
