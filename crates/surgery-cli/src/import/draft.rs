//! The contents of a data folder in the making, with a record of everything left out.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;
use surgery_core::data::{Document, Question, Set, Split};
use surgery_core::{Error, Result};

use super::place::Place;

/// Maximum size of a text or question in bytes; as JSON it must fit the line limit of the readers.
const LONGEST: usize = 8 << 20;

/// Number of examples reported for each reason.
const EXAMPLES: usize = 3;

/// The reason why an entry is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A record that cannot be read.
    UnreadableRow,
    /// A field that is missing or has the wrong type.
    UnreadableCell,
    /// A question that lacks a part, or whose right answer is not among its options.
    UnreadableQuestion,
    /// A text without a word.
    EmptyText,
    /// A text that occurs in its set already.
    DuplicateText,
    /// A retain text that is also to be unlearned.
    AlsoForgotten,
    /// A held-out text that is also trained on.
    AlsoRetained,
    /// A text or question of more than 8 MiB.
    TooLong,
    /// A question without a word.
    EmptyQuestion,
    /// A question with an option without a word.
    EmptyOption,
    /// A question with two equal options.
    EqualOptions,
    /// A question that occurs in its set already, with the same options.
    DuplicateQuestion,
}

/// Entries left out for one reason.
#[derive(Debug, Default, Serialize)]
pub struct LeftOut {
    /// Their number.
    pub count: usize,
    /// The first cases: the place and the problem.
    pub first: Vec<String>,
}

/// Description of a dataset, for `dataset.toml`.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// A sentence on it with the paper's number.
    pub description: &'static str,
    /// Its licence, if its publishers name one.
    pub licence: Option<&'static str>,
}

/// A question as read from a dataset.
#[derive(Debug)]
pub struct Candidate {
    /// Unique in its set.
    pub id: String,
    /// Its subject.
    pub subject: Option<String>,
    /// The question.
    pub question: String,
    /// Its options.
    pub options: Vec<String>,
    /// Index of the right option.
    pub answer: usize,
}

/// A data folder before it is written.
#[derive(Debug)]
pub struct Draft {
    /// The dataset's description.
    pub about: About,
    /// The documents of each set, in the order of [`Set::ALL`].
    pub documents: BTreeMap<Set, Vec<Document>>,
    /// The questions of each file, by its stem.
    pub questions: BTreeMap<String, Vec<Question>>,
    /// The entries left out.
    pub left_out: BTreeMap<Reason, LeftOut>,
    /// Notes for the user: parts of the dataset that a data folder cannot hold, and missing files.
    pub notes: Vec<String>,
    texts: HashMap<Set, HashSet<String>>,
    question_keys: HashMap<String, HashSet<String>>,
}

impl Draft {
    /// An empty draft.
    pub fn new(about: About) -> Self {
        Self {
            about,
            documents: BTreeMap::new(),
            questions: BTreeMap::new(),
            left_out: BTreeMap::new(),
            notes: Vec::new(),
            texts: HashMap::new(),
            question_keys: HashMap::new(),
        }
    }

    /// Counts an entry that is left out.
    pub fn leave_out(&mut self, reason: Reason, at: &Place, problem: impl std::fmt::Display) {
        let left_out = self.left_out.entry(reason).or_default();
        left_out.count += 1;
        if left_out.first.len() < EXAMPLES {
            left_out.first.push(format!("{at}: {problem}"));
        }
    }

    /// Adds a note for the user.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Adds a document. Add unlearn documents first, then retain, then held-out ones: a text that occurs in two of
    /// them is left out of the later one.
    pub fn document(&mut self, set: Set, at: &Place, document: Document) {
        let text = document.text().into_owned();
        let text = text.as_str();
        let occurs_in = |other: &Set| self.texts.get(other).is_some_and(|texts| texts.contains(text));
        let forgotten = [Set::Unlearn, Set::EditUnlearn];
        let kept = matches!(set, Set::Retain | Set::RetainHeldout);
        let problem = if let Err(problem) = check_text(text) {
            Some(problem)
        } else if occurs_in(&set) {
            Some((Reason::DuplicateText, format!("{set} has this text already")))
        } else if let (true, Some(other)) = (kept, forgotten.iter().find(|set| occurs_in(set))) {
            Some((Reason::AlsoForgotten, format!("the text is also in {other}, so it is left out of {set}")))
        } else if set == Set::RetainHeldout && occurs_in(&Set::Retain) {
            Some((Reason::AlsoRetained, format!("the text is also in retain, so it is left out of {set}")))
        } else {
            None
        };
        match problem {
            Some((reason, problem)) => self.leave_out(reason, at, problem),
            None => {
                self.texts.entry(set).or_default().insert(text.to_owned());
                self.documents.entry(set).or_default().push(document);
            }
        }
    }

