//! The input folders of an operation: a model folder, read except for its weights, and a data folder, read and encoded.

use crate::checkpoint::Checkpoint;
use crate::config::LlamaConfig;
use crate::data::lint::{Finding, Inspected, Operation, lint};
use crate::data::{Benchmark, Corpus, QuestionSet, Set};
use crate::error::{Error, Result};
use crate::evaluate;
use crate::files::Folder;
use crate::model::Llama;
use crate::objective::Weighing;
use crate::platform::{DeviceOf, Platform};
use crate::recipe::{Precision, Recipe};
use crate::text::TextEncoder;

/// A model folder, with its configuration and tokenizer.
pub struct ModelFolder {
    /// The folder.
    pub folder: Folder,
    /// For a model from the hub, its name with the commit.
    pub pinned: Option<String>,
    /// Its shape.
    pub config: LlamaConfig,
    /// Its tokenizer.
    pub encoder: TextEncoder,
}

impl ModelFolder {
    /// Reads the configuration and the tokenizer in `folder`.
    pub fn open(folder: Folder) -> Result<Self> {
        let config = LlamaConfig::load(&folder)?;
        let encoder = TextEncoder::load(&folder, config.vocab_size)?;
        Ok(Self { folder, pinned: None, config, encoder })
    }

    /// Warnings about files in it that contradict each other.
    pub fn conflicts(&self) -> impl Iterator<Item = &String> {
        self.config.conflicts.iter().chain(self.encoder.conflicts())
    }

    /// Refuses a model with another vocabulary, because `what` needs the same one.
    pub fn refuse_other_vocabulary(&self, other: &Self, what: &str) -> Result<()> {
        if self.config.vocab_size != other.config.vocab_size {
            return Err(Error::Config {
                path: other.folder.label("config.json"),
                key: "vocab_size".into(),
                found: other.config.vocab_size.to_string(),
                expected: format!(
                    "{}, as in the model: {what} needs the same vocabulary",
                    self.config.vocab_size
                ),
            });
        }
        if !self.encoder.has_vocabulary_of(&other.encoder) {
            return Err(Error::Tokenizer {
                path: other.folder.label("tokenizer.json"),
                problem: format!(
                    "has other tokens than the model's tokenizer; {what} needs the same vocabulary"
                ),
            });
        }
        Ok(())
    }

    /// Opens the files of its weights.
    pub fn checkpoint(&self) -> Result<Checkpoint> {
        Checkpoint::open(&self.folder)
    }

    /// Loads its weights for inference.
    pub fn load<P: Platform>(&self, precision: Precision, device: &DeviceOf<P>) -> Result<Llama<P::Infer>> {
        Llama::load(&self.config, &self.checkpoint()?, precision, device)
    }
}

/// A data folder, read and encoded.
pub struct DataFolder {
    /// The folder.
    pub folder: Folder,
    /// Its documents.
    pub corpus: Corpus,
    /// Its questions.
    pub questions: Vec<QuestionSet>,
    /// Its documents and questions as tokens.
    pub benchmark: Benchmark,
}

impl DataFolder {
    /// Reads the data in `folder`; the sets in `needed` must exist.
    pub fn open(folder: Folder, needed: &[Set], encoder: &TextEncoder) -> Result<Self> {
        let corpus = Corpus::load(&folder, needed)?;
        let questions = QuestionSet::load_all(&folder)?;
        let benchmark = Benchmark::encode(&folder, &corpus, &questions, encoder)?;
        Ok(Self { folder, corpus, questions, benchmark })
    }

    /// Length, in tokens, of the longest window in an evaluation with a model of this shape.
    pub fn longest(&self, config: &LlamaConfig) -> usize {
        evaluate::longest(&self.benchmark, config)
    }

    /// Refuses documents to unlearn without an alternative if the objective of `recipe` needs one.
    pub fn refuse_without_alternative(&self, recipe: &Recipe, config: &LlamaConfig) -> Result<()> {
        let objective = recipe.objective.for_model(config, recipe.train.seed);
        for set in recipe.objective.sets().into_iter().filter(|&set| objective.needs(set).alternative) {
            let documents = self.corpus.documents(set).iter();
            if let Some(document) = documents.clone().find(|document| document.alternatives.is_empty()) {
                return Err(Error::Data {
                    path: self.folder.label(&set.file()),
                    problem: format!(
                        "document {:?} has no `alternative`, which this objective prefers to it",
                        document.id
                    ),
                    remedy: "add it, as one text or a list, or choose another `objective.forget`".into(),
                });
            }
        }
        Ok(())
    }

    /// Probable mistakes in the data, for an evaluation of `model`, or for an operation on it by `recipe`.
    pub fn lint(&self, model: &ModelFolder, recipe: Option<&Recipe>) -> Vec<Finding> {
        let sets = recipe.map(|recipe| recipe.objective.sets()).unwrap_or_default();
        let operation = |recipe: &Recipe| Operation {
            sets: &sets,
            window: model.config.context(recipe.train.max_tokens),
            replays: recipe.replay.documents > 0,
        };
        lint(Inspected {
            corpus: &self.corpus,
            questions: &self.questions,
            benchmark: &self.benchmark,
            encoder: &model.encoder,
            context: model.config.max_position_embeddings,
            operation: recipe.map(operation),
        })
    }
}
