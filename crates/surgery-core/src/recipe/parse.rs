//! Parsing and checking of recipes.

use serde::de::DeserializeOwned;

use super::{PretrainRecipe, Recipe, Replay};
use crate::error::{Error, Result};
use crate::optimizer::OptimizerConfig;

/// Parses a recipe's text and applies the overrides of the command line.
///
/// Messages name `origin`, the file or the name of a shipped recipe. An override is `section.key=value`. The value is
/// TOML; a bare word that is not TOML is a string. The last override of a key wins.
pub fn parse<R: DeserializeOwned + Check>(origin: &str, text: &str, overrides: &[String]) -> Result<R> {
    let wrong = |origin: &str, problem: String| Error::Recipe { origin: origin.into(), problem };
    // Parse the text alone first: its errors have a line and a column, which overriding would lose.
    let alone: R = toml::from_str(text).map_err(|error| wrong(origin, error.to_string().trim().into()))?;
    if overrides.is_empty() {
        alone.check().map_err(|problem| wrong(origin, problem))?;
        return Ok(alone);
    }
    // An error that the text alone has, too, is reported as the text's.
    let problem_of_text = alone.check().err();
    let mut table: toml::Table = toml::from_str(text).expect("it was parsed above");
    for item in overrides {
        set(&mut table, item).map_err(|problem| wrong(&format!("--set {item}"), problem))?;
    }
    let named = format!("--set {}", overrides.join(" --set "));
    let recipe: R = table.try_into().map_err(|error: toml::de::Error| {
        let message = error.to_string();
        wrong(&named, message.trim().replace('\n', " "))
    })?;
    recipe.check().map_err(|problem| match problem_of_text {
        Some(of_text) if of_text == problem => wrong(origin, problem),
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
        // Replace a plain number of documents by a table with that number for each set.
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

/// Conditions on a recipe beyond its types.
pub trait Check {
    /// Returns the first problem, if there is one: the key, its value and the expected value.
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
            return Err(format!(
                "`replay.documents` is {documents} but `objective.retain` is 0, the weight of replay documents too; \
                 expected a weight above 0"
            ));
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
    use crate::data::DocumentsPerStep;

    fn read(text: &str, overrides: &[&str]) -> Result<Recipe> {
        let overrides: Vec<String> = overrides.iter().map(|item| item.to_string()).collect();
        parse("test.toml", text, &overrides)
    }

    #[test]
    fn an_empty_recipe_has_the_paper_s_values() {
        let recipe = read("", &[]).unwrap();
        assert_eq!(recipe, Recipe::default());
        assert_eq!(recipe.train.documents_per_step, DocumentsPerStep::all(8));
    }

    #[test]
    fn a_serialized_recipe_parses_to_the_same_recipe() {
        let recipe = read("[objective]\nascent_cap = 4.5\n[train]\ndocuments_per_step = 3", &[]).unwrap();
        let text = toml::to_string(&recipe).unwrap();
        assert_eq!(read(&text, &[]).unwrap(), recipe);
        assert!(!text.contains("trainable"), "the default is omitted: {text}");
        let some = read("[train]\ntrainable = [\"*.mlp.*\", \"*.{5..7}.*\"]\nsteps = 3", &[]).unwrap();
        let text = toml::to_string(&some).unwrap();
        assert_eq!(read(&text, &[]).unwrap(), some, "{text}");
    }

    #[test]
    fn overrides_are_toml_or_words_and_the_last_of_a_key_wins() {
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
    fn errors_name_their_key() {
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
