//! `surgery doctor`: describes this program and this machine.

use serde_json::json;
use surgery_core::platform::Platform;

use crate::backend::{Job, Name};
use crate::exit::Outcome;
use crate::hub::Hub;
use crate::inputs::RECIPES;
use crate::terminal::{print, print_json};

struct Describe;

impl Job for Describe {
    type Output = (Vec<String>, Vec<&'static str>);

    fn run<P: Platform>(self) -> Outcome<Self::Output> {
        let precisions = P::precisions().iter().map(|precision| precision.name()).collect();
        Ok((P::describe(), precisions))
    }
}

/// Prints backends, devices, embedded files and the hub's configuration.
pub fn run(as_json: bool) -> Outcome {
    let size = |files: Vec<surgery_datasets::File>| files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    let (model, benchmark) = (size(surgery_datasets::model()), size(surgery_datasets::benchmark()));
    let version = env!("CARGO_PKG_VERSION");
    let mut lines = vec![format!("surgery {version}")];
    let mut backends = Vec::new();
    for name in Name::ALL {
        if name.is_compiled() {
            let (devices, precisions) = name.run(Describe)?;
            lines.push(format!("{:<8} compiled in, precisions: {}", name.feature(), precisions.join(", ")));
            lines.extend(devices.iter().map(|device| format!("         {device}")));
            backends.push(json!({
                "name": name.feature(), "compiled": true, "precisions": precisions, "devices": devices,
            }));
        } else {
            let command = name.rebuild_command();
            lines.push(format!("{:<8} not compiled in; build it with: {command}", name.feature()));
            backends.push(json!({ "name": name.feature(), "compiled": false, "rebuild": command }));
        }
    }
    let recipes: Vec<&str> = RECIPES.iter().map(|(name, _, _)| *name).collect();
    lines.push(format!("recipes  {}", recipes.join(", ")));
    lines.push(format!("embedded model {} KiB, benchmark {} KiB", model >> 10, benchmark >> 10));
    let hub = match Hub::from_env().and_then(|hub| Ok((hub.token()?, hub))) {
        Ok((token, hub)) => {
            let access = if token.is_some() { "with a token" } else { "without a token" };
            let offline = if hub.offline.is_some() { ", offline" } else { "" };
            lines.push(format!("hub      {}, {access}{offline}", hub.endpoint));
            lines.push(format!("         models in {}", hub.cache.display()));
            lines.extend(
                hub.offline.map(|variable| format!("         {variable} forbids requests to the hub")),
            );
            let origin = token.as_ref().map(|token| token.origin.as_str());
            lines.push(match origin {
                Some(origin) => format!("         token from {origin}"),
                None if hub.sends_token => {
                    format!("         no token in HF_TOKEN or {}", hub.token_path.display())
                }
                None => "         HF_HUB_DISABLE_IMPLICIT_TOKEN forbids sending a token".into(),
            });
            json!({
                "endpoint": hub.endpoint,
                "cache": hub.cache.display().to_string(),
                "token": token.is_some(),
                "token_from": origin,
                "token_path": hub.token_path.display().to_string(),
                "sends_token": hub.sends_token,
                "offline": hub.offline.is_some(),
                "offline_by": hub.offline,
            })
        }
        Err(error) => {
            lines.push(format!("hub      {error}"));
            json!({ "problem": error.to_string() })
        }
    };
    match as_json {
        true => print_json(&json!({
            "version": version,
            "default_backend": Name::best().map(Name::feature),
            "backends": backends,
            "recipes": recipes,
            "hub": hub,
            "embedded": { "model_bytes": model, "benchmark_bytes": benchmark },
        })),
        false => print(&lines.join("\n")),
    }
}
