//! Checks that burn is built only once. It takes minutes to build, and is rebuilt if any package that it depends on
//! gets other features. cargo unifies the features requested by all packages of a command. So the build of `cargo run
//! -p surgery-cli` serves `cargo test` only if no other package, tests included, requests more features of burn's
//! dependencies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::{cargo, output};

/// Features by package, for every combination in which it is built (for the target, for build scripts).
type Features = BTreeMap<String, BTreeSet<String>>;

/// Fails with the packages that cause a rebuild of burn.
pub(crate) fn check(root: &Path, metadata: &Value) -> Result<(), String> {
    let run = features(root, &["--package", "surgery-cli", "--edges", "normal,build"])?;
    let test = features(root, &["--edges", "normal,build,dev"])?;
    let below = below_burn(metadata)?;
    let differing: Vec<String> = run
        .iter()
        .filter(|(package, _)| below.contains(package.split(' ').next().unwrap_or_default()))
        .filter_map(|(package, run)| {
            let test = test.get(package).filter(|test| *test != run)?;
            let shown = |sets: &BTreeSet<String>| sets.iter().cloned().collect::<Vec<_>>().join(" and ");
            Some(format!("  {package}: {} for run, {} for test", shown(run), shown(test)))
        })
        .collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "burn is built twice, because its dependencies have different features for `cargo run` and `cargo test` \
        (`cargo tree -e all -i NAME` shows who requests them):\n{}",
        differing.join("\n")
    ))
}

fn features(root: &Path, selection: &[&str]) -> Result<Features, String> {
    let mut tree =
        cargo(root, &["tree", "--locked", "--prefix", "none", "--no-dedupe", "--format", "{p}\t{f}"]);
    tree.args(selection);
    let mut features = Features::new();
    for line in output(tree)?.lines() {
        if let Some((package, set)) = line.split_once('\t') {
            features.entry(package.to_owned()).or_default().insert(format!("[{set}]"));
        }
    }
    Ok(features)
}

/// The names of all packages that burn and its CPU backend depend on.
fn below_burn(metadata: &Value) -> Result<BTreeSet<String>, String> {
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names: BTreeMap<String, String> = array(&metadata["packages"])
        .iter()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let nodes: BTreeMap<String, Vec<String>> = array(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| (text(&node["id"]), array(&node["dependencies"]).iter().map(text).collect()))
        .collect();
    let is_burn = |id: &&String| matches!(names[*id].as_str(), "burn" | "burn-ndarray");
    let mut pending: Vec<&String> = names.keys().filter(is_burn).collect();
    if pending.is_empty() {
        return Err("cargo metadata has no package burn".into());
    }
    let mut below = BTreeSet::new();
    while let Some(id) = pending.pop() {
        if below.insert(id) {
            pending.extend(nodes.get(id).into_iter().flatten());
        }
    }
    Ok(below.into_iter().map(|id| names[id].clone()).collect())
}
