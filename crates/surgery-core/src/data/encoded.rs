//! Documents and questions as token ids.

use std::ops::Range;

use super::{Corpus, Document, Example, Question, QuestionSet, Set, Split, encode};
use crate::error::{Error, Result};
use crate::files::Folder;
use crate::text::TextEncoder;

/// The sets of retain documents.
pub const KEPT: [Set; 2] = [Set::Retain, Set::RetainHeldout];

/// A data folder, encoded for one model.
#[derive(Debug, Clone, Default)]
pub struct Benchmark {
    /// The documents of each set, in the order of [`Set::ALL`].
    pub sets: Vec<(Set, Vec<Example>)>,
    /// The questions of each file, by name.
    pub questions: Vec<(String, Vec<EncodedQuestion>)>,
}

/// A question whose options are encoded together with it.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedQuestion {
    /// The options, two or more.
    pub options: Vec<EncodedOption>,
    /// Index of the right option.
    pub answer: usize,
    /// The half it belongs to.
    pub split: Split,
}

/// `"{question} {option}"` as each of two rules scores it.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedOption {
    /// The paper's rule: the tokens that overlap the option, found by character offsets.
    pub paper: ScoredText,
    /// The rule of lm-evaluation-harness: if the question alone has n tokens, all tokens after the first n. They include
    /// the space before the option if it is a token of its own.
    pub harness: ScoredText,
    /// Number of characters of the option.
    pub characters: usize,
}

/// A text and its scored tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoredText {
    /// Its token ids, special tokens included.
    pub tokens: Vec<u32>,
    /// The scored tokens; never the first of the text.
    pub scored: Range<usize>,
}

impl EncodedOption {
    /// An option that both rules score alike.
    pub fn of_tokens(tokens: Vec<u32>, scored: Range<usize>, characters: usize) -> Self {
        let text = ScoredText { tokens, scored };
        Self { paper: text.clone(), harness: text, characters }
    }
}

impl Benchmark {
    /// Encodes all documents and questions. Messages name `folder`.
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

    /// The documents of a set; empty if there are none.
    pub fn documents(&self, set: Set) -> &[Example] {
        self.sets.iter().find(|(other, _)| *other == set).map_or(&[], |(_, documents)| documents)
    }

    /// A sample for evaluations during training: at most `documents` of each set, and at most `questions` of the
    /// validation half of each set of questions, evenly spread over the files.
    pub fn sample(&self, documents: usize, questions: usize) -> Self {
        fn spread<T: Clone>(all: &[&T], most: usize) -> Vec<T> {
            let count = most.min(all.len());
            (0..count).map(|index| all[index * all.len() / count].clone()).collect()
        }
        let texts = |texts: &Vec<Example>| spread(&texts.iter().collect::<Vec<_>>(), documents);
        let validation = |all: &Vec<EncodedQuestion>| -> Vec<EncodedQuestion> {
            let half = all.iter().filter(|question| question.split == Split::Validation);
            spread(&half.collect::<Vec<_>>(), questions)
        };
        Self {
            sets: self.sets.iter().map(|(set, all)| (*set, texts(all))).collect(),
            questions: self.questions.iter().map(|(name, all)| (name.clone(), validation(all))).collect(),
        }
    }

    /// All retain and held-out documents.
    pub fn kept(&self) -> impl Iterator<Item = &Example> {
        KEPT.into_iter().flat_map(|set| self.documents(set))
    }
}

/// Encodes documents. Refuses a document without a token to predict.
pub fn encode_documents(
    folder: &Folder,
    file: &str,
    documents: &[Document],
    encoder: &TextEncoder,
) -> Result<Vec<Example>> {
    let path = folder.label(file);
    documents.iter().map(|document| encode(&path, document, encoder)).collect()
}

fn encode_questions(
    folder: &Folder,
    set: &QuestionSet,
    encoder: &TextEncoder,
) -> Result<Vec<EncodedQuestion>> {
    let encode = |question: &Question| {
        let context = encoder.encode_for_harness(trim_end(&question.question))?;
        let option = |option: &String| {
            let paper = encode_by_offsets(&question.question, option, encoder)?;
            let harness = encode_by_context(&context, &question.question, option, encoder)?;
            let encoded = paper.zip(harness).map(|(paper, harness)| EncodedOption {
                paper,
                harness,
                characters: option.chars().count(),
            });
            encoded.ok_or_else(|| Error::Data {
                path: folder.label(&set.file()),
                problem: format!(
                    "option {option:?} of question {:?} has no token of its own to predict",
                    question.id
                ),
                remedy: "word the option differently".into(),
            })
        };
        let options = question.options.iter().map(option).collect::<Result<_>>()?;
        Ok(EncodedQuestion { options, answer: question.answer, split: question.split })
    };
    set.questions.iter().map(encode).collect()
}

/// `"{question} {option}"` encoded as a whole, with the tokens that overlap the option; `None` if there are none.
fn encode_by_offsets(question: &str, option: &str, encoder: &TextEncoder) -> Result<Option<ScoredText>> {
    let tokens = encoder.encode_with_ends(&format!("{question} {option}"))?;
    let start = question.len() + 1;
    let first = tokens.iter().position(|&(_, end)| end > start);
    let last = tokens.iter().rposition(|&(_, end)| end > start);
    let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
    // The first token of a text is never predicted.
    let scored = first.max(1)..last + 1;
    let tokens = tokens.into_iter().map(|(id, _)| id).collect();
    Ok((!scored.is_empty()).then_some(ScoredText { tokens, scored }))
}

/// The tokens of the question alone (`context`), then the tokens of `"{question} {option}"` after as many. This is
/// `_encode_pair` of lm-evaluation-harness 0.4.13, which counts blanks at the end of the question to the option.
fn encode_by_context(
    context: &[u32],
    question: &str,
    option: &str,
    encoder: &TextEncoder,
) -> Result<Option<ScoredText>> {
    let whole = encoder.encode_for_harness(&format!("{question} {option}"))?;
    if context.is_empty() || whole.len() <= context.len() {
        return Ok(None);
    }
    let scored = context.len()..whole.len();
    Ok(Some(ScoredText { tokens: [context, &whole[scored.clone()]].concat(), scored }))
}

/// A text without blanks at its end, as Python's `rstrip` removes them.
fn trim_end(text: &str) -> &str {
    text.trim_end_matches(|letter: char| letter.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&letter))
}
