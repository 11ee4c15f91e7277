//! Recipes: everything an operation is told, as TOML. An omitted key has the paper's value; an unknown one
//! is refused.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::checkpoint::SaveDtype;
use crate::data::DocumentsPerStep;
use crate::error::{Error, Result};
use crate::globs::Glob;
pub use crate::model::Precision;
use crate::objective::Objective;
use crate::optimizer::OptimizerConfig;

/// The source that stands for what is embedded in the binary.
pub const EMBEDDED: &str = "embedded";

/// The recipe of the operation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// What is operated on.
    pub model: ModelSection,
    /// What it is to forget, learn and keep.
    pub data: DataSection,
    /// How the sets are weighed.
    pub objective: Objective,
    /// How the weights follow the gradient.
    pub optimizer: OptimizerConfig,
    /// How long, and on how much at a time.
    pub train: TrainSection,
    /// What the model writes itself, to be kept.
    #[serde(skip_serializing_if = "Replay::is_off")]
    pub replay: Replay,
    /// What stops it.
    #[serde(skip_serializing_if = "Guard::is_off")]
    pub guard: Guard,
}

/// The recipe of continual pretraining, or of training from scratch.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainRecipe {
    /// What is trained.
    pub model: PretrainModelSection,
    /// What it is trained on.
    pub data: FilesSection,
    /// How the weights follow the gradient.
    pub optimizer: OptimizerConfig,
    /// How long, and on how much at a time.
    pub train: PretrainSection,
}

/// The section `[model]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// A Hugging Face folder, or `embedded`.
    pub source: String,
    /// The arithmetic.
    pub precision: Precision,
    /// The dtype of the weights written.
    pub save_dtype: SaveDtype,
}

impl Default for ModelSection {
    fn default() -> Self {
        Self { source: EMBEDDED.into(), precision: Precision::F32, save_dtype: SaveDtype::Input }
    }
}

/// The section `[model]` of pretraining.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainModelSection {
    /// A Hugging Face folder; with `from_scratch`, one that needs no weights.
    pub source: String,
    /// Whether to begin from fresh weights, drawn by the seed.
    pub from_scratch: bool,
    /// The arithmetic.
    pub precision: Precision,
    /// The dtype of the weights written.
    pub save_dtype: SaveDtype,
}

/// The section `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataSection {
    /// A data folder, or `embedded`.
    pub path: String,
}

impl Default for DataSection {
    fn default() -> Self {
        Self { path: EMBEDDED.into() }
    }
}

/// The section `[data]` of pretraining.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilesSection {
    /// JSONL files of documents.
    pub files: Vec<String>,
}

/// The section `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSection {
    /// Updates.
    pub steps: usize,
    /// Documents of each set that a step draws.
    pub documents_per_step: DocumentsPerStep,
    /// The longest window of a document, in tokens; the model's context bounds it too.
    pub max_tokens: usize,
    /// Fixes the order of the documents.
    pub seed: u64,
    /// Steps between checkpoints, of which the last two are kept until the run is finished; 0 for none.
    pub checkpoint_every: usize,
    /// Steps between evaluations on the way; 0 for none.
    pub evaluate_every: usize,
    /// The most tokens of one forward pass, unless a single window has more; 0 for no limit. A step of more tokens is divided
    /// into several passes, whose gradients are added up. No result depends on it beyond rounding.
    pub batch_tokens: usize,
    /// Keep only the inputs of blocks for the backward pass, and compute each block twice: less memory, more time.
    pub recompute: bool,
    /// How the model as it was is kept.
    pub reference: ReferenceForm,
    /// Globs over the names of parameters: those that are trained. The others do not change.
    #[serde(skip_serializing_if = "is_all")]
    pub trainable: Vec<Glob>,
}

/// The globs that match every parameter.
fn all() -> Vec<Glob> {
    vec![Glob::parse("*").expect("a glob")]
}

fn is_all(globs: &Vec<Glob>) -> bool {
    *globs == all()
}

