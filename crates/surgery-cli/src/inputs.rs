//! Opens the models, data folders and recipes that the user names.

use std::path::{Path, PathBuf};

use surgery_core::data::Set;
use surgery_core::files::{Folder, file_in_folder};
use surgery_core::folders::{DataFolder, ModelFolder};
use surgery_core::recipe::{Check, EMBEDDED, parse};
use surgery_core::text::TextEncoder;
use surgery_core::{Error, Result};

use crate::args::EMBEDDED_BASE;
use crate::hub::{Hub, Name};
use crate::terminal::Log;

/// Opens the model that `source` names, and warns of files in it that contradict each other. A model on the hub is
/// downloaded if the cache does not have it.
pub fn open_model(source: &str, log: Log) -> Result<ModelFolder> {
    let model = find_model(source, log)?;
    model.conflicts().for_each(|conflict| log.warn(conflict));
    Ok(model)
}

fn find_model(source: &str, log: Log) -> Result<ModelFolder> {
    let local = folder(source, &MODELS);
    // A local folder or file takes precedence over the hub.
    let Some(name) = Name::parse(source).filter(|_| local.is_err() && !Path::new(source).exists()) else {
        return ModelFolder::open(local?);
    };
    let snapshot = Hub::from_env()?.find(&name, log)?;
    let pinned = Some(format!("{}@{}", name.repository, snapshot.commit));
    Ok(ModelFolder { pinned, ..ModelFolder::open(Folder::Disk(snapshot.folder))? })
}

/// Reads the data folder that `source` names; the sets in `needed` must exist.
pub fn open_data(source: &str, needed: &[Set], encoder: &TextEncoder) -> Result<DataFolder> {
    let folder = folder(source, &[(EMBEDDED, "embedded benchmark", surgery_datasets::benchmark)])?;
    DataFolder::open(folder, needed, encoder)
}

/// An embedded folder: its source, its name in messages, and its files.
type Embedded = (&'static str, &'static str, fn() -> Vec<surgery_datasets::File>);

const MODELS: [Embedded; 2] = [
    (EMBEDDED, "embedded model", surgery_datasets::model),
    (EMBEDDED_BASE, "embedded base model", surgery_datasets::base),
];

fn folder(source: &str, embedded: &[Embedded]) -> Result<Folder> {
    if let Some((_, name, files)) = embedded.iter().find(|(embedded_source, ..)| *embedded_source == source) {
        return Ok(Folder::Embedded { name: (*name).into(), files: files() });
    }
    let path = PathBuf::from(source);
    if path.is_dir() {
        return Ok(Folder::Disk(path));
    }
    let problem = if path.exists() { "is a file, not a folder" } else { "is not a local folder" };
    Err(Error::Data {
        path: source.into(),
        problem: problem.into(),
        remedy:
            "give the path of a local folder, or `embedded`; a model may also be ORG/NAME[@REVISION] on the \
                 Hugging Face hub"
                .into(),
    })
}

/// The shipped recipes: name, purpose, text.
pub const RECIPES: [(&str, &str, &str); 11] = [
    (
        "default",
        "run: the embedded model and benchmark, with a bound on the ascent",
        include_str!("../recipes/default.toml"),
    ),
    (
        "paper",
        "run: the paper's numbers and plain objective, no guards",
        include_str!("../recipes/paper.toml"),
    ),
    (
        "npo",
        "run: negative preference optimisation, with TOFU's numbers",
        include_str!("../recipes/npo.toml"),
    ),
    ("simnpo", "run: NPO without a reference, with TOFU's numbers", include_str!("../recipes/simnpo.toml")),
    (
        "dpo",
        "run: preference of each document's `alternative`, such as \"I don't know\"",
        include_str!("../recipes/dpo.toml"),
    ),
    (
        "rmu",
        "run: hidden states driven to a random direction, with WMDP's numbers",
        include_str!("../recipes/rmu.toml"),
    ),
    (
        "undial",
        "run: self-distillation with lowered logits; needs no retain documents",
        include_str!("../recipes/undial.toml"),
    ),
    (
        "baseline",
        "reproduce: the base model, trained on update and retain documents",
        include_str!("../recipes/baseline.toml"),
    ),
    (
        "relearn",
        "reproduce: relearning a tenth of the unlearn documents",
        include_str!("../recipes/relearn.toml"),
    ),
    (
        "pretrain-base",
        "pretrain: the embedded base model, from scratch",
        include_str!("../recipes/pretrain-base.toml"),
    ),
    (
        "pretrain-embedded",
        "pretrain: the embedded model, from that base model",
        include_str!("../recipes/pretrain-embedded.toml"),
    ),
];

/// The name of a recipe without keys.
pub const EMPTY: &str = "";

/// Reads the recipe `name`, which is a shipped recipe or a TOML file.
pub fn recipe<R: serde::de::DeserializeOwned + Check>(name: &str, overrides: &[String]) -> Result<R> {
    if let Some((name, _, text)) = RECIPES.iter().find(|(shipped, _, _)| *shipped == name) {
        return parse(&format!("recipe `{name}`"), text, overrides);
    }
    if name == EMPTY {
        return parse("the recipe", "", overrides);
    }
    if !Path::new(name).exists() {
        let shipped: Vec<&str> = RECIPES.iter().map(|(name, _, _)| *name).collect();
        return Err(Error::Recipe {
            origin: name.into(),
            problem: format!(
                "is neither a file nor a shipped recipe; the shipped recipes are: {}",
                shipped.join(", ")
            ),
        });
    }
    /// Maximum size of a recipe in bytes.
    const LIMIT: u64 = 1 << 20;
    let (folder, file) = file_in_folder(Path::new(name));
    let text = String::from_utf8(folder.read(&file, LIMIT)?).map_err(|error| {
        let problem = format!("is not UTF-8 (byte {})", error.utf8_error().valid_up_to() + 1);
        Error::Recipe { origin: name.into(), problem }
    })?;
    parse(name, &text, overrides)
}
