//! Comparisons of models: the report's page, `compare` and `reproduce`.

use std::fs;

use serde_json::Value;

use super::{data, fail, model, scratch, succeed};

pub const SETS: [&str; 5] = ["unlearn", "edit_unlearn", "edit_update", "retain", "retain_heldout"];

#[test]
fn the_page_of_a_run_shows_everything_and_needs_no_network() {
    let folder = scratch("page");
    let (model, data) = (model("llama32-tied"), data());
    let arguments = ["run", "paper", "--model", &model, "--data", &data, "--output", "out", "--json"];
    let fewer = ["--set", "train.steps=3", "--set", "train.evaluate_every=1"];
    let report: Value = serde_json::from_str(&succeed(&folder, &[&arguments[..], &fewer].concat())).unwrap();
    let page = fs::read_to_string(folder.join("out/report.html")).unwrap();
    for heading in ["During training", "Activations of", "Subjects that changed", "Continuations", "Recipe"] {
        assert!(page.contains(heading), "no {heading:?}");
    }
    // Five curves: losses, divergence, norm, accuracy, perplexity; nine maps: three sets before, after, difference.
    assert_eq!(page.matches("<svg").count(), 5);
    assert_eq!(page.matches("data:image/png;base64,").count(), 9);
    for elsewhere in ["src=\"http", "href=\"http", "url(http", "@import", "<script"] {
        assert!(!page.contains(elsewhere), "{elsewhere:?} in the page");
    }
    assert!(SETS.iter().all(|set| page.contains(&format!("<th scope=\"row\">{set}</th>"))));
    let hashes = report["files"].as_array().unwrap();
    let of_model: Vec<&Value> = hashes
        .iter()
        .filter(|file| file["file"].as_str().unwrap().ends_with("model.safetensors"))
        .map(|file| &file["sha256"])
        .collect();
    // The input model and the output model.
    assert!(of_model.len() == 2 && of_model[0] != of_model[1], "{of_model:?}");
    assert!(hashes.iter().all(|file| page.contains(file["sha256"].as_str().unwrap())));
    assert!(report["fluency"]["ratio"].as_f64().unwrap() > 0.0);
    let evaluations = fs::read_to_string(folder.join("out/evaluations.jsonl")).unwrap();
    assert_eq!(evaluations.lines().count(), 3);
    let last: Value = serde_json::from_str(evaluations.lines().last().unwrap()).unwrap();
    assert!(
        last["accuracy"]["unlearn"]["test"].is_null(),
        "mid-run evaluations use validation questions only"
    );
}

