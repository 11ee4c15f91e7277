//! `surgery import`: converts a published dataset into a data folder.

use std::path::Path;

use serde_json::{Map, json};
use surgery_core::data::Set;
use surgery_core::files::Folder;

use crate::args::{Common, Import};
use crate::exit::Outcome;
use crate::import::{Draft, authors, muse, rwku, tofu, write};
use crate::output::check_output;
use crate::terminal::{Log, print, print_json};

/// Reads the files of a format and writes a data folder.
pub fn run(import: Import, common: Common) -> Outcome {
    let log = Log::new(&common);
    let (output, source) = match &import {
        Import::Authors(args) => (&args.output, None),
        Import::Tofu(args) => (&args.output, Some(&args.folder)),
        Import::Muse(args) => (&args.output, Some(&args.folder)),
        Import::Rwku(args) => (&args.output, Some(&args.folder)),
    };
    let source = source.map(|folder| Folder::Disk(folder.clone()));
    check_output(Some(output), source.as_ref().as_slice())?;
    let draft = match &import {
        Import::Authors(args) => authors::read(args),
        Import::Tofu(args) => tofu::read(args),
        Import::Muse(args) => muse::read(args),
        Import::Rwku(args) => rwku::read(args),
    }?;
    write(&draft, output)?;

    for note in &draft.notes {
        log.info(note);
    }
    for (reason, left_out) in &draft.left_out {
        let reason = json!(reason);
        let reason = reason.as_str().unwrap_or_default().replace('_', " ");
        log.warn(&format!("left out {} × {reason}", left_out.count));
        for example in &left_out.first {
            log.info(&format!("  {example}"));
        }
    }
    if common.json { print_json(&summary(&draft, output)) } else { print(&summary_text(&draft, output)) }
}

fn summary(draft: &Draft, output: &Path) -> serde_json::Value {
    let documents: Map<_, _> =
        draft.documents.iter().map(|(set, all)| (set.name().to_owned(), all.len().into())).collect();
    let questions: Map<_, _> =
        draft.questions.iter().map(|(set, all)| (set.clone(), all.len().into())).collect();
    json!({
        "output": output.display().to_string(),
        "documents": documents,
        "questions": questions,
        "left_out": draft.left_out,
        "notes": draft.notes,
    })
}

/// Number of entries and the command to run next.
fn summary_text(draft: &Draft, output: &Path) -> String {
    let documents = draft.documents.iter().map(|(set, all)| (set.name().to_owned(), all.len(), "documents"));
    let questions =
        draft.questions.iter().map(|(set, all)| (format!("questions/{set}"), all.len(), "questions"));
    let mut lines: Vec<String> = documents
        .chain(questions)
        .map(|(name, count, what)| format!("{name:<24} {count:>7} {what}"))
        .collect();
    let absent = Set::TRAINED.into_iter().filter(|set| !draft.documents.contains_key(set));
    let zero: String = absent.map(|set| format!(" --set objective.{set}=0")).collect();
    lines.push(format!("next: surgery run --model M --data {}{zero}", output.display()));
    lines.join("\n")
}