/// How the model as it was, which the retain term holds the model to, is kept. Both forms give the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceForm {
    /// By its final hidden states of the documents it is asked about, computed before the first step and kept on
    /// disk until the run is finished, and a copy of its head.
    #[default]
    Cached,
    /// As a second model in memory, which is run at every step.
    Live,
}

impl Default for TrainSection {
    fn default() -> Self {
        Self {
            steps: 120,
            documents_per_step: DocumentsPerStep::all(8),
            max_tokens: 4096,
            seed: 42,
            checkpoint_every: 0,
            evaluate_every: 0,
            batch_tokens: 0,
            recompute: false,
            reference: ReferenceForm::Cached,
            trainable: all(),
        }
    }
}

/// The section `[replay]`: texts that the model writes before the first step, which are then drawn like those of the
/// retain set and among them. The recipe `paper` has none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replay {
    /// How many.
    pub documents: usize,
    /// The most tokens that one has.
    pub max_tokens: usize,
    /// Their tokens are drawn from softmax(logits / temperature).
    pub temperature: f64,
}

impl Default for Replay {
    fn default() -> Self {
        Self { documents: 0, max_tokens: 128, temperature: 1.0 }
    }
}

impl Replay {
    /// More than anybody has the time for.
    const MOST_DOCUMENTS: f64 = 1e6;
    /// More than any model's context has.
    const MOST_TOKENS: f64 = 1e7;

    fn is_off(&self) -> bool {
        *self == Self::default()
    }
}

/// The section `[guard]`: what a step may not find. The recipe `paper` has none of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// The most that the KL to the reference may be on a step's retain documents, in nats; unbounded where it is
    /// missing. Past it the model goes back to the last checkpoint, or to the beginning, and goes on with the
    /// documents that come next; the second time ends the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain_kl: Option<f64>,
    /// How many steps may be skipped because their loss or gradient is not a finite number; the next one ends
    /// the run.
    pub skip_not_finite: usize,
}

impl Guard {
    fn is_off(&self) -> bool {
        *self == Self::default()
    }
}

/// The section `[train]` of pretraining.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainSection {
    /// Updates.
    pub steps: usize,
    /// Documents that a step draws.
    pub documents_per_step: usize,
    /// The longest window of a document, in tokens; the model's context bounds it too.
    pub max_tokens: usize,
    /// Fixes fresh weights and the order of the documents.
    pub seed: u64,
    /// As in [`TrainSection`].
    pub checkpoint_every: usize,
    /// As in [`TrainSection`].
    pub batch_tokens: usize,
    /// As in [`TrainSection`].
    pub recompute: bool,
}

/// The most tokens of one forward pass that `batch_tokens` stands for.
fn most_tokens(batch_tokens: usize) -> usize {
    if batch_tokens == 0 { usize::MAX } else { batch_tokens }
}

impl PretrainSection {
    /// The most tokens of one forward pass.
    pub fn most_tokens(&self) -> usize {
        most_tokens(self.batch_tokens)
    }
}

impl TrainSection {
    /// The most tokens of one forward pass.
    pub fn most_tokens(&self) -> usize {
        most_tokens(self.batch_tokens)
    }
}

impl Default for PretrainSection {
    fn default() -> Self {
        Self {
            steps: 120,
            documents_per_step: 8,
            max_tokens: 4096,
            seed: 42,
            checkpoint_every: 0,
            batch_tokens: 0,
            recompute: false,
        }
    }
}

/// A recipe's text and the overrides of the command line, made into a recipe.
///
/// `origin` is the file or shipped name, for messages. An override is `section.key=value`: the value is
/// TOML, a bare word that is not TOML is a string, the last one wins.
pub fn parse<R: DeserializeOwned + Check>(origin: &str, text: &str, overrides: &[String]) -> Result<R> {
    let wrong = |origin: &str, problem: String| Error::Recipe { origin: origin.into(), problem };
    // The text alone first: its faults have a line and a column, which overriding would lose.
    let alone: R = toml::from_str(text).map_err(|error| wrong(origin, error.to_string().trim().into()))?;
    if overrides.is_empty() {
        alone.check().map_err(|problem| wrong(origin, problem))?;
        return Ok(alone);
    }
    // A fault that is in the text already is the text's, unless an override mends it.
    let fault_of_text = alone.check().err();
    let mut table: toml::Table = toml::from_str(text).expect("it was read above");
    for item in overrides {
        set(&mut table, item).map_err(|problem| wrong(&format!("--set {item}"), problem))?;
    }
    let named = format!("--set {}", overrides.join(" --set "));
    let recipe: R = table.try_into().map_err(|error: toml::de::Error| {
        let message = error.to_string();
        wrong(&named, message.trim().replace('\n', " "))
    })?;
    recipe.check().map_err(|problem| match fault_of_text {
        Some(fault) if fault == problem => wrong(origin, problem),
        _ => wrong(&named, problem),
    })?;
    Ok(recipe)
}

