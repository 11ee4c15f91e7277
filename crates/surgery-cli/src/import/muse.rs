//! MUSE (arXiv 2407.06460; muse-bench/MUSE-News and MUSE-Books on Hugging Face): news articles and books.
//!
//! The folder is that of one corpus in the layout of MUSE's own script: `raw/` with `forget`, `retain1`, `retain2`
//! and `holdout`, `knowmem/` with `forget_qa` and `retain_qa` (`question`, `answer`), `verbmem/forget` (`prompt`,
//! `gt`), `privleak/`. Texts are a JSON array of strings, or records with `text` as in the published configurations.
//! Without JSON, the `.txt` file, which joins all texts, is read as one text.
//!
//! `retain1`, MUSE's regularisation set, becomes retain. `retain2`, which the target model knows and MUSE uses only
//! to measure utility, becomes retain_heldout. A data folder cannot hold `holdout`, which no model has seen,
//! questions without options, or prompts to continue.

use std::rc::Rc;

use surgery_core::data::{Document, Set};
use surgery_core::files::Folder;
use surgery_core::{Error, Result};

use super::Draft;
use super::draft::About;
use super::place::{Place, Unit};
use super::records::{records, string, text};
use crate::args::ImportMuse;

const ABOUT: About = About {
    name: "MUSE",
    description: "News articles or books, to unlearn and to retain (arXiv 2407.06460)",
    licence: Some("CC-BY-4.0"),
};

/// Reads a folder.
pub fn read(args: &ImportMuse) -> Result<Draft> {
    let mut draft = Draft::new(ABOUT);
    let folder = Folder::Disk(args.folder.clone());
    for (split, set) in [("forget", Set::Unlearn), ("retain1", Set::Retain), ("retain2", Set::RetainHeldout)]
    {
        match find(&folder, &format!("raw/{split}")) {
            Some(file) => documents(&folder, &file, split, set, &mut draft)?,
            None if set == Set::Unlearn => {
                return Err(Error::Data {
                    path: folder.label("raw/forget.json"),
                    problem: "is missing".into(),
                    remedy: "give the folder of one corpus, with raw/forget as .json, .jsonl or .txt (Parquet is not \
                             read: MUSE's load_data.py or the datasets library's to_json converts it)"
                        .into(),
                });
            }
            None => {
                draft.note(format!("{} is missing: no {set} set", folder.label(&format!("raw/{split}.json"))))
            }
        }
    }
    for (stem, why) in [
        ("raw/holdout", "texts that the model must never have seen, which a data folder cannot hold"),
        ("knowmem/forget_qa", "questions without options"),
        ("knowmem/retain_qa", "questions without options"),
        ("verbmem/forget", "prompts to continue, taken from raw/forget"),
    ] {
        if let Some(file) = find(&folder, stem) {
            draft.note(format!("{} is left out: {why}", folder.label(&file)));
        }
    }
    Ok(draft)
}

/// The file with this stem, in the first format that exists.
fn find(folder: &Folder, stem: &str) -> Option<String> {
    ["json", "jsonl", "txt"].into_iter().map(|form| format!("{stem}.{form}")).find(|file| folder.has(file))
}

fn documents(folder: &Folder, file: &str, split: &str, set: Set, draft: &mut Draft) -> Result<()> {
    let before = draft.used();
    let label: Rc<str> = folder.label(file).into();
    if file.ends_with(".txt") {
        let document = Document::of_text(split, None, text(folder, file)?);
        draft.document(set, &Place::new(&label, Unit::Whole, 1), document);
        return draft.refuse_unused(&label, before);
    }
    for (place, record) in records(folder, file, draft)? {
        let text = match record.as_str() {
            Some(text) => Some(text),
            None => string(draft, &place, &record, "text"),
        };
        let Some(text) = text else { continue };
        let id = format!("{split}-{:05}", place.number());
        draft.document(set, &place, Document::of_text(id, None, text));
    }
    draft.refuse_unused(&label, before)
}
