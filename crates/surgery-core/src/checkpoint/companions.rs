//! Files of a model besides its weights: one list for downloading, writing and hashing.

use super::{INDEX, weight_files};
use crate::error::Result;
use crate::files::Folder;

/// Files of a model folder other than weights, in the order in which they are downloaded and written. config.json
/// comes last, so a folder with it is complete.
///
/// These are the files that transformers 5.23 loads for a text model (configurations, tokenizer files, chat
/// templates) and licence files. README.md is excluded because a model card describes the original model only. Code
/// and weights in other formats are excluded.
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

/// The subfolder with additional chat templates, one `.jinja` file each.
pub const TEMPLATES: &str = "additional_chat_templates";

/// The companions in `folder`, including additional chat templates, in the order in which they are written.
pub fn companions(folder: &Folder) -> Result<Vec<String>> {
    let mut found = templates(folder)?;
    found.extend(COMPANIONS.into_iter().filter(|file| folder.has(file)).map(str::to_owned));
    Ok(found)
}

/// The files of the model in `folder`: weights, their index, and companions. Fails if the index cannot be read.
pub fn model_files(folder: &Folder) -> Result<Vec<String>> {
    let mut found = weight_files(folder)?;
    found.push(INDEX.to_owned());
    found.retain(|file| folder.has(file));
    found.extend(companions(folder)?);
    found.sort();
    Ok(found)
}

/// Additional chat templates in `folder`, as paths relative to it.
pub(crate) fn templates(folder: &Folder) -> Result<Vec<String>> {
    if !folder.has_folder(TEMPLATES) {
        return Ok(Vec::new());
    }
    let names = folder.list(TEMPLATES)?.into_iter().filter(|name| name.ends_with(".jinja"));
    Ok(names.map(|name| format!("{TEMPLATES}/{name}")).collect())
}