fn set(table: &mut toml::Table, item: &str) -> Result<(), String> {
    let (key, value) = item.split_once('=').ok_or("expected section.key=value")?;
    let (key, value) = (key.trim(), value.trim());
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok();
    let value =
        match parsed.and_then(|mut parsed| if parsed.len() == 1 { parsed.remove("value") } else { None }) {
            Some(value) => value,
            None => toml::Value::String(value.to_owned()),
        };
    let mut keys: Vec<&str> = key.split('.').collect();
    let last = keys.pop().filter(|last| !last.is_empty()).ok_or("expected section.key=value")?;
    let mut inner = table;
    for key in keys {
        let entry = inner.entry(key).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        // A plain number of documents gives way to a table of them.
        if key == "documents_per_step" && entry.is_integer() {
            let every = entry.clone();
            let sets = ["unlearn", "edit_unlearn", "edit_update", "retain"];
            *entry =
                toml::Value::Table(sets.map(|set| (set.to_owned(), every.clone())).into_iter().collect());
        }
        inner = entry.as_table_mut().ok_or_else(|| format!("`{key}` is not a section"))?;
    }
    inner.insert(last.to_owned(), value);
    Ok(())
}

/// What a recipe must satisfy beyond its types.
pub trait Check {
    /// Says what is wrong, if anything: the key, its value and what was expected.
    fn check(&self) -> Result<(), String>;
}

fn within(key: &str, value: f64, low: f64, below: f64) -> Result<(), String> {
    match value >= low && value < below {
        true => Ok(()),
        false => Err(format!("`{key}` is {value}; expected a number from {low} and below {below}")),
    }
}

fn at_least(key: &str, value: usize, least: usize) -> Result<(), String> {
    match value >= least {
        true => Ok(()),
        false => Err(format!("`{key}` is {value}; expected {least} or more")),
    }
}

impl Check for OptimizerConfig {
    fn check(&self) -> Result<(), String> {
        let infinity = f64::INFINITY;
        within("optimizer.learning_rate", self.learning_rate, 0.0, infinity)?;
        within("optimizer.beta_1", self.beta_1, 0.0, 1.0)?;
        within("optimizer.beta_2", self.beta_2, 0.0, 1.0)?;
        within("optimizer.epsilon", self.epsilon, f64::MIN_POSITIVE, infinity)?;
        within("optimizer.weight_decay", self.weight_decay, 0.0, infinity)?;
        within("optimizer.clip_norm", self.clip_norm, 0.0, infinity)
    }
}

impl Check for Recipe {
    fn check(&self) -> Result<(), String> {
        self.objective.check()?;
        if let Some(limit) = self.guard.retain_kl {
            within("guard.retain_kl", limit, f64::MIN_POSITIVE, f64::INFINITY)?;
        }
        within("replay.temperature", self.replay.temperature, f64::MIN_POSITIVE, f64::INFINITY)?;
        let Replay { documents, max_tokens, .. } = self.replay;
        within("replay.documents", documents as f64, 0.0, Replay::MOST_DOCUMENTS)?;
        within("replay.max_tokens", max_tokens as f64, 16.0, Replay::MOST_TOKENS)?;
        if self.replay.documents > 0 && self.objective.retain == 0.0 {
            return Err("`replay.documents` is not 0 while `objective.retain` is: what the model writes is kept like the \
                        retain set; expected a weight"
                .into());
        }
        self.optimizer.check()?;
        for set in self.objective.sets() {
            at_least(&format!("train.documents_per_step.{set}"), self.train.documents_per_step.of(set), 1)?;
        }
        if self.train.trainable.is_empty() {
            return Err(
                "`train.trainable` is empty; expected globs over parameter names, such as `*` for all".into(),
            );
        }
        at_least("train.max_tokens", self.train.max_tokens, 2)
    }
}

