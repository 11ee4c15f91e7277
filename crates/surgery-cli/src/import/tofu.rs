//! TOFU (arXiv 2401.06121; locuslab/TOFU on Hugging Face): questions about invented authors.
//!
//! Files are JSON Lines. `forgetNN.json` and `retainMM.json`, NN + MM = 100, hold `question` and `answer`. The
//! `_perturbed` files (`forgetNN`, `retain`, `real_authors`, `world_facts`) add `perturbed_answer`, a list of wrong
//! answers. Those about invented authors also add `paraphrased_answer`; the wrong answers are variations of it.
//!
//! A text is `{question} {answer}`, the form that multiple choice scores. The right option is the paraphrase if there
//! is one, as in TOFU's truth ratio; its position rotates. A data folder cannot hold `holdoutNN.json`: it has no
//! wrong answers, and no model of TOFU's has seen it.

use serde_json::Value;
use surgery_core::Result;
use surgery_core::data::{Document, Set};
use surgery_core::files::Folder;

use super::draft::{About, Candidate};
use super::records::{records, string, strings};
use super::{Draft, Reason};
use crate::args::ImportTofu;

const ABOUT: About = About {
    name: "TOFU",
    description: "Questions and answers about invented authors, to unlearn and to retain (arXiv 2401.06121)",
    licence: Some("MIT"),
};

/// Reads a folder.
pub fn read(args: &ImportTofu) -> Result<Draft> {
    let mut draft = Draft::new(ABOUT);
    let folder = Folder::Disk(args.folder.clone());
    let percent = args.forget.percent();
    let retain = format!("retain{}", 100 - percent);
    documents(&folder, &format!("forget{percent:02}"), Set::Unlearn, &mut draft)?;
    match folder.has(&format!("{retain}.json")) {
        true => documents(&folder, &retain, Set::Retain, &mut draft)?,
        false => draft.note(format!("{} is missing: no retain set", folder.label(&format!("{retain}.json")))),
    }
    let stem = format!("forget{percent:02}");
    for (stem, set) in [
        (stem.as_str(), Set::Unlearn.name()),
        ("retain", Set::Retain.name()),
        ("real_authors", "real_authors"),
        ("world_facts", "world_facts"),
    ] {
        let file = format!("{stem}_perturbed.json");
        match folder.has(&file) {
            true => questions(&folder, &file, set, &mut draft)?,
            false => draft.note(format!("{} is missing: no questions/{set}", folder.label(&file))),
        }
    }
    let holdout = format!("holdout{percent:02}.json");
    if folder.has(&holdout) {
        draft.note(format!("{} is left out: questions without options", folder.label(&holdout)));
    }
    Ok(draft)
}

fn documents(folder: &Folder, stem: &str, set: Set, draft: &mut Draft) -> Result<()> {
    let file = format!("{stem}.json");
    let before = draft.used();
    for (place, record) in records(folder, &file, draft)? {
        let Some(question) = string(draft, &place, &record, "question") else { continue };
        let Some(answer) = string(draft, &place, &record, "answer") else { continue };
        if question.trim().is_empty() || answer.trim().is_empty() {
            draft.leave_out(Reason::EmptyText, &place, "the question or the answer is empty");
            continue;
        }
        let id = format!("{stem}-{:04}", place.number());
        draft.document(set, &place, Document::of_text(id, None, format!("{question} {answer}")));
    }
    draft.refuse_unused(&folder.label(&file), before)
}

fn questions(folder: &Folder, file: &str, set: &str, draft: &mut Draft) -> Result<()> {
    let before = draft.used();
    for (place, record) in records(folder, file, draft)? {
        let Some(question) = string(draft, &place, &record, "question") else { continue };
        let key = if record.get("paraphrased_answer").is_some_and(|v| !v.is_null()) {
            "paraphrased_answer"
        } else {
            "answer"
        };
        // Some copies have a list with one element here.
        let right = match record.get(key) {
            Some(Value::Array(list)) if list.len() == 1 && list[0].is_string() => {
                list[0].as_str().map(str::to_owned)
            }
            _ => string(draft, &place, &record, key).map(str::to_owned),
        };
        let Some(right) = right else { continue };
        let Some(mut options) = strings(record.get("perturbed_answer")) else {
            draft.leave_out(
                Reason::UnreadableCell,
                &place.field("perturbed_answer"),
                "is not a list of strings",
            );
            continue;
        };
        let answer = draft.question_count(set) % (options.len() + 1);
        options.insert(answer, right);
        let id = format!("{set}-{:04}", place.number());
        draft.question(
            set,
            &place,
            Candidate { id, subject: None, question: question.into(), options, answer },
        );
    }
    draft.refuse_unused(&folder.label(file), before)
}
