//! Rotary settings of config.json: `rope_theta`, `rope_scaling`, and `rope_parameters`, the newer name.

use serde_json::Value;

use super::Keys;
use crate::error::Result;

/// transformers' default of `rope_theta`.
const THETA: f64 = 10_000.0;

/// Rotary position embedding: base and scaling of its frequencies.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// The base, `rope_theta`.
    pub theta: f64,
    /// Scaling of the frequencies for longer texts.
    pub scaling: RopeScaling,
}

/// Supported scalings of rotary frequencies.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// No scaling.
    Default,
    /// Every frequency divided by `factor` (position interpolation, arXiv 2306.15595).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies are divided by `factor`, high ones kept, with a ramp in between.
    Llama3 {
        /// The divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are fully scaled.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// The context length of the initial training.
        original_max_position_embeddings: f64,
    },
}

/// The settings, with warnings if two keys disagree. Like transformers 5, reads `rope_parameters` only if
/// `rope_scaling` is empty; a `rope_theta` inside either takes precedence over that of config.json.
pub(super) fn parse(keys: &Keys, max_position_embeddings: usize) -> Result<(Rope, Vec<String>)> {
    let read = |name| of_key(keys, name, max_position_embeddings);
    let mut conflicts = Vec::new();
    let rope = match (read("rope_scaling")?, read("rope_parameters")?) {
        (Some(scaling), Some(parameters)) if scaling != parameters => {
            conflicts.push(conflict(keys, "rope_scaling", "rope_parameters", "rope_scaling"));
            scaling
        }
        (Some(scaling), _) => scaling,
        (None, Some(parameters)) => {
            let nested = keys.get("rope_parameters").and_then(|nested| nested.get("rope_theta"));
            if let (Some(nested), Some(theta)) = (nested, keys.get("rope_theta"))
                && nested.as_f64() != theta.as_f64()
            {
                conflicts.push(conflict(keys, "rope_theta", "rope_parameters", "rope_parameters"));
            }
            parameters
        }
        (None, None) => {
            Rope { theta: keys.positive("rope_theta", Some(THETA))?, scaling: RopeScaling::Default }
        }
    };
    Ok((rope, conflicts))
}

fn conflict(keys: &Keys, first: &str, second: &str, holds: &str) -> String {
    let value = |key: &str| keys.object.get(key).map_or_else(String::new, Value::to_string);
    format!(
        "{}: `{first}` is {}, but `{second}` is {}; as in transformers, `{holds}` is used",
        keys.path,
        value(first),
        value(second)
    )
}

/// The settings under one of the two names; `None` if it is missing, null or empty.
fn of_key(keys: &Keys, name: &str, max_position_embeddings: usize) -> Result<Option<Rope>> {
    let Some(nested) = keys.get(name) else { return Ok(None) };
    let Value::Object(object) = nested else { return Err(keys.wrong(name, "an object or null")) };
    if object.is_empty() {
        return Ok(None);
    }
    let path = format!("{}: {name}", keys.path);
    let settings = Keys { path: &path, object };
    if let Some((key, _)) = object.iter().find(|(_, value)| value.is_object()) {
        return Err(settings.wrong(key, "no object: one setting for all blocks is supported"));
    }
    settings.only_whole_rotation()?;
    let theta = match settings.get("rope_theta") {
        Some(_) => settings.positive("rope_theta", None)?,
        None => keys.positive("rope_theta", Some(THETA))?,
    };
    for key in ["rope_type", "type"] {
        if settings.get(key).is_some_and(|kind| !kind.is_string()) {
            return Err(settings.wrong(key, "the name of a type"));
        }
    }
    // `type` is the older name of the key.
    let kind = settings.text("rope_type").or(settings.text("type")).unwrap_or("default");
    let scaling = match kind {
        "default" => RopeScaling::Default,
        "linear" => RopeScaling::Linear { factor: settings.positive("factor", None)? },
        "llama3" => {
            let [factor, low, high] =
                ["factor", "low_freq_factor", "high_freq_factor"].map(|key| settings.positive(key, None));
            let (low_freq_factor, high_freq_factor) = (low?, high?);
            if low_freq_factor >= high_freq_factor {
                return Err(settings.wrong("high_freq_factor", "more than `low_freq_factor`"));
            }
            RopeScaling::Llama3 {
                factor: factor?,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: settings
                    .positive("original_max_position_embeddings", Some(max_position_embeddings as f64))?,
            }
        }
        _ => {
            let key = if settings.get("rope_type").is_some() { "rope_type" } else { "type" };
            return Err(settings.wrong(key, "\"default\", \"linear\" or \"llama3\", the types supported"));
        }
    };
    Ok(Some(Rope { theta, scaling }))
}

impl Rope {
    /// The angle per position of each pair of a head, in radians: `[head_dim / 2]`.
    ///
    /// θ_i = theta^(-2i / head_dim), then scaled. The formulas are those of transformers' `modeling_rope_utils`.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        let frequency = |pair: usize| self.theta.powf(-2.0 * pair as f64 / head_dim as f64);
        let scaled = |frequency: f64| match self.scaling {
            RopeScaling::Default => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                // Number of full turns of the pair within the original context.
                let turns = original_max_position_embeddings * frequency / std::f64::consts::TAU;
                let kept = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                let kept = kept.clamp(0.0, 1.0);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        };
        (0..head_dim / 2).map(|pair| scaled(frequency(pair)) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;

    fn rope(config: Value) -> Result<(Rope, Vec<String>)> {
        let object: &Map<String, Value> = config.as_object().unwrap();
        parse(&Keys { path: "config.json", object }, 128)
    }

    /// The expected values are those of transformers 5.23.
    #[test]
    fn conflicting_keys_are_resolved_as_in_transformers() {
        let linear = |theta, factor| Rope { theta, scaling: RopeScaling::Linear { factor } };
        let plain = |theta| Rope { theta, scaling: RopeScaling::Default };
        for (config, expected, conflicts) in [
            (json!({}), plain(1e4), 0),
            (json!({"rope_theta": 5e5}), plain(5e5), 0),
            (
                json!({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 3e4}),
                linear(3e4, 2.0),
                0,
            ),
            (
                json!({"rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": 2.0}}),
                linear(1e4, 2.0),
                0,
            ),
            (
                json!({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_theta": 7e4}}),
                linear(1e4, 2.0),
                1,
            ),
            (
                json!({
                    "rope_theta": 7e4,
                    "rope_scaling": {"type": "linear", "factor": 2.0},
                    "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 7e4},
                }),
                linear(7e4, 2.0),
                0,
            ),
            (json!({"rope_theta": 1e6, "rope_parameters": {"rope_theta": 7e4}}), plain(7e4), 1),
            (
                json!({"rope_scaling": {"rope_type": "linear", "type": "llama3", "factor": 2.0}}),
                linear(1e4, 2.0),
                0,
            ),
        ] {
            let (found, warnings) = rope(config.clone()).unwrap();
            assert_eq!((found, warnings.len()), (expected, conflicts), "{config}: {warnings:?}");
        }
        let (_, warnings) = rope(
            json!({"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_parameters": {"rope_theta": 1}}),
        )
        .unwrap();
        assert!(
            warnings[0].contains("`rope_scaling` is {\"type\":\"linear\"")
                && warnings[0].contains("`rope_parameters`")
        );
    }

    #[test]
    fn a_partial_rotation_is_refused_in_nested_settings() {
        let error = rope(json!({"rope_parameters": {"partial_rotary_factor": 0.5}})).unwrap_err();
        assert!(error.to_string().contains("partial_rotary_factor"), "{error}");
    }
}
