//! The data of the LLM Surgery authors (arXiv 2409.13054; akshajkumarv/llm_surgery_code).
//!
//! Biographies are in one CSV file: `wiki_bio_text` (true), `gpt4_bio_text` (new), and the questions about each,
//! `wiki_bio_text_qa` and `gpt4_inaccurate_text_qa`. A separate file names the subject of each row, one name a line.
//! Retain data are one CSV file of texts (`text`) and one of questions about them (`qa`). A cell of questions is a
//! Python list of dicts: `Q`, `option1` to `option3`, and `correct answer`, which names an option or repeats its
//! text.
//!
//! The first half of the rows are edited, the others unlearned. There are three differences from the authors' code. A
//! row with an unreadable text or list of questions is left out as a whole, where the authors lose that cell only.
//! Questions alternate between validation and test, where the authors draw at random. No rows of the retain files are
//! skipped by number.

use std::path::Path;

use surgery_core::data::{Document, Set};
use surgery_core::{Error, Result};

use super::draft::{About, Candidate, check_text};
use super::place::{Place, shown};
use super::python::{Literal, parse};
use super::records;
use super::table::{Row, Table, is_missing};
use super::{Draft, Reason};
use crate::args::ImportAuthors;
use surgery_core::files::file_in_folder;

const ABOUT: About = About {
    name: "LLM Surgery",
    description: "Biographies to unlearn and to edit, and web texts to retain, by the authors of LLM Surgery \
                  (arXiv 2409.13054)",
    licence: None,
};

/// Columns of the biographies: a text and the questions about it.
const TRUE: (&str, &str) = ("wiki_bio_text", "wiki_bio_text_qa");
const NEW: (&str, &str) = ("gpt4_bio_text", "gpt4_inaccurate_text_qa");

/// Reads the files.
pub fn read(args: &ImportAuthors) -> Result<Draft> {
    let mut draft = Draft::new(ABOUT);
    biographies(args, &mut draft)?;
    for (index, path) in args.retain.iter().enumerate() {
        retain(path, &format!("{}-", index + 1), args.retain_rows, &mut draft)?;
    }
    Ok(draft)
}

fn biographies(args: &ImportAuthors, draft: &mut Draft) -> Result<()> {
    let (folder, file) = file_in_folder(&args.biographies);
    let table = Table::read(&folder, &file, draft)?;
    let needed = [TRUE.0, NEW.0, TRUE.1, NEW.1];
    let missing = needed.into_iter().filter(|column| !table.has(column));
    let missing: Vec<String> = missing.map(|column| format!("`{column}`")).collect();
    if !missing.is_empty() {
        return Err(table.lacks(&missing.join(", ")));
    }
    table.refuse_repeated(&needed)?;
    let (folder, file) = file_in_folder(&args.subjects);
    let names = records::text(&folder, &file)?;
    let names: Vec<&str> = names.trim_end().lines().map(str::trim).collect();
    if names.len() != table.len() {
        return Err(Error::Data {
            path: folder.label(&file),
            problem: format!(
                "has {} lines, but {} has {} rows{}",
                names.len(),
                table.file,
                table.len(),
                draft.example(&table.file)
            ),
            remedy: "give one name a line, in the order of the rows".into(),
        });
    }
    let half = table.len() / 2;
    let before = draft.used();
    for row in table.rows() {
        let number = row.place.number();
        let subject = names[number - 1];
        if subject.is_empty() || is_missing(subject) {
            let problem = format!("{} has no name for this row", args.subjects.display());
            draft.leave_out(Reason::UnreadableRow, &row.place, problem);
            continue;
        }
        let wanted = match number <= half {
            true => &[(Set::EditUnlearn, TRUE), (Set::EditUpdate, NEW)][..],
            false => &[(Set::Unlearn, TRUE)],
        };
        let entries = wanted.iter().map(|(set, columns)| Ok((*set, Entry::read(&table, row, *columns)?)));
        match entries.collect::<Result<Vec<_>, Fault>>() {
            Ok(entries) => {
                entries.into_iter().for_each(|(set, entry)| entry.add(set, "", Some(subject), draft))
            }
            Err(fault) => fault.leave_out(draft),
        }
    }
    draft.refuse_unused(&table.file, before)
}

