//! Multiple-choice questions.

use serde::{Deserialize, Serialize};

use super::jsonl;
use crate::error::{Error, Result};
use crate::files::Folder;

/// The half that a question belongs to. Recipes are chosen on validation, results are reported on test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// The half for choosing recipes.
    Validation,
    /// The half for reporting results.
    Test,
}

/// A question. An evaluation scores `"{question} {option}"` for each option.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Question {
    /// Unique in its file.
    pub id: String,
    /// Its subject.
    #[serde(default)]
    pub subject: Option<String>,
    /// The question, without the options.
    pub question: String,
    /// The options, two or more.
    pub options: Vec<String>,
    /// Index of the correct option.
    pub answer: usize,
    /// Its half.
    pub split: Split,
}

/// The questions of one file. Results are reported under the file's stem.
#[derive(Debug, Clone, PartialEq)]
pub struct QuestionSet {
    /// The stem of the file.
    pub name: String,
    /// In the file's order.
    pub questions: Vec<Question>,
}

impl QuestionSet {
    /// Loads every `*.jsonl` in the subfolder `questions`, ordered by name; empty without such a folder.
    pub fn load_all(folder: &Folder) -> Result<Vec<Self>> {
        const FOLDER: &str = "questions";
        if !folder.has_folder(FOLDER) {
            return Ok(Vec::new());
        }
        let names = folder.list(FOLDER)?;
        let stems = names.iter().filter_map(|name| name.strip_suffix(".jsonl"));
        stems.map(|stem| Self::load(folder, &format!("{FOLDER}/{stem}.jsonl"), stem)).collect()
    }

    /// The file's path in the data folder.
    pub fn file(&self) -> String {
        format!("questions/{}.jsonl", self.name)
    }

    fn load(folder: &Folder, file: &str, name: &str) -> Result<Self> {
        let records: Vec<(usize, Question)> = jsonl::read(folder, file)?;
        let path = folder.label(file);
        if records.is_empty() {
            return Err(Error::Data {
                path,
                problem: "contains no question".into(),
                remedy: "add questions or remove the file".into(),
            });
        }
        for (line, question) in &records {
            if let Err(problem) = question.check() {
                return Err(Error::Line { path, line: *line, problem });
            }
        }
        jsonl::refuse_duplicates(&path, records.iter().map(|(line, q)| (*line, q.id.as_str())))?;
        let questions = records.into_iter().map(|(_, question)| question).collect();
        Ok(Self { name: name.into(), questions })
    }
}

impl Question {
    fn check(&self) -> Result<(), String> {
        let count = self.options.len();
        if self.question.trim().is_empty() {
            return Err(format!("question {:?} has an empty text", self.id));
        }
        if count < 2 {
            return Err(format!("question {:?} has {count} options; at least 2 are needed", self.id));
        }
        if let Some(empty) = self.options.iter().position(|option| option.trim().is_empty()) {
            return Err(format!("option {empty} of question {:?} is empty", self.id));
        }
        if self.answer >= count {
            return Err(format!(
                "question {:?} has answer {} but its options are 0 to {}",
                self.id,
                self.answer,
                count - 1
            ));
        }
        Ok(())
    }
}
