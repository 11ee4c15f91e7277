//! The data folder, from a draft.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use surgery_core::data::{Corpus, Document, Question, QuestionSet, Set};
use surgery_core::files::{Folder, create_parent, hex, rename, write_text};
use surgery_core::{Error, Result};

use super::Draft;
use crate::output::{BEGUN_IMPORT, Output};

/// The folder of a data folder that holds its questions.
const QUESTIONS: &str = "questions";

/// The file that comes last: a data folder of ours that has one is whole.
const ABOUT: &str = "dataset.toml";

/// Writes the data folder, after `check_output`. Its files get their names once all of them have been written and read
/// back as `run` reads them, and `dataset.toml` the last; a failure leaves nothing behind.
pub fn write(draft: &Draft, output: &Path) -> Result<()> {
    let existed = output.is_dir();
    let claimed = Output::claim(Some(output))?;
    let folder = claimed.path();
    let begun = folder.join(BEGUN_IMPORT);
    // One that was killed may have left it.
    let emptied = match fs::remove_dir_all(&begun) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    };
    let outcome = emptied
        .and_then(|()| fs::create_dir(&begun))
        .map_err(Error::write(&begun))
        .and_then(|()| write_files(draft, &begun))
        .and_then(|names| names.iter().try_for_each(|name| rename(&begun.join(name), &folder.join(name))));
    // That something cannot be removed adds nothing to a failure, and is none by itself.
    let _ = fs::remove_dir_all(&begun);
    if outcome.is_err() {
        // The folder was empty, and is nobody else's.
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

/// Writes all files into `folder`, and gives the names of what it holds, in the order in which they may be seen.
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
