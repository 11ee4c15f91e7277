//! The data of the LLM Surgery authors (arXiv 2409.13054; akshajkumarv/llm_surgery_code).
//!
//! Biographies are one CSV file: `wiki_bio_text` (true), `gpt4_bio_text` (new), and the questions about each,
//! `wiki_bio_text_qa` and `gpt4_inaccurate_text_qa`. Whom a row is about stands in a file of its own, a name a line.
//! What is to stay is one CSV file of texts (`text`) and one of questions about them (`qa`). A cell of questions is a
//! Python list of dicts: `Q`, `option1` to `option3`, and `correct answer`, which names an option or repeats its text.
//!
//! The first half of the rows are edited, the others unlearned. As there, a cell that cannot be read costs its
//! questions and not the text. Unlike there, the halves for validation and test are every other question rather than
//! drawn by chance, and no rows of the retain files are left out by number.

use std::path::Path;

use surgery_core::data::{Document, Set};
use surgery_core::{Error, Result};

use super::draft::{About, Candidate};
use super::place::{Place, shown};
use super::python::{Literal, parse};
use super::records;
use super::table::Table;
use super::{Draft, Reason};
use crate::args::ImportAuthors;
use crate::inputs::file_in_folder;

const ABOUT: About = About {
    name: "LLM Surgery",
    description: "Biographies to unlearn and to edit, and web texts to retain, by the authors of LLM Surgery \
                  (arXiv 2409.13054)",
    licence: None,
};

/// The columns of the biographies: a text and the questions about it.
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
    let missing = [TRUE.0, NEW.0, TRUE.1, NEW.1].into_iter().filter(|column| !table.has(column));
    let missing: Vec<String> = missing.map(|column| format!("`{column}`")).collect();
    if !missing.is_empty() {
        return Err(table.lacks(&missing.join(", ")));
    }
    let (folder, file) = file_in_folder(&args.subjects);
    let names = records::text(&folder, &file)?;
    let names: Vec<&str> = names.trim_end().lines().map(str::trim).collect();
    if names.len() != table.len() {
        return Err(Error::Data {
            path: folder.label(&file),
            problem: format!("has {} lines, and {} has {} rows", names.len(), table.file, table.len()),
            remedy: "give one name a line, in the order of the rows".into(),
        });
    }
    let half = table.len() / 2;
    let (edited, others) = (1..half + 1, half + 1..table.len() + 1);
    let before = draft.used();
    for ((texts, questions), rows, set) in
        [(TRUE, &others, Set::Unlearn), (TRUE, &edited, Set::EditUnlearn), (NEW, &edited, Set::EditUpdate)]
    {
        for (place, text) in table.cells(texts, rows, draft) {
            let subject = names[place.number() - 1];
            if subject.is_empty() {
                let problem = format!("{} has no name for this row", args.subjects.display());
                draft.leave_out(Reason::UnreadableRow, &place, problem);
            } else if text.trim().is_empty() {
                draft.leave_out(Reason::EmptyText, &place, "the text is empty");
            } else {
                let text = format!("This is a Wikipedia passage about {subject}. {text}");
                draft.document(
                    set,
                    &place,
                    Document { id: id("", &place), subject: Some(subject.into()), text },
                );
            }
        }
        for (place, cell) in table.cells(questions, rows, draft) {
            let subject = names[place.number() - 1];
            if !subject.is_empty() {
                ask(set, &id("", &place), Some(subject), &place, cell, draft);
            }
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
    let before = draft.used();
    let rows = 1..rows.map_or(table.len(), |rows| rows.min(table.len())) + 1;
    for (place, text) in table.cells(TEXTS, &rows, draft) {
        draft.document(
            Set::Retain,
            &place,
            Document { id: id(prefix, &place), subject: None, text: text.into() },
        );
    }
    for (place, cell) in table.cells(QUESTIONS, &rows, draft) {
        ask(Set::Retain, &id(prefix, &place), None, &place, cell, draft);
    }
    draft.refuse_unused(&table.file, before)
}

/// A record's id; the prefix tells files apart.
fn id(prefix: &str, place: &Place) -> String {
    format!("{prefix}{:05}", place.number())
}

/// Adds the questions of one cell.
fn ask(set: Set, id: &str, subject: Option<&str>, place: &Place, cell: &str, draft: &mut Draft) {
    let questions = match parse(cell) {
        Ok(Literal::List(questions)) => questions,
        Ok(_) => return draft.leave_out(Reason::UnreadableCell, place, "is no list of questions"),
        Err(problem) => return draft.leave_out(Reason::UnreadableCell, place, problem),
    };
    if questions.is_empty() {
        draft.leave_out(Reason::UnreadableCell, place, "holds no question");
    }
    for (index, literal) in questions.iter().enumerate() {
        let number = index + 1;
        match question(literal) {
            Ok((question, options, answer)) => {
                let id = format!("{id}-{number:02}");
                let subject = subject.map(str::to_owned);
                draft.question(set.name(), place, Candidate { id, subject, question, options, answer });
            }
            Err(problem) => {
                draft.leave_out(Reason::UnreadableQuestion, place, format!("question {number}: {problem}"));
            }
        }
    }
}

fn question(literal: &Literal) -> Result<(String, Vec<String>, usize), String> {
    const ANSWER: &str = "correct answer";
    let text = |key: &str| -> Result<&str, String> {
        let value = literal.get(key).ok_or_else(|| format!("has no `{key}`"))?;
        value.text().ok_or_else(|| format!("`{key}` is no text"))
    };
    if !matches!(literal, Literal::Dict(_)) {
        return Err("is no dict".into());
    }
    let question = text("Q")?.to_owned();
    let keys = ["option1", "option2", "option3"];
    let options = keys.into_iter().map(text).collect::<Result<Vec<&str>, _>>()?;
    let answer = text(ANSWER)?.trim();
    // The name of an option counts before the text of one.
    let named = keys.into_iter().position(|key| key == answer);
    let right = named.or_else(|| options.iter().position(|option| option.trim() == answer));
    let right =
        right.ok_or_else(|| format!("`{ANSWER}` is `{}`, which is none of the options", shown(answer)))?;
    Ok((question, options.into_iter().map(str::to_owned).collect(), right))
}
