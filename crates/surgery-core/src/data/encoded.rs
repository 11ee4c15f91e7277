//! Documents and questions as token ids.

use std::ops::Range;

use super::{Corpus, Document, QuestionSet, Set, Split};
use crate::error::{Error, Result};
use crate::files::Folder;
use crate::text::TextEncoder;

/// The sets that should stay as they are.
pub const KEPT: [Set; 2] = [Set::Retain, Set::RetainHeldout];

/// A data folder, encoded for one model.
#[derive(Debug, Clone, Default)]
pub struct Benchmark {
    /// The token ids of each set's documents, in the order of [`Set::ALL`].
    pub sets: Vec<(Set, Vec<Vec<u32>>)>,
    /// The questions of each file, by name.
    pub questions: Vec<(String, Vec<EncodedQuestion>)>,
}

/// A question whose options are encoded together with it.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedQuestion {
    /// Each option: the ids of `"{question} {option}"`, and which of them are the option's.
    pub options: Vec<(Vec<u32>, Range<usize>)>,
    /// How many characters each option has.
    pub characters: Vec<usize>,
    /// Index of the right option.
    pub answer: usize,
    /// The half it belongs to.
    pub split: Split,
}

impl Benchmark {
    /// Encodes everything. `folder` is where it came from, for messages.
    pub fn encode(
        folder: &Folder,
        corpus: &Corpus,
        questions: &[QuestionSet],
        encoder: &TextEncoder,
    ) -> Result<Self> {
        let sets = corpus
            .sets()
            .map(|(set, documents)| Ok((set, encode_documents(folder, &set.file(), documents, encoder)?)))
            .collect::<Result<_>>()?;
        let questions = questions
            .iter()
            .map(|set| Ok((set.name.clone(), encode_questions(folder, set, encoder)?)))
            .collect::<Result<_>>()?;
        Ok(Self { sets, questions })
    }

    /// The token ids of one set's documents; empty where there are none.
    pub fn documents(&self, set: Set) -> &[Vec<u32>] {
        self.sets.iter().find(|(other, _)| *other == set).map_or(&[], |(_, documents)| documents)
    }

    /// A part that is quick to evaluate on the way: of each set at most `documents`, of each set of questions at
    /// most `questions` of the validation half, evenly spread over the files.
    pub fn sample(&self, documents: usize, questions: usize) -> Self {
        fn spread<T: Clone>(all: &[&T], most: usize) -> Vec<T> {
            let count = most.min(all.len());
            (0..count).map(|index| all[index * all.len() / count].clone()).collect()
        }
        let texts = |texts: &Vec<Vec<u32>>| spread(&texts.iter().collect::<Vec<_>>(), documents);
        let validation = |all: &Vec<EncodedQuestion>| -> Vec<EncodedQuestion> {
            let half = all.iter().filter(|question| question.split == Split::Validation);
            spread(&half.collect::<Vec<_>>(), questions)
        };
        Self {
            sets: self.sets.iter().map(|(set, all)| (*set, texts(all))).collect(),
            questions: self.questions.iter().map(|(name, all)| (name.clone(), validation(all))).collect(),
        }
    }

    /// The token ids of all documents that should stay as they are.
    pub fn kept(&self) -> impl Iterator<Item = &[u32]> {
        KEPT.into_iter().flat_map(|set| self.documents(set)).map(Vec::as_slice)
    }
}

/// The token ids of documents; one that leaves nothing to predict is refused.
pub fn encode_documents(
    folder: &Folder,
    file: &str,
    documents: &[Document],
    encoder: &TextEncoder,
) -> Result<Vec<Vec<u32>>> {
    let encode = |document: &Document| {
        let tokens = encoder.encode(&document.text)?;
        if tokens.len() < 2 {
            return Err(Error::Data {
                path: folder.label(file),
                problem: format!(
                    "document {:?} encodes to {} token(s), which leaves none to predict",
                    document.id,
                    tokens.len()
                ),
                remedy: "lengthen or remove it".into(),
            });
        }
        Ok(tokens)
    };
    documents.iter().map(encode).collect()
}

fn encode_questions(
    folder: &Folder,
    set: &QuestionSet,
    encoder: &TextEncoder,
) -> Result<Vec<EncodedQuestion>> {
    set.questions
        .iter()
        .map(|question| {
            let options = question
                .options
                .iter()
                .map(|option| {
                    encode_option(&question.question, option, encoder)?.ok_or_else(|| Error::Data {
                        path: folder.label(&format!("questions/{}.jsonl", set.name)),
                        problem: format!(
                            "option {option:?} of question {:?} has no token of its own to predict",
                            question.id
                        ),
                        remedy: "word the option differently".into(),
                    })
                })
                .collect::<Result<_>>()?;
            let characters = question.options.iter().map(|option| option.chars().count()).collect();
            Ok(EncodedQuestion { options, characters, answer: question.answer, split: question.split })
        })
        .collect()
}

/// `"{question} {option}"` encoded as a whole, and the tokens that reach into the option. Encoding the
/// question alone would not tell where the option starts: tokenisation is not concatenative.
fn encode_option(
    question: &str,
    option: &str,
    encoder: &TextEncoder,
) -> Result<Option<(Vec<u32>, Range<usize>)>> {
    let tokens = encoder.encode_with_ends(&format!("{question} {option}"))?;
    let start = question.len() + 1;
    let first = tokens.iter().position(|&(_, end)| end > start);
    let last = tokens.iter().rposition(|&(_, end)| end > start);
    let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
    // The first token of a text is given, never predicted.
    let range = first.max(1)..last + 1;
    let ids = tokens.into_iter().map(|(id, _)| id).collect();
    Ok((!range.is_empty()).then_some((ids, range)))
}