    /// Adds a question to a set. Questions alternate between validation and test, so the questions about one
    /// document, which are adjacent, are split in half as well.
    pub fn question(&mut self, set: &str, at: &Place, candidate: Candidate) {
        if let Err((reason, problem)) = self.check(set, &candidate) {
            return self.leave_out(reason, at, problem);
        }
        self.question_keys.entry(set.into()).or_default().insert(key(&candidate));
        let Candidate { id, subject, question, options, answer } = candidate;
        let kept = self.questions.entry(set.into()).or_default();
        let split = if kept.len().is_multiple_of(2) { Split::Validation } else { Split::Test };
        kept.push(Question { id, subject, question, options, answer, split });
    }

    fn check(&self, set: &str, candidate: &Candidate) -> Result<(), (Reason, String)> {
        let Candidate { question, options, answer, .. } = candidate;
        if question.trim().is_empty() {
            return Err((Reason::EmptyQuestion, "the question is empty".into()));
        }
        if let Some(empty) = options.iter().position(|option| option.trim().is_empty()) {
            return Err((Reason::EmptyOption, format!("option {} is empty", empty + 1)));
        }
        if options.len() < 2 {
            let problem = format!("the question has {} options; at least 2 are needed", options.len());
            return Err((Reason::UnreadableQuestion, problem));
        }
        if *answer >= options.len() {
            let problem = format!("the right answer is option {} of {}", answer + 1, options.len());
            return Err((Reason::UnreadableQuestion, problem));
        }
        let mut seen = HashMap::new();
        for (index, option) in options.iter().enumerate() {
            if let Some(first) = seen.insert(option.trim(), index) {
                let problem = format!("options {} and {} are the same", first + 1, index + 1);
                return Err((Reason::EqualOptions, problem));
            }
        }
        let length = question.len() + options.iter().map(String::len).sum::<usize>();
        if length > LONGEST {
            return Err((Reason::TooLong, format!("the question has {length} bytes, more than {LONGEST}")));
        }
        if self.question_keys.get(set).is_some_and(|question_keys| question_keys.contains(&key(candidate))) {
            return Err((Reason::DuplicateQuestion, "the set has this question already".into()));
        }
        Ok(())
    }

    /// The number of questions in a set.
    pub fn question_count(&self, set: &str) -> usize {
        self.questions.get(set).map_or(0, Vec::len)
    }

    /// The number of documents and questions.
    pub fn used(&self) -> usize {
        let documents = self.documents.values().map(Vec::len).sum::<usize>();
        documents + self.questions.values().map(Vec::len).sum::<usize>()
    }

    /// Refuses a file that has added nothing, where [`Draft::used`] was `before`.
    pub fn refuse_unused(&self, file: &str, before: usize) -> Result<()> {
        if self.used() > before {
            return Ok(());
        }
        Err(Error::Data {
            path: file.into(),
            problem: format!("holds no usable entry{}", self.example(file)),
            remedy: "check that it is the right file for this format".into(),
        })
    }

    /// An example of an entry left out of `file`, in parentheses; empty if there is none.
    pub fn example(&self, file: &str) -> String {
        let mut examples = self.left_out.values().flat_map(|left_out| &left_out.first);
        let example = examples.find_map(|example| example.strip_prefix(file));
        example.map(|example| format!(" ({})", example.trim_start_matches([',', ' ']))).unwrap_or_default()
    }
}

/// Refuses an empty text, and one too long for a line of a data folder.
pub fn check_text(text: &str) -> Result<(), (Reason, String)> {
    if text.trim().is_empty() {
        return Err((Reason::EmptyText, "the text is empty".into()));
    }
    match text.len() > LONGEST {
        true => Err((Reason::TooLong, format!("the text has {} bytes, more than {LONGEST}", text.len()))),
        false => Ok(()),
    }
}

/// Equal for two questions with the same text and options.
fn key(candidate: &Candidate) -> String {
    let mut options: Vec<&str> = candidate.options.iter().map(|option| option.trim()).collect();
    options.sort_unstable();
    format!("{}\0{}", candidate.question.trim(), options.join("\0"))
}
