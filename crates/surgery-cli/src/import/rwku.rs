//! RWKU (arXiv 2406.10890; jinzhuoran/RWKU on Hugging Face): knowledge about 200 well-known people.
//!
//! `All/` holds all targets, `Target/N_Name/` the same files for one target. `passage.json` (`subject`, `text`) holds
//! passages about the targets, `retain_mia.json` (`text`) passages about others. `retain_mmlu.json` (`question`,
//! `choices`, `answer`, the index of the right choice) and `truthful.json` (`question`, `mc1_targets` with `choices`
//! and `labels`, one of them 1) are multiple choice. The probes `forget_level1` to `3` and `neighbor_level1` and `2`
//! (`query`, `answer`) have no options and are left out, as are `retain_bbh`, `triviaqa` and `fluency`.
//!
//! RWKU has no texts to retain. With `--target`, the passages about the other targets become retain documents.

use serde_json::Value;
use surgery_core::data::{Document, Set};
use surgery_core::files::Folder;
use surgery_core::{Error, Result};

use super::draft::{About, Candidate};
use super::place::Place;
use super::records::{records, string, strings};
use super::{Draft, Reason};
use crate::args::ImportRwku;

const ABOUT: About = About {
    name: "RWKU",
    description: "Passages about well-known people, to unlearn and to retain (arXiv 2406.10890)",
    licence: Some("CC-BY-4.0"),
};

const PASSAGES: &str = "passage.json";

/// Reads a folder.
pub fn read(args: &ImportRwku) -> Result<Draft> {
    let mut draft = Draft::new(ABOUT);
    let all = args.folder.join("All");
    let folder = Folder::Disk(if all.is_dir() { all } else { args.folder.clone() });
    passages(&folder, &args.targets, &mut draft)?;
    if !draft.documents.contains_key(&Set::Retain) {
        draft.note("no retain set: give --target, so that the passages about others are retained".into());
    }
    let wanted = |record: &Value| match record.get("subject").and_then(Value::as_str) {
        Some(subject) => args.targets.is_empty() || args.targets.iter().any(|target| target == subject),
        None => true,
    };
    for (file, set) in
        [("retain_mia.json", "retain_heldout"), ("retain_mmlu.json", "mmlu"), ("truthful.json", "truthfulqa")]
    {
        if !folder.has(file) {
            draft.note(format!("{} is missing: no {set}", folder.label(file)));
            continue;
        }
        let before = draft.used();
        for (place, record) in records(&folder, file, &mut draft)?.iter().filter(|(_, record)| wanted(record))
        {
            match set {
                "mmlu" => question(set, place, record, mmlu(record), &mut draft),
                "truthfulqa" => question(set, place, record, truthfulqa(record), &mut draft),
                _ => document(Set::RetainHeldout, place, record, "retain_mia", &mut draft),
            }
        }
        draft.refuse_unused(&folder.label(file), before)?;
    }
    for stem in ["forget_level1", "forget_level2", "forget_level3", "neighbor_level1", "neighbor_level2"] {
        let file = format!("{stem}.json");
        if folder.has(&file) {
            draft.note(format!("{} is left out: questions without options", folder.label(&file)));
        }
    }
    Ok(draft)
}

/// Adds the passages about the targets to unlearn, then those about others to retain.
fn passages(folder: &Folder, targets: &[String], draft: &mut Draft) -> Result<()> {
    let before = draft.used();
    let records = records(folder, PASSAGES, draft)?;
    // A passage without a subject can be assigned to neither set.
    let about = |(place, record)| Some((place, record, string(draft, place, record, "subject")?));
    let passages: Vec<(&Place, &Value, &str)> =
        records.iter().map(|(place, record)| (place, record)).filter_map(about).collect();
    for target in targets {
        if !passages.iter().any(|(_, _, subject)| subject == target) {
            return Err(Error::Data {
                path: folder.label(PASSAGES),
                problem: format!("has no passage about `{target}`"),
                remedy: "give --target a name that is the value of a key `subject`".into(),
            });
        }
    }
    let forget = |subject: &str| targets.is_empty() || targets.iter().any(|target| target == subject);
    for (set, forgotten) in [(Set::Unlearn, true), (Set::Retain, false)] {
        for (place, record, _) in passages.iter().filter(|(_, _, subject)| forget(subject) == forgotten) {
            document(set, place, record, "passage", draft);
        }
    }
    draft.refuse_unused(&folder.label(PASSAGES), before)
}

fn document(set: Set, place: &Place, record: &Value, stem: &str, draft: &mut Draft) {
    let Some(text) = string(draft, place, record, "text") else { return };
    let Some(subject) = subject(draft, place, record) else { return };
    let subject = subject.map(str::to_owned);
    let id = format!("{stem}-{:05}", place.number());
    draft.document(set, place, Document::of_text(id, subject, text));
}

/// The optional subject of a record. If it is not a string, the record is left out and `None` returned.
fn subject<'a>(draft: &mut Draft, place: &Place, record: &'a Value) -> Option<Option<&'a str>> {
    match record.get("subject") {
        None | Some(Value::Null) => Some(None),
        Some(_) => string(draft, place, record, "subject").map(Some),
    }
}

/// Options and the index of the right one, or the faulty key and its problem.
type Choices = Result<(Vec<String>, usize), (&'static str, &'static str)>;

fn question(set: &str, place: &Place, record: &Value, choices: Choices, draft: &mut Draft) {
    let Some(question) = string(draft, place, record, "question") else { return };
    if subject(draft, place, record).is_none() {
        return;
    }
    match choices {
        Ok((options, answer)) => {
            let id = format!("{set}-{:05}", place.number());
            draft.question(
                set,
                place,
                Candidate { id, subject: None, question: question.into(), options, answer },
            );
        }
        Err((key, problem)) => draft.leave_out(Reason::UnreadableQuestion, &place.field(key), problem),
    }
}

fn mmlu(record: &Value) -> Choices {
    let options = strings(record.get("choices")).ok_or(("choices", "is not a list of strings"))?;
    let answer =
        record.get("answer").and_then(Value::as_u64).ok_or(("answer", "is not the index of a choice"))?;
    Ok((options, answer as usize))
}

fn truthfulqa(record: &Value) -> Choices {
    const KEY: &str = "mc1_targets";
    let targets = record.get(KEY).ok_or((KEY, "is missing"))?;
    let options = strings(targets.get("choices")).ok_or((KEY, "has no `choices`, a list of strings"))?;
    let labels = targets.get("labels").and_then(Value::as_array).ok_or((KEY, "has no `labels`, a list"))?;
    let labels: Option<Vec<bool>> = labels
        .iter()
        .map(|label| match label.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        })
        .collect();
    let labels = labels.filter(|labels| labels.len() == options.len()).unwrap_or_default();
    let mut right = labels.iter().enumerate().filter(|(_, is_right)| **is_right).map(|(index, _)| index);
    match (right.next(), right.next()) {
        (Some(answer), None) => Ok((options, answer)),
        _ => Err((KEY, "must have one label for each choice, 1 for the right one and 0 for the others")),
    }
}