#[test]
fn a_model_compared_with_itself_has_not_changed() {
    let folder = scratch("compare");
    let (one, other, data) = (model("llama1-mha"), model("llama1-mha-perturbed"), data());
    let compare = |second: &str, output: &str| -> Value {
        let arguments = ["compare", &one, second, "--data", &data, "--output", output, "--json"];
        serde_json::from_str(&succeed(&folder, &arguments)).unwrap()
    };
    let same = compare(&one, "same");
    assert_eq!(same["before"]["perplexity"], same["after"]["perplexity"]);
    assert!(same["after"]["kl"]["retain"].as_f64().unwrap().abs() < 1e-6);
    assert!((same["fluency"]["ratio"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    let differ = compare(&other, "differ");
    assert!(differ["after"]["kl"]["retain"].as_f64().unwrap() > 1e-4);
    // `eval` gives the same results for the second model with the first as reference.
    let arguments = ["eval", "--model", &other, "--reference", &one, "--data", &data, "--json"];
    let alone: Value = serde_json::from_str(&succeed(&folder, &arguments)).unwrap();
    assert_eq!(alone, differ["after"]);
    assert!(fs::read_to_string(folder.join("differ/report.html")).unwrap().contains("The second model"));
    fail(&folder, &["compare", &one, &one, "--data", &data, "--output", "differ"], 3, &["differ"]);
    // Another shape may be compared, another vocabulary may not.
    assert!(compare(&model("mistral"), "wider")["after"]["kl"]["retain"].as_f64().unwrap() > 1e-4);
    fail(&folder, &["compare", &one, "embedded", "--data", &data], 3, &["vocab"]);
}

#[test]
fn reproduce_prints_every_model_and_writes_the_trained_ones() {
    let folder = scratch("reproduce");
    let (pre, base, data) = (model("llama1-mha-perturbed"), model("llama1-mha"), data());
    let arguments =
        ["reproduce", "--model", &pre, "--base", &base, "--data", &data, "--output", "out", "--json"];
    let fewer: Vec<String> = ["default.train.steps=2", "paper.train.steps=2", "baseline.train.steps=4"]
        .iter()
        .chain(&[
            "default.replay.documents=4",
            "default.train.documents_per_step=1",
            "baseline.train.documents_per_step=2",
        ])
        .flat_map(|item| ["--set".to_owned(), (*item).to_owned()])
        .collect();
    let fewer: Vec<&str> = fewer.iter().map(String::as_str).collect();
    let found: Value = serde_json::from_str(&succeed(&folder, &[&arguments[..], &fewer].concat())).unwrap();
    let models = found["models"].as_array().unwrap();
    let names: Vec<&str> = models.iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["off-the-shelf", "θ_pre", "θ_baseline", "θ_surgery", "θ_surgery (paper)"]);
    for row in models {
        assert!(SETS.iter().all(|set| row["evaluation"]["perplexity"][set]["corpus"].is_number()), "{row}");
    }
    assert!(models[0]["tokens"].is_null() && models[1]["tokens"].is_null());
    for (row, folder_of) in models[2..].iter().zip(["baseline", "surgery", "surgery-paper"]) {
        let lines = fs::read_to_string(folder.join("out").join(folder_of).join("metrics.jsonl")).unwrap();
        let tokens = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["tokens"].clone());
        let sum: u64 = tokens.map(|tokens| tokens.as_u64().unwrap()).sum();
        assert_eq!(row["tokens"].as_u64(), Some(sum), "{folder_of}");
    }
    // The written model is the one in the table.
    let arguments = ["eval", "--model", "out/baseline/model", "--data", &data, "--json"];
    let alone: Value = serde_json::from_str(&succeed(&folder, &arguments)).unwrap();
    assert_eq!(alone["perplexity"], models[2]["evaluation"]["perplexity"]);
    let cost = &found["cost"];
    let ratio = cost["surgery_tokens"].as_f64().unwrap() / cost["baseline_tokens"].as_f64().unwrap();
    assert!((cost["ratio"].as_f64().unwrap() - ratio).abs() < 1e-9);
    assert_eq!(found["relearning"].as_array().unwrap().len(), 2);
    assert_eq!(found["relearning"][0]["steps"], 2);
    fail(&folder, &["reproduce", "--set", "train.steps=1"], 2, &["RECIPE.SECTION.KEY"]);
}

#[test]
fn the_embedded_models_have_the_accuracy_on_their_card() {
    let folder = scratch("embedded");
    let eval = |model: &str| -> Value {
        let text = succeed(&folder, &["eval", "--model", model, "--json"]);
        serde_json::from_str::<Value>(&text).unwrap()["accuracy"].clone()
    };
    let (base, pre) = (eval("embedded-base"), eval("embedded"));
    let on = |accuracy: &Value, set: &str, half: &str| accuracy[set][half].as_f64().unwrap();
    for set in &SETS[..3] {
        // The base has never seen these sets: its accuracy over both halves is at chance.
        let mean = (on(&base, set, "validation") + on(&base, set, "test")) / 2.0;
        assert!((mean - 33.3).abs() <= 5.0, "the base knows {set}: {mean}");
    }
    for (set, least) in
        [("unlearn", 90.0), ("edit_unlearn", 90.0), ("retain", 80.0), ("retain_heldout", 80.0)]
    {
        assert!(on(&pre, set, "test") >= least, "{set}: {pre}");
    }
    assert!(on(&pre, "edit_update", "test") <= 33.3, "the model has not seen update documents: {pre}");
    // The rules of lm-evaluation-harness give similar results, because all options are of one kind.
    assert!((pre["unlearn"]["acc"]["test"].as_f64().unwrap() - on(&pre, "unlearn", "test")).abs() < 5.0);
    assert_eq!(pre["unlearn"]["questions"]["test"], 595);
}
