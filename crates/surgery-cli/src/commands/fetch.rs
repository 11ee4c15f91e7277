//! `surgery fetch`: downloads a model from the hub into its cache.

use serde_json::json;
use surgery_core::Error;

use crate::args::{Common, Fetch};
use crate::exit::Outcome;
use crate::hub::{Hub, Name};
use crate::terminal::{Log, print, print_json};

/// Downloads the model and prints its folder.
pub fn run(fetch: Fetch, common: Common) -> Outcome {
    let name = Name::parse(&fetch.model).ok_or_else(|| Error::Data {
        path: fetch.model.clone(),
        problem: "is not the name of a model on the hub".into(),
        remedy: "write ORG/NAME or ORG/NAME@REVISION, as in meta-llama/Llama-3.2-1B".into(),
    })?;
    let snapshot = Hub::from_env()?.fetch(&name, Log::new(&common))?;
    match common.json {
        true => print_json(&json!({
            "model": name.repository,
            "revision": name.revision,
            "commit": snapshot.commit,
            "folder": snapshot.folder.display().to_string(),
        })),
        false => print(&snapshot.folder.display().to_string()),
    }
}
