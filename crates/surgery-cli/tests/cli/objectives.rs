//! The shipped recipes of the forget losses, and what is wrong with an objective, a model and its data together.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{data_with, golden, model, scratch, succeed};

/// The recipes of methods from the literature, and what a model of two blocks needs changed in them.
const METHODS: [(&str, &[&str]); 5] = [
    ("npo", &[]),
    ("simnpo", &[]),
    ("dpo", &[]),
    ("rmu", &["objective.rmu.block=0", "train.trainable=[\"model.layers.0.mlp.down_proj.weight\"]"]),
    ("undial", &[]),
];

/// The golden data, whose documents to unlearn have alternatives.
fn data_with_alternatives(folder: &Path) -> String {
    let texts = fs::read_to_string(golden("steps/data/unlearn.jsonl")).unwrap();
    let add = |line: &str| {
        let mut document: Value = serde_json::from_str(line).unwrap();
        document["alternative"] = "Nothing is known of this person.".into();
        format!("{document}\n")
    };
    data_with(folder, "alternatives", "unlearn.jsonl", Some(&texts.lines().map(add).collect::<String>()))
}

#[test]
fn shipped_recipes_are_listed_and_parse() {
    let folder = scratch("shipped");
    let list: Value = serde_json::from_str(&succeed(&folder, &["recipe", "ls", "--json"])).unwrap();
    let names: Vec<&str> =
        list.as_array().unwrap().iter().map(|recipe| recipe["name"].as_str().unwrap()).collect();
    for (method, _) in METHODS {
        assert!(names.contains(&method), "{names:?} has no {method}");
    }
    let (model, data) = (model("llama1-mha"), data_with_alternatives(&folder));
    for recipe in list.as_array().unwrap() {
        let (name, purpose) = (recipe["name"].as_str().unwrap(), recipe["purpose"].as_str().unwrap());
        let text = succeed(&folder, &["recipe", "show", name]);
        assert!(text.starts_with("# "), "{name} does not explain itself");
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert!(table.contains_key("train"), "{name}");
        if purpose.starts_with("run: ") {
            let (_, changes) = METHODS.iter().find(|(method, _)| *method == name).unwrap_or(&("", &[]));
            let mut run = vec!["run", name, "--model", &model, "--data", &data, "--dry-run", "--json", "-q"];
            changes.iter().for_each(|change| run.extend(["--set", change]));
            let plan: Value = serde_json::from_str(&succeed(&folder, &run)).unwrap();
            let steps = table["train"]["steps"].as_integer();
            assert_eq!(plan["recipe"]["train"]["steps"].as_i64(), steps, "{name}");
        }
    }
}

#[test]
fn each_method_runs_from_its_recipe() {
    let folder = scratch("methods");
    let (model, data) = (model("llama1-mha"), data_with_alternatives(&folder));
    for (method, changes) in METHODS {
        let mut run =
            vec!["run", method, "--model", &model, "--data", &data, "--output", method, "--json", "-q"];
        let fewer = [
            "train.steps=2",
            "train.documents_per_step=2",
            "optimizer.warmup_steps=0",
            "optimizer.learning_rate=1e-3",
        ];
        fewer.iter().chain(changes).for_each(|change| run.extend(["--set", change]));
        let report: Value = serde_json::from_str(&succeed(&folder, &run)).unwrap();
        assert_eq!(report["steps"], 2, "{method}");
        let metrics = fs::read_to_string(folder.join(method).join("metrics.jsonl")).unwrap();
        for line in metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            assert!(line["loss"].is_number() && line["forget"].is_number(), "{method}: {line}");
            assert!(
                line["unlearn"].is_number() && line["grad_norm"].as_f64().unwrap() > 0.0,
                "{method}: {line}"
            );
            assert!(line["edit_update"].is_null() && line["retain_kl"].is_null(), "{method}: {line}");
            assert_eq!(line["keep"].is_number(), method != "undial", "{method}: {line}");
        }
        // The page has the curves of the losses that the recipe names.
        let page = fs::read_to_string(folder.join(method).join("report.html")).unwrap();
        assert!(page.contains(&format!("Forget loss ({method})")), "{method}");
        assert_eq!(page.contains("Keep loss ("), method != "undial", "{method}");
        let perplexity = |part: &str| report[part]["perplexity"]["unlearn"]["corpus"].as_f64().unwrap();
        assert_ne!(perplexity("before"), perplexity("after"), "{method}");
    }
}
