//! `cargo xtask …`: development tasks other than building and running.

mod card;
mod dataset;
mod features;
mod fuzz;
mod layers;
mod licences;
mod style;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::Value;

const USAGE: &str = "\
usage: cargo xtask <task>

  check [--gpu]                                check format, lints, documentation, licences, style, and that burn is built once;
                                               `--gpu` includes the GPU backends, whose dependencies take minutes
  test [ARGS…]                                 run all tests; ARGS go to `cargo test`
  soak                                         kill and resume a run a thousand times; it must end with the same bytes
  parity [--backend NAME [--short]]            compare a backend with PyTorch and the oracle [default: ndarray];
                                               `--short` takes fewer steps, for a GPU in software;
                                               `fusion` is WGPU with burn's own kernel fusion, which no build uses;
                                               `flex` is a CPU with bf16, which no build offers
  bench [--peer] [ARGS…]                       measure a step and an evaluation, here and in PyTorch
  bench --micro [ARGS…]                        measure each operation; ARGS go to divan
  card [--backend NAME] [--profile NAME]       prepare a folder for a machine with an NVIDIA GPU, and print the command to run there:
                                               parity, the default operation, the benchmark with PyTorch, in 8 minutes;
                                               `--backend wgpu` or `ndarray` and `--profile dev` try it on this machine
  card --file FOLDER                           store that command's results in crates/surgery-bench/results
  dataset [--check]                            generate the benchmark, or check that the committed one is up to date
  fuzz [--seconds N] [TARGET…]                 fuzz every reader, N seconds each [default: 60]
  golden [--out DIR]                           recompute the golden values with PyTorch";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = root();
    let result = match arguments.as_slice() {
        ["check"] => check(&root, &[]),
        ["check", "--gpu"] => check(&root, &GPU),
        ["test", rest @ ..] => test(&root, rest),
        ["soak"] => soak(&root),
        ["parity"] => parity(&root, "ndarray", &[]),
        ["parity", "--backend", backend] => parity(&root, backend, &[]),
        ["parity", "--backend", backend, "--short"] => parity(&root, backend, &["--short"]),
        ["bench", rest @ ..] => bench(&root, rest),
        ["card", "--file", folder] => card::file(&root, Path::new(folder)),
        ["card", rest @ ..] => card::prepare(&root, rest),
        ["dataset"] => dataset::run(&root, false),
        ["dataset", "--check"] => dataset::run(&root, true),
        ["fuzz", rest @ ..] => fuzz::run(&root, rest),
        ["golden", rest @ ..] => golden(&root, rest),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Cargo's arguments for every crate, with the GPU backends.
const GPU: [&str; 3] = [
    "--workspace",
    "--features",
    "surgery-cli/cuda,surgery-cli/wgpu,surgery-bench/cuda,surgery-bench/wgpu,surgery-tests/cuda,surgery-tests/wgpu",
];

/// Static checks, of the `crates` that these arguments of cargo choose. Nothing of NVIDIA's is needed to check types.
fn check(root: &Path, crates: &[&str]) -> Result<(), String> {
    run(cargo(root, &["fmt", "--all", "--check"]))?;
    run(cargo(root, &["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))?;
    run(cargo(root, &["clippy", "--all-targets"]).args(crates).args(["--", "-D", "warnings"]))?;
    run(cargo(root, &["doc", "--no-deps"]).args(crates).env("RUSTDOCFLAGS", "-D warnings"))?;
    let metadata = metadata(root)?;
    licences::check(root, &metadata)?;
    features::check(root, &metadata)?;
    style::check()
}

/// Tests the default members together, in the profile of `cargo run`, so that builds are reused.
fn test(root: &Path, arguments: &[&str]) -> Result<(), String> {
    run(cargo(root, &["test"]).args(arguments))
}

/// The long form of a test that otherwise runs with fewer kills.
fn soak(root: &Path) -> Result<(), String> {
    let arguments = ["test", "--package", "surgery-cli", "--test", "trust", "--", "--ignored", "soak"];
    run(cargo(root, &arguments))
}

/// Runs the parity suite on a backend; `arguments` go to the program.
fn parity(root: &Path, backend: &str, arguments: &[&str]) -> Result<(), String> {
    let mut build = cargo(root, &["build", "--package", "surgery-tests", "--bin", "parity"]);
    match backend {
        // Together with the command line, so that burn is built with the same features.
        "ndarray" => build.args(["--package", "surgery-cli"]),
        other => build.args(["--features", other]),
    };
    run(build)?;
    run(Command::new(built(root, "parity")?).arg(backend).args(arguments))
}

/// Runs the benchmark in the development profile, which is as optimised. The release profile would build burn again.
fn bench(root: &Path, arguments: &[&str]) -> Result<(), String> {
    if let ["--micro", rest @ ..] = arguments {
        // All default members together, since with fewer of them burn would have other features.
        let micro = ["bench", "--profile", "dev", "--bench", "kernels", "--"];
        return run(cargo(root, &micro).args(rest));
    }
    let value = |flag: &str| {
        let next = arguments.iter().position(|argument| *argument == flag).map(|place| place + 1);
        next.and_then(|place| arguments.get(place).copied())
    };
    let mut build = cargo(root, &["build", "--package", "surgery-bench"]);
    match value("--backend").unwrap_or("ndarray") {
        // Together with the command line, so that burn is built with the same features.
        "ndarray" => build.args(["--package", "surgery-cli"]),
        other => build.args(["--features", other]),
    };
    run(build)?;
    // Separately, since it enables features of burn's dependencies.
    run(cargo(root, &["build", "--package", "surgery-gemm"]))?;
    let mut command = Command::new(built(root, "surgery-bench")?);
    let has = |flag: &str| {
        arguments.iter().any(|argument| argument.split('=').next().is_some_and(|name| name == flag))
    };
    if has("--peer") && !has("--python") {
        command.arg("--python").arg(python(root)?);
    }
    run(command.args(arguments))
}

/// A program built in the development profile.
fn built(root: &Path, name: &str) -> Result<PathBuf, String> {
    Ok(target(root)?.join("debug").join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
}

/// cargo's build folder.
fn target(root: &Path) -> Result<PathBuf, String> {
    let metadata = metadata(root)?;
    let target = metadata["target_directory"].as_str().ok_or("cargo metadata has no target_directory")?;
    Ok(target.into())
}

/// Runs `tests/golden/make.py` with its required packages.
fn golden(root: &Path, arguments: &[&str]) -> Result<(), String> {
    run(Command::new(python(root)?).arg(root.join("tests/golden/make.py")).args(arguments))
}

/// A Python environment with the packages of `tests/golden/requirements.txt`, including PyTorch and transformers.
fn python(root: &Path) -> Result<PathBuf, String> {
    let environment = root.join("target/golden-venv");
    let python = environment.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    if !python.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    }
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    run(Command::new(&python).args(install).arg(root.join("tests/golden/requirements.txt")))?;
    Ok(python)
}

/// The repository's root.
fn root() -> PathBuf {
    // cargo sets the variable to the present location; the binary knows that of its build.
    let folder =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    folder.parent().expect("xtask is a folder of the repository").to_path_buf()
}

fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.current_dir(root).args(arguments);
    command
}

/// Runs `command`. Any exit status but success is an error.
fn run(command: impl std::borrow::BorrowMut<Command>) -> Result<(), String> {
    let mut command = command;
    let command = command.borrow_mut();
    let status = command.status().map_err(|error| format!("cannot run {}: {error}", shown(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} failed ({status})", shown(command))) }
}

/// The standard output of `command`.
fn output(mut command: Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("cannot run {}: {error}", shown(&command)))?;
    if !output.status.success() {
        return Err(format!("{} failed:\n{}", shown(&command), String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8(output.stdout).map_err(|error| format!("{}: {error}", shown(&command)))
}

fn shown(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Metadata of all packages in the lock file, with their dependencies.
fn metadata(root: &Path) -> Result<Value, String> {
    let text = output(cargo(root, &["metadata", "--format-version", "1", "--locked"]))?;
    serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))
}
