//! Recipes: files that are not TOML, deep nesting, and impossible values.

use std::fs;

use super::{SINGLE, golden, refuse, scratch};

#[test]
fn recipes_are_refused_by_file_and_key() {
    let folder = scratch("recipes");
    fs::create_dir(folder.join("folder.toml")).unwrap();
    let deep = 100_000;
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("latin1.toml", b"[model]\nsource = \"caf\xe9\"".to_vec(), &["UTF-8", "byte 22"]),
        ("binary.toml", (0..=255).collect(), &["UTF-8"]),
        ("large.toml", vec![b'#'; (1 << 20) + 1], &["1048577 bytes"]),
        ("word.toml", b"steps".to_vec(), &["line 1"]),
        ("value.toml", b"[train]\nsteps = ".to_vec(), &["line 2"]),
        ("section.toml", b"[train".to_vec(), &["line 1"]),
        ("unknown.toml", b"[trian]\nsteps = 1".to_vec(), &["trian"]),
        ("key.toml", b"[train]\nstepz = 1".to_vec(), &["stepz", "line 2"]),
        ("twice.toml", b"[train]\nsteps = 1\nsteps = 2".to_vec(), &["steps", "line 3"]),
        ("type.toml", b"[train]\nsteps = \"many\"".to_vec(), &["steps", "line 2", "many"]),
        ("scalar.toml", b"train = 7".to_vec(), &["train", "line 1"]),
        ("negative.toml", b"[train]\nsteps = -1".to_vec(), &["steps", "-1"]),
        ("larger.toml", b"[train]\nsteps = 99999999999999999999".to_vec(), &["line 2"]),
        ("fraction.toml", b"[train]\nsteps = 1.5".to_vec(), &["steps", "1.5"]),
        ("documents.toml", b"[train]\ndocuments_per_step = -8".to_vec(), &["documents_per_step", "-8"]),
        ("tokens.toml", b"[train]\nmax_tokens = 1".to_vec(), &["train.max_tokens", "2 or more"]),
        ("nan.toml", b"[objective]\nretain = nan".to_vec(), &["objective.retain", "NaN"]),
        ("infinite.toml", b"[optimizer]\nlearning_rate = inf".to_vec(), &["optimizer.learning_rate", "inf"]),
        ("beta.toml", b"[optimizer]\nbeta_1 = 1.0".to_vec(), &["optimizer.beta_1", "1"]),
        ("epsilon.toml", b"[optimizer]\nepsilon = 0".to_vec(), &["optimizer.epsilon"]),
        ("precision.toml", b"[model]\nprecision = \"f64\"".to_vec(), &["f64", "bf16", "line 2"]),
        ("arrays.toml", format!("x = {}", "[".repeat(deep)).into_bytes(), &[]),
        ("tables.toml", format!("x = {}", "{a=".repeat(deep)).into_bytes(), &[]),
        ("dots.toml", format!("{}a = 1", "a.".repeat(deep)).into_bytes(), &[]),
        ("sections.toml", format!("[{}a]", "a.".repeat(deep)).into_bytes(), &[]),
        ("long.toml", format!("{} = 1", "x".repeat(1 << 19)).into_bytes(), &["xxx"]),
    ];
    let model = golden(&format!("models/{SINGLE}"));
    let data = golden("steps/data");
    let run = |recipe: &str, more: &[&str], named: &[&str]| {
        let (model, data) = (model.to_str().unwrap(), data.to_str().unwrap());
        let arguments = ["run", recipe, "--model", model, "--data", data, "--output", "out"];
        refuse(&folder, recipe, &[&arguments[..], more].concat(), named);
        assert!(!folder.join("out").exists(), "{recipe} left something");
    };
    for (file, content, named) in cases {
        fs::write(folder.join(file), content).unwrap();
        run(file, &[], &[&[file], named].concat());
    }
    run("folder.toml", &[], &["folder.toml"]);
    if cfg!(unix) {
        run("/dev/zero", &[], &["/dev/zero", "at least"]);
    }
    // Linux accepts arguments of up to 128 KiB.
    let keys = format!("{}=1", ["a"; 60_000].join("."));
    let value = format!("train.steps={}", "[".repeat(100_000));
    for (item, named) in [
        (keys.as_str(), "a.a.a"),
        (value.as_str(), "train.steps"),
        ("=1", "section.key=value"),
        ("train.=1", "section.key=value"),
        ("train.steps.x=1", "steps"),
        ("train.steps=1\n[model]", "steps"),
        ("objective.retain=\"", "retain"),
    ] {
        run("paper", &["--set", item], &["--set", named]);
    }
}
