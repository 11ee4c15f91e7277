//! What the operation is done to: documents, questions, and the order in which they are drawn.

mod corpus;
mod jsonl;
mod questions;
mod sampler;

pub use corpus::{Corpus, Document, Set, read_documents};
pub use questions::{Question, QuestionSet, Split};
pub use sampler::{Draw, DocumentsPerStep, Sampler};
pub(crate) use sampler::{Stream, seeded};