fn retain(path: &Path, prefix: &str, rows: Option<usize>, draft: &mut Draft) -> Result<()> {
    const TEXTS: &str = "text";
    const QUESTIONS: &str = "qa";
    let (folder, file) = file_in_folder(path);
    let table = Table::read(&folder, &file, draft)?;
    if !table.has(TEXTS) && !table.has(QUESTIONS) {
        return Err(table.lacks(&format!("`{TEXTS}` or `{QUESTIONS}`")));
    }
    table.refuse_repeated(&[TEXTS, QUESTIONS])?;
    let before = draft.used();
    let wanted = |row: &&Row| rows.is_none_or(|rows| row.place.number() <= rows);
    for row in table.rows().iter().filter(wanted) {
        match Entry::read(&table, row, (TEXTS, QUESTIONS)) {
            Ok(entry) => entry.add(Set::Retain, prefix, None, draft),
            Err(fault) => fault.leave_out(draft),
        }
    }
    draft.refuse_unused(&table.file, before)
}

/// The reason why a row is left out.
struct Fault {
    reason: Reason,
    place: Place,
    problem: String,
}

impl Fault {
    fn leave_out(self, draft: &mut Draft) {
        draft.leave_out(self.reason, &self.place, self.problem);
    }
}

/// The text and the questions of a row, if the file has these columns.
struct Entry<'a> {
    text: Option<(Place, &'a str)>,
    questions: Option<(Place, Vec<Literal>)>,
}

impl<'a> Entry<'a> {
    /// Reads the text and the questions in two columns, or returns the fault of one of them.
    fn read(table: &Table, row: &'a Row, columns: (&str, &str)) -> Result<Self, Fault> {
        let text = table.cell(row, columns.0).map(|(place, cell)| match readable(cell) {
            Ok(()) => Ok((place, cell)),
            Err((reason, problem)) => Err(Fault { reason, place, problem }),
        });
        let questions = table.cell(row, columns.1).map(|(place, cell)| match parse(cell) {
            Ok(Literal::List(questions)) => Ok((place, questions)),
            Ok(_) => Err(Fault {
                reason: Reason::UnreadableCell,
                place,
                problem: "is not a list of questions".into(),
            }),
            Err(problem) => Err(Fault { reason: Reason::UnreadableCell, place, problem }),
        });
        Ok(Self { text: text.transpose()?, questions: questions.transpose()? })
    }

    /// Adds text and questions to a set. Their ids consist of `prefix`, which distinguishes files, and the row
    /// number.
    fn add(self, set: Set, prefix: &str, subject: Option<&str>, draft: &mut Draft) {
        let id = |place: &Place| format!("{prefix}{:05}", place.number());
        if let Some((place, text)) = self.text {
            let text = match subject {
                Some(subject) => format!("This is a Wikipedia passage about {subject}. {text}"),
                None => text.to_owned(),
            };
            let document = Document::of_text(id(&place), subject.map(str::to_owned), text);
            draft.document(set, &place, document);
        }
        let Some((place, questions)) = self.questions else { return };
        for (number, literal) in (1..).zip(&questions) {
            match question(literal) {
                Ok((question, options, answer)) => {
                    let id = format!("{}-{number:02}", id(&place));
                    let subject = subject.map(str::to_owned);
                    draft.question(set.name(), &place, Candidate { id, subject, question, options, answer });
                }
                Err(problem) => {
                    let problem = format!("question {number}: {problem}");
                    draft.leave_out(Reason::UnreadableQuestion, &place, problem);
                }
            }
        }
    }
}

/// Refuses a missing text and one that a data folder cannot hold.
fn readable(text: &str) -> Result<(), (Reason, String)> {
    match is_missing(text) {
        true => Err((Reason::UnreadableCell, format!("is `{}`, which means a missing value", text.trim()))),
        false => check_text(text),
    }
}

fn question(literal: &Literal) -> Result<(String, Vec<String>, usize), String> {
    const ANSWER: &str = "correct answer";
    let text = |key: &str| -> Result<&str, String> {
        let value = literal.get(key).ok_or_else(|| format!("has no `{key}`"))?;
        value.text().ok_or_else(|| format!("`{key}` is not a string"))
    };
    if !matches!(literal, Literal::Dict(_)) {
        return Err("is not a dict".into());
    }
    let question = text("Q")?.to_owned();
    let keys = ["option1", "option2", "option3"];
    let options = keys.into_iter().map(text).collect::<Result<Vec<&str>, _>>()?;
    let answer = text(ANSWER)?.trim();
    // The name of an option takes precedence over the text of one.
    let named = keys.into_iter().position(|key| key == answer);
    let right = named.or_else(|| options.iter().position(|option| option.trim() == answer));
    let right =
        right.ok_or_else(|| format!("`{ANSWER}` is `{}`, which is none of the options", shown(answer)))?;
    Ok((question, options.into_iter().map(str::to_owned).collect(), right))
}
