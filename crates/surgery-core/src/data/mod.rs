//! Documents, questions, and the order in which documents are sampled.

mod corpus;
mod document;
mod encoded;
mod example;
mod jsonl;
pub mod lint;
mod questions;
mod sampler;
mod stream;
pub(crate) mod words;

pub use corpus::{Corpus, Set};
pub use document::{ASSISTANT, Content, Document, Message, MessageContent, read_documents, read_texts};
pub use encoded::{Benchmark, EncodedOption, EncodedQuestion, KEPT, ScoredText, encode_documents};
pub use example::{Example, encode, windows};
pub use questions::{Question, QuestionSet, Split};
pub use sampler::{DocumentsPerStep, Sampler, StepSample};
pub(crate) use sampler::{Position, seeded};
