//! What becomes a data folder, and what was left out on the way.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;
use surgery_core::data::{Document, Question, Set, Split};
use surgery_core::{Error, Result};

use super::place::Place;

/// The longest text or question, in bytes: written as JSON it must fit a line that the readers accept.
const LONGEST: usize = 8 << 20;

/// How many examples of each reason are told.
const EXAMPLES: usize = 3;

/// Why something is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A record that is not what its file should hold.
    UnreadableRow,
    /// A field that is missing or not what it should be.
    UnreadableCell,
    /// A question that lacks a part, or whose right answer is none of its options.
    UnreadableQuestion,
    /// A text without a word.
    EmptyText,
    /// A text that its set has already.
    DuplicateText,
    /// A text that is to be kept and also to be forgotten.
    AlsoForgotten,
    /// A held-out text that is also among those trained on.
    AlsoRetained,
    /// A text or question of more than 8 MiB.
    TooLong,
    /// A question without a word.
    EmptyQuestion,
    /// A question with an option without a word.
    EmptyOption,
    /// A question two of whose options are the same.
    EqualOptions,
    /// A question that its set has already, with the same options.
    DuplicateQuestion,
}

/// What was left out for one reason.
#[derive(Debug, Default, Serialize)]
pub struct LeftOut {
    /// How often.
    pub count: usize,
    /// The first cases: where, and what was found.
    pub first: Vec<String>,
}

/// What a dataset is, for `dataset.toml`.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Its name.
    pub name: &'static str,
    /// What it is, and where it is described.
    pub description: &'static str,
    /// Its licence, where its publishers name one.
    pub licence: Option<&'static str>,
}

/// A question as a format gives it.
#[derive(Debug)]
pub struct Candidate {
    /// Unique in its set.
    pub id: String,
    /// What it is about.
    pub subject: Option<String>,
    /// The question.
    pub question: String,
    /// Its options.
    pub options: Vec<String>,
    /// Index of the right option.
    pub answer: usize,
}

/// A data folder in the making.
#[derive(Debug)]
pub struct Draft {
    /// What it is made of.
    pub about: About,
    /// The documents of each set, in the order of [`Set::ALL`].
    pub documents: BTreeMap<Set, Vec<Document>>,
    /// The questions of each file, by its stem.
    pub questions: BTreeMap<String, Vec<Question>>,
    /// What was left out.
    pub left_out: BTreeMap<Reason, LeftOut>,
    /// What else is worth knowing: parts of the dataset that a data folder has no place for, and missing files.
    pub notes: Vec<String>,
    texts: HashMap<Set, HashSet<String>>,
    asked: HashMap<String, HashSet<String>>,
}

impl Draft {
    /// An empty one.
    pub fn new(about: About) -> Self {
        Self {
            about,
            documents: BTreeMap::new(),
            questions: BTreeMap::new(),
            left_out: BTreeMap::new(),
            notes: Vec::new(),
            texts: HashMap::new(),
            asked: HashMap::new(),
        }
    }

    /// Counts something that is left out.
    pub fn leave_out(&mut self, reason: Reason, at: &Place, problem: impl std::fmt::Display) {
        let left_out = self.left_out.entry(reason).or_default();
        left_out.count += 1;
        if left_out.first.len() < EXAMPLES {
            left_out.first.push(format!("{at}: {problem}"));
        }
    }

    /// Says something that the person should know.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Adds a document. What is to be forgotten comes before what is to be kept, and that before what is held out,
    /// so that a text which stands in two of them is left out of the later one.
    pub fn document(&mut self, set: Set, at: &Place, document: Document) {
        let text = document.text().into_owned();
        let text = text.as_str();
        let stands_in = |other: &Set| self.texts.get(other).is_some_and(|texts| texts.contains(text));
        let forgotten = [Set::Unlearn, Set::EditUnlearn];
        let kept = matches!(set, Set::Retain | Set::RetainHeldout);
        let problem = if let Err(problem) = check_text(text) {
            Some(problem)
        } else if stands_in(&set) {
            Some((Reason::DuplicateText, format!("the text stands in {set} already")))
        } else if let (true, Some(other)) = (kept, forgotten.iter().find(|set| stands_in(set))) {
            Some((
                Reason::AlsoForgotten,
                format!("the text also stands in {other}, and so is left out of {set}"),
            ))
        } else if set == Set::RetainHeldout && stands_in(&Set::Retain) {
            Some((
                Reason::AlsoRetained,
                format!("the text also stands in retain, and so is left out of {set}"),
            ))
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

    /// Adds a question to a set. Of those that are kept, every other one is for validation and the rest are for
    /// test, so that each document's questions, which stand together, are halved too.
    pub fn question(&mut self, set: &str, at: &Place, candidate: Candidate) {
        if let Err((reason, problem)) = self.check(set, &candidate) {
            return self.leave_out(reason, at, problem);
        }
        self.asked.entry(set.into()).or_default().insert(key(&candidate));
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
        if self.asked.get(set).is_some_and(|asked| asked.contains(&key(candidate))) {
            return Err((Reason::DuplicateQuestion, "the set has this question already".into()));
        }
        Ok(())
    }

    /// How many questions a set has.
    pub fn asked(&self, set: &str) -> usize {
        self.questions.get(set).map_or(0, Vec::len)
    }

    /// How many documents and questions there are.
    pub fn used(&self) -> usize {
        let documents = self.documents.values().map(Vec::len).sum::<usize>();
        documents + self.questions.values().map(Vec::len).sum::<usize>()
    }

    /// Refuses a file that has added nothing since [`Draft::used`] was `before`.
    pub fn refuse_unused(&self, file: &str, before: usize) -> Result<()> {
        if self.used() > before {
            return Ok(());
        }
        Err(Error::Data {
            path: file.into(),
            problem: format!("holds nothing that can be used{}", self.example(file)),
            remedy: "check that it is the file that this format asks for".into(),
        })
    }

    /// Something that was left out of a file, in parentheses; empty where nothing was.
    pub fn example(&self, file: &str) -> String {
        let mut examples = self.left_out.values().flat_map(|left_out| &left_out.first);
        let example = examples.find_map(|example| example.strip_prefix(file));
        example.map(|example| format!(" ({})", example.trim_start_matches([',', ' ']))).unwrap_or_default()
    }
}

/// Refuses a text without a word, and one that no line of a data folder can hold.
pub fn check_text(text: &str) -> Result<(), (Reason, String)> {
    if text.trim().is_empty() {
        return Err((Reason::EmptyText, "the text is empty".into()));
    }
    match text.len() > LONGEST {
        true => Err((Reason::TooLong, format!("the text has {} bytes, more than {LONGEST}", text.len()))),
        false => Ok(()),
    }
}

/// What makes two questions the same.
fn key(candidate: &Candidate) -> String {
    let mut options: Vec<&str> = candidate.options.iter().map(|option| option.trim()).collect();
    options.sort_unstable();
    format!("{}\0{}", candidate.question.trim(), options.join("\0"))
}
