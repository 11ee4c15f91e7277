//! `cargo xtask fuzz`: runs each target of `fuzz/` with arbitrary bytes for a limited time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run as run_command;

/// Default time for each target in seconds.
const SECONDS: u32 = 60;

/// Maximum input size in bytes. A few KB reach all code of the readers.
const LARGEST: u32 = 8192;

/// Memory limit of a target in MiB. Instrumented code alone takes some hundreds.
const MEMORY: u32 = 2048;

/// Seed files from the repository for each target, in addition to `fuzz/seeds`.
const SEEDS: [(&str, &[&str]); 8] = [
    ("config", &["tests/golden/models/llama31-rope/config.json", "tests/golden/models/mistral/config.json"]),
    ("documents", &["tests/golden/steps/data/edit_update.jsonl"]),
    ("index", &["tests/golden/models/tinyllama-gqa/model.safetensors.index.json"]),
    ("questions", &["tests/golden/steps/data/questions/unlearn.jsonl"]),
    ("recipe", &["crates/surgery-cli/recipes/default.toml", "crates/surgery-cli/recipes/pretrain-base.toml"]),
    ("records", &["tests/golden/steps/data/retain.jsonl"]),
    (
        "tokenizer",
        &["tests/golden/models/llama1-mha/tokenizer.json", "tests/golden/models/llama3-gqa/tokenizer.json"],
    ),
    ("weights", &["tests/golden/models/mqa/model.safetensors"]),
];

/// Runs all targets or the named ones. The first finding ends the run.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let (seconds, named) = parse(arguments)?;
    let targets = targets(root)?;
    if let Some(unknown) = named.iter().find(|name| !targets.iter().any(|target| target == *name)) {
        return Err(format!("no target `{unknown}`; there are: {}", targets.join(", ")));
    }
    let version = cargo_fuzz(root).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !version.is_ok_and(|status| status.success()) {
        return Err(
            "cargo-fuzz or a nightly compiler is not installed; install them with `rustup toolchain install nightly` \
             and `cargo install cargo-fuzz --locked`"
                .into(),
        );
    }
    for target in targets.iter().filter(|target| named.is_empty() || named.contains(&target.as_str())) {
        let corpus = corpus(root, target)?;
        println!("fuzzing {target} for {seconds} s");
        let mut command = cargo_fuzz(root);
        command
            .args(["run", "--release", target])
            .arg(corpus)
            .arg(root.join("fuzz/seeds").join(target))
            .arg("--");
        command.args([
            format!("-max_total_time={seconds}"),
            format!("-max_len={LARGEST}"),
            format!("-rss_limit_mb={MEMORY}"),
            // A slower input counts as a finding.
            "-timeout=5".into(),
            "-print_final_stats=1".into(),
            "-verbosity=0".into(),
        ]);
        run_command(command)?;
    }
    Ok(())
}

/// Parses the seconds and the targets' names.
fn parse<'a>(arguments: &[&'a str]) -> Result<(u32, Vec<&'a str>), String> {
    let mut seconds = SECONDS;
    let mut named = Vec::new();
    let mut rest = arguments.iter();
    while let Some(&argument) = rest.next() {
        if argument != "--seconds" {
            named.push(argument);
            continue;
        }
        let value = rest.next().copied().unwrap_or_default();
        seconds = value.parse().map_err(|_| format!("--seconds is `{value}`; expected a whole number"))?;
    }
    Ok((seconds, named))
}

/// cargo-fuzz with the nightly compiler that it needs.
fn cargo_fuzz(root: &Path) -> Command {
    let mut command = Command::new("rustup");
    command.current_dir(root).args(["run", "nightly", "cargo", "fuzz"]);
    // These variables of the outer cargo name another compiler.
    for name in ["CARGO", "RUSTC", "RUSTDOC"] {
        command.env_remove(name);
    }
    command
}

/// The names of the targets, sorted.
fn targets(root: &Path) -> Result<Vec<String>, String> {
    let folder = root.join("fuzz/targets");
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// A target's corpus folder, with the seeds copied into it.
fn corpus(root: &Path, target: &str) -> Result<PathBuf, String> {
    let corpus = root.join("fuzz/corpus").join(target);
    for folder in [&corpus, &root.join("fuzz/seeds").join(target)] {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let seeds = SEEDS.iter().filter(|(name, _)| *name == target).flat_map(|(_, seeds)| *seeds);
    for (number, seed) in seeds.enumerate() {
        let to = corpus.join(format!("seed-{number}"));
        fs::copy(root.join(seed), to).map_err(|error| format!("{seed}: {error}"))?;
    }
    Ok(corpus)
}
