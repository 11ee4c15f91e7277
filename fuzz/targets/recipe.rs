//! Recipes: TOML, followed by command-line overrides, each after a zero byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use surgery_core::recipe::{PretrainRecipe, Recipe, parse};
use surgery_fuzz::refused;

fuzz_target!(|text: &str| {
    let mut parts = text.split('\0').map(str::to_owned);
    let recipe = parts.next().unwrap_or_default();
    let overrides: Vec<String> = parts.collect();
    refused(parse::<PretrainRecipe>("a file", &recipe, &overrides));
    if let Some(recipe) = refused(parse::<Recipe>("a file", &recipe, &overrides)) {
        let resolved = toml::to_string(&recipe).expect("a recipe is TOML");
        assert_eq!(parse::<Recipe>("resolved", &resolved, &[]).expect("it was written here"), recipe);
    }
});
