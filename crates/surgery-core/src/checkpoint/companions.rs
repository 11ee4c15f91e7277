//! The files that belong to a model beside its weights: the one list for what is fetched, written and hashed.

use super::{INDEX, weight_files};
use crate::error::Result;
use crate::files::Folder;

/// Files of a model folder that are not weights, in the order in which they are fetched and written: a folder that has
/// config.json is whole.
///
/// They are what transformers 5.23 loads for a text model (its configurations, the forms of its tokenizer, its chat
/// templates) and what a licence asks to be passed on. README.md is not among them: a model card describes the model
/// that it was written for, and not what is made of it. Nor is code, or weights in another format.
pub const COMPANIONS: [&str; 18] = [
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "NOTICE",
    "NOTICE.txt",
    "USE_POLICY.md",
    "chat_template.json",
    "chat_template.jinja",
    "merges.txt",
    "vocab.json",
    "tekken.json",
    "tokenizer.model",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "generation_config.json",
    "config.json",
];

/// The folder in a model folder that holds its further chat templates, a `.jinja` file each.
pub const TEMPLATES: &str = "additional_chat_templates";

/// The companions that `folder` holds, its further chat templates among them, in the order in which they are written.
pub fn companions(folder: &Folder) -> Result<Vec<String>> {
    let mut found = templates(folder)?;
    found.extend(COMPANIONS.into_iter().filter(|file| folder.has(file)).map(str::to_owned));
    Ok(found)
}

/// The files of the model in `folder`: its weights, what says where they are, and its companions. An error where the
/// index of the weights cannot be read.
pub fn model_files(folder: &Folder) -> Result<Vec<String>> {
    let mut found = weight_files(folder)?;
    found.push(INDEX.to_owned());
    found.retain(|file| folder.has(file));
    found.extend(companions(folder)?);
    found.sort();
    Ok(found)
}

/// The further chat templates that `folder` holds, by their names relative to it.
pub(crate) fn templates(folder: &Folder) -> Result<Vec<String>> {
    if !folder.has_folder(TEMPLATES) {
        return Ok(Vec::new());
    }
    let names = folder.list(TEMPLATES)?.into_iter().filter(|name| name.ends_with(".jinja"));
    Ok(names.map(|name| format!("{TEMPLATES}/{name}")).collect())
}
