//! The workload: model shapes, and random documents, texts and questions, the same in every run.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::{Value, json};
use surgery_core::config::LlamaConfig;
use surgery_core::data::{EncodedOption, EncodedQuestion, Example, ScoredText, Set, Split};
use surgery_core::step::StepDocuments;

use crate::Result;

/// Documents of each set in a step.
pub(crate) const DOCUMENTS: usize = 8;
/// The context in tokens, and the limit of a document's length.
pub(crate) const CONTEXT: usize = 256;
/// Questions of an evaluation, and options of each.
pub(crate) const QUESTIONS: usize = 60;
pub(crate) const OPTIONS: usize = 3;
/// Tokens of a question, and of each of its options.
const QUESTION_TOKENS: usize = 24;
const OPTION_TOKENS: usize = 5;
/// A job is a sixtieth of the paper's, which has 120 steps between two evaluations of 2,359 texts and 23,570
/// questions.
const JOB_STEPS: usize = 120 / 60;
const JOB_TEXTS: usize = 2_359 / 60;
const JOB_QUESTIONS: usize = 23_570 / 60;

/// A model's shape.
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) key_heads: usize,
    pub(crate) intermediate: usize,
    pub(crate) vocab: usize,
}

/// In increasing size, so that the allocator can reuse memory.
pub(crate) const SHAPES: [Shape; 6] = [
    Shape::new("1m", [128, 4, 4, 4, 344, 1024]),
    Shape::new("6m", [256, 6, 4, 4, 688, 2048]),
    Shape::new("27m", [512, 8, 8, 8, 1376, 2048]),
    Shape::new("110m", [768, 12, 12, 12, 2048, 32000]),
    Shape::new("tinyllama-1.1b", [2048, 22, 32, 4, 5632, 32000]),
    Shape::new("llama2-7b", [4096, 32, 32, 32, 11008, 32000]),
];

impl Shape {
    const fn new(
        name: &'static str,
        [hidden, layers, heads, key_heads, intermediate, vocab]: [usize; 6],
    ) -> Self {
        Self { name, hidden, layers, heads, key_heads, intermediate, vocab }
    }

    /// The shape as `config.json`.
    pub(crate) fn json(&self) -> Value {
        json!({
            "model_type": "llama",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocab,
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e4,
        })
    }

    pub(crate) fn config(&self) -> Result<LlamaConfig> {
        Ok(LlamaConfig::parse(self.name, &self.json())?)
    }
}

/// Lengths of documents and texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Lengths {
    /// 60 to 180 tokens
    Mixed,
    /// 120 tokens each
    Equal,
}

/// The documents of one step.
pub(crate) struct StepSample {
    documents: Vec<(Set, Example)>,
}

impl StepSample {
    pub(crate) fn step(&self) -> StepDocuments<'_> {
        StepDocuments::new(self.documents.iter().map(|(set, example)| (*set, example)), CONTEXT)
    }

    /// Its documents.
    pub(crate) fn documents(&self) -> impl Iterator<Item = (Set, &Example)> {
        self.documents.iter().map(|(set, example)| (*set, example))
    }

    /// The length of each document, and whether it is a retain document.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = (usize, bool)> {
        self.documents.iter().map(|(set, example)| (example.len(), *set == Set::Retain))
    }

    pub(crate) fn num_tokens(&self) -> usize {
        self.lengths().map(|(length, _)| length).sum()
    }

    pub(crate) fn num_documents(&self) -> usize {
        self.documents.len()
    }

    /// The documents of each set, in the format of `peer.py`.
    pub(crate) fn json(&self) -> Value {
        let of = |set: Set| -> Vec<&Vec<u32>> {
            self.documents
                .iter()
                .filter(|(other, _)| *other == set)
                .map(|(_, example)| &example.tokens)
                .collect()
        };
        Set::TRAINED
            .iter()
            .map(|&set| (set.name().to_owned(), json!(of(set))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// The workload of one shape.
pub(crate) struct Work {
    /// The documents of a single step.
    pub(crate) draw: StepSample,
    pub(crate) questions: Vec<EncodedQuestion>,
    pub(crate) job: Job,
}

/// The whole job: evaluate, train, evaluate again.
pub(crate) struct Job {
    /// The documents of its steps, all different.
    pub(crate) draws: Vec<StepSample>,
    pub(crate) texts: Vec<Example>,
    pub(crate) questions: Vec<EncodedQuestion>,
}

impl Work {
    pub(crate) fn new(shape: &Shape, lengths: Lengths) -> Self {
        let mut random =
            Random { tokens: ChaCha8Rng::seed_from_u64(0), lengths: ChaCha8Rng::seed_from_u64(1), shape };
        Self {
            draw: random.draw(lengths),
            questions: (0..QUESTIONS).map(|_| random.question()).collect(),
            job: Job {
                draws: (0..JOB_STEPS).map(|_| random.draw(lengths)).collect(),
                texts: (0..JOB_TEXTS).map(|_| random.document(lengths)).collect(),
                questions: (0..JOB_QUESTIONS).map(|_| random.question()).collect(),
            },
        }
    }
}

/// Questions in the format of `peer.py`.
pub(crate) fn questions_json(questions: &[EncodedQuestion]) -> Value {
    let option = |option: &EncodedOption| {
        let ScoredText { tokens, scored } = &option.paper;
        json!({"ids": tokens, "start": scored.start, "end": scored.end})
    };
    let options =
        |question: &EncodedQuestion| -> Vec<Value> { question.options.iter().map(option).collect() };
    json!(questions.iter().map(options).collect::<Vec<_>>())
}

struct Random<'a> {
    tokens: ChaCha8Rng,
    // A separate generator, so that lengths do not depend on the shape.
    lengths: ChaCha8Rng,
    shape: &'a Shape,
}

impl Random<'_> {
    fn tokens(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| self.tokens.random_range(0..self.shape.vocab as u32)).collect()
    }

    fn document(&mut self, lengths: Lengths) -> Example {
        let length = match lengths {
            Lengths::Mixed => self.lengths.random_range(60..=180),
            Lengths::Equal => 120,
        };
        Example::of_text(self.tokens(length))
    }

    fn draw(&mut self, lengths: Lengths) -> StepSample {
        let sets = Set::TRAINED.into_iter().flat_map(|set| std::iter::repeat_n(set, DOCUMENTS));
        StepSample { documents: sets.map(|set| (set, self.document(lengths))).collect() }
    }

    fn question(&mut self) -> EncodedQuestion {
        let question = self.tokens(QUESTION_TOKENS);
        let option = |_| {
            let tokens = [question.clone(), self.tokens(OPTION_TOKENS)].concat();
            EncodedOption::of_tokens(tokens, QUESTION_TOKENS..QUESTION_TOKENS + OPTION_TOKENS, 1)
        };
        EncodedQuestion { options: (0..OPTIONS).map(option).collect(), answer: 0, split: Split::Test }
    }
}