impl Check for PretrainRecipe {
    fn check(&self) -> Result<(), String> {
        if self.model.source.is_empty() {
            return Err("`model.source` is missing; expected a Hugging Face folder".into());
        }
        if self.data.files.is_empty() {
            return Err("`data.files` is empty; expected JSONL files of documents".into());
        }
        self.optimizer.check()?;
        at_least("train.documents_per_step", self.train.documents_per_step, 1)?;
        at_least("train.max_tokens", self.train.max_tokens, 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, overrides: &[&str]) -> Result<Recipe> {
        let overrides: Vec<String> = overrides.iter().map(|item| item.to_string()).collect();
        parse("test.toml", text, &overrides)
    }

    #[test]
    fn an_empty_recipe_is_the_paper_s() {
        let recipe = read("", &[]).unwrap();
        assert_eq!(recipe, Recipe::default());
        assert_eq!(recipe.train.documents_per_step, DocumentsPerStep::all(8));
    }

    #[test]
    fn a_resolved_recipe_reads_back() {
        let recipe = read("[objective]\nascent_cap = 4.5\n[train]\ndocuments_per_step = 3", &[]).unwrap();
        let text = toml::to_string(&recipe).unwrap();
        assert_eq!(read(&text, &[]).unwrap(), recipe);
        assert!(!text.contains("trainable"), "the default is left out: {text}");
        let some = read("[train]\ntrainable = [\"*.mlp.*\", \"*.{5..7}.*\"]\nsteps = 3", &[]).unwrap();
        let text = toml::to_string(&some).unwrap();
        assert_eq!(read(&text, &[]).unwrap(), some, "{text}");
    }

    #[test]
    fn overrides_are_toml_or_words_and_the_last_wins() {
        let overrides = [
            "optimizer.schedule=cosine",
            "train.steps=3",
            "train.steps=5",
            "model.source=a/b",
            "train.documents_per_step={ unlearn = 2, edit_update = 9 }",
            "train.documents_per_step.retain=1",
        ];
        let recipe = read("", &overrides).unwrap();
        assert_eq!(recipe.train.steps, 5);
        assert_eq!(recipe.model.source, "a/b");
        let expected = DocumentsPerStep { unlearn: 2, edit_unlearn: 8, edit_update: 9, retain: 1 };
        assert_eq!(recipe.train.documents_per_step, expected);
    }

    #[test]
    fn faults_name_their_key() {
        for (text, overrides, expected) in [
            ("[train]\nstep = 3", vec![], "step"),
            ("[train]\nsteps = -1", vec![], "steps"),
            ("", vec!["train.stepz=1"], "stepz"),
            ("", vec!["optimizer.beta_1=1.5"], "optimizer.beta_1"),
            ("", vec!["objective.unlearn=nan"], "objective.unlearn"),
            ("[objective]\nunlearn=0\nedit_unlearn=0\nedit_update=0\nretain=0", vec![], "objective"),
            ("", vec!["replay.documents=1000000000000"], "replay.documents"),
            ("", vec!["replay.max_tokens=8"], "replay.max_tokens"),
            ("", vec!["replay.temperature=0"], "replay.temperature"),
            ("[replay]\ndocuments = 3\n[objective]\nretain = 0", vec![], "replay.documents"),
            ("[train]\ntrainable = []", vec![], "train.trainable"),
            ("[train]\ntrainable = [\"*.{5..7\"]", vec![], "*.{5..7"),
            ("", vec!["train.trainable=[\"*.{7..5}.*\"]"], "train.trainable"),
            ("", vec!["train"], "section.key=value"),
            ("", vec!["train.documents_per_step={ update = 2 }"], "update"),
        ] {
            let message = read(text, &overrides).unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} does not name {expected:?}");
        }
    }
}
