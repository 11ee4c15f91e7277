//! The documents of an operation, set by set.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::document::{Document, read_documents};
use crate::error::{Error, Result};
use crate::files::Folder;

/// The sets of documents (the paper, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Set {
    /// Documents to unlearn: reverse gradient.
    Unlearn,
    /// Outdated documents to unlearn: reverse gradient.
    EditUnlearn,
    /// New documents that replace the outdated ones: gradient descent.
    EditUpdate,
    /// Documents whose predictions stay the same: KL to the reference.
    Retain,
    /// Retain documents that are only evaluated, never trained on.
    RetainHeldout,
}

impl Set {
    /// The sets that a step draws from.
    pub const TRAINED: [Set; 4] = [Set::Unlearn, Set::EditUnlearn, Set::EditUpdate, Set::Retain];
    /// Every set.
    pub const ALL: [Set; 5] =
        [Set::Unlearn, Set::EditUnlearn, Set::EditUpdate, Set::Retain, Set::RetainHeldout];

    /// The stem of its file.
    pub fn name(self) -> &'static str {
        match self {
            Set::Unlearn => "unlearn",
            Set::EditUnlearn => "edit_unlearn",
            Set::EditUpdate => "edit_update",
            Set::Retain => "retain",
            Set::RetainHeldout => "retain_heldout",
        }
    }

    /// The name of its file of documents.
    pub fn file(self) -> String {
        format!("{}.jsonl", self.name())
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The documents of a data folder.
#[derive(Debug, Clone, Default)]
pub struct Corpus {
    sets: HashMap<Set, Vec<Document>>,
}

impl Corpus {
    /// Reads the sets of `folder`. Those in `needed` must exist and not contradict one another; the others may be
    /// missing.
    pub fn load(folder: &Folder, needed: &[Set]) -> Result<Self> {
        let mut sets = HashMap::new();
        for set in Set::ALL {
            if folder.has(&set.file()) {
                sets.insert(set, read_documents(folder, &set.file())?);
            } else if needed.contains(&set) {
                return Err(Error::Data {
                    path: folder.label(&set.file()),
                    problem: "is missing".into(),
                    remedy: format!("add it, or set `objective.{set} = 0` to leave the set out"),
                });
            }
        }
        let corpus = Self { sets };
        if needed.contains(&Set::Retain) {
            corpus.refuse_contradictions(folder, needed)?;
        }
        Ok(corpus)
    }

    /// The documents of `set`; empty if the folder has none.
    pub fn documents(&self, set: Set) -> &[Document] {
        self.sets.get(&set).map_or(&[], Vec::as_slice)
    }

    /// The sets in the folder, in the order of [`Set::ALL`].
    pub fn sets(&self) -> impl Iterator<Item = (Set, &[Document])> {
        Set::ALL.into_iter().filter_map(|set| Some((set, self.sets.get(&set)?.as_slice())))
    }

    /// Refuses a text in both a set to unlearn and the retain set.
    fn refuse_contradictions(&self, folder: &Folder, needed: &[Set]) -> Result<()> {
        let kept: HashMap<_, &str> =
            self.documents(Set::Retain).iter().map(|d| (d.text(), d.id.as_str())).collect();
        for set in [Set::Unlearn, Set::EditUnlearn].into_iter().filter(|set| needed.contains(set)) {
            for document in self.documents(set) {
                if let Some(id) = kept.get(&document.text()) {
                    return Err(Error::Data {
                        path: folder.label(&set.file()),
                        problem: format!(
                            "document {:?} has the same text as {id:?} of retain.jsonl",
                            document.id
                        ),
                        remedy: "a text cannot be unlearned and retained: remove it from one of the two"
                            .into(),
                    });
                }
            }
        }
        Ok(())
    }
}

impl FromIterator<(Set, Vec<Document>)> for Corpus {
    fn from_iter<T: IntoIterator<Item = (Set, Vec<Document>)>>(sets: T) -> Self {
        Self { sets: sets.into_iter().collect() }
    }
}
