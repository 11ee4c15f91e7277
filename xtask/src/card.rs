//! `cargo xtask card`: a folder with everything needed to measure this program within minutes on a machine with a
//! GPU. `cargo xtask card --file FOLDER` stores the results.

mod results;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use results::file;

use crate::{cargo, output, run, target};

/// The script to run on the machine.
const SCRIPT: &str = include_str!("card/run.sh");

/// The programs that the script runs.
const PROGRAMS: [&str; 3] = ["surgery", "parity", "surgery-bench"];

/// The program that measures matrix products for the benchmark on a CPU. It is built separately, since it enables
/// features of burn's dependencies.
const GEMM: &str = "surgery-gemm";

/// The programs in a backend's folder.
fn programs(backend: &str) -> impl Iterator<Item = &'static str> {
    PROGRAMS.into_iter().chain((backend == "ndarray").then_some(GEMM))
}

/// Folders of `tests/golden` that the parity suite reads.
const GOLDEN: [&str; 5] = ["expected", "models", "pretrain", "steps", "objectives"];

/// The archive of the programs. They share much content, especially the embedded models.
const ARCHIVE: &str = "programs.tar.xz";

/// Its compressor, with a dictionary as large as all programs together, so that shared content is found.
const COMPRESS: &str = "xz --lzma2=preset=4,dict=192MiB";

/// Maximum size of the folder in bytes, since it is copied to another machine.
const MOST_BYTES: u64 = 60_000_000;

/// Time limit of all parts together, in seconds.
const SECONDS: u32 = 480;

/// The measurements of a backend.
struct Plan {
    /// Time limits in seconds of the parity suite and the default operation.
    parity: u32,
    operation: u32,
    /// Runs of the benchmark: time limit in seconds, shape, precision, and `peer` to measure PyTorch too if it is
    /// installed. When time runs out, the last ones are skipped.
    benches: &'static [&'static str],
}

const CUDA: Plan = Plan {
    parity: 220,
    operation: 90,
    benches: &[
        "60 110m mixed peer",
        "90 tinyllama-1.1b mixed peer",
        "60 110m f32 peer",
        "200 llama2-7b bf16 peer",
    ],
};

/// Without a GPU, or with an emulated one: the same steps in small.
const SMALL: Plan = Plan { parity: 200, operation: 200, benches: &["60 1m f32 peer"] };

/// Builds the folder and prints the command to run.
pub(crate) fn prepare(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let (backend, profile) = parse(arguments)?;
    let mut build = cargo(root, &["build", "--profile", profile]);
    for package in ["surgery-cli", "surgery-tests", "surgery-bench"] {
        build.args(["--package", package]);
        if backend != "ndarray" {
            build.args(["--features", &format!("{package}/{backend}")]);
        }
    }
    run(build.args(PROGRAMS.iter().flat_map(|program| ["--bin", program])))?;
    if programs(backend).any(|program| program == GEMM) {
        run(cargo(root, &["build", "--profile", profile, "--package", GEMM]))?;
    }

    let target = target(root)?;
    let folder = target.join("card");
    let failed = |error: Error| format!("{}: {error}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(failed)?;
    }
    let built = target.join(if profile == "dev" { "debug" } else { profile });
    lay_out(root, &built, &folder, programs(backend), &settings(backend, profile, &commit(root)))?;

    let bytes = size(&folder).map_err(failed)?;
    let shown = folder.strip_prefix(root).unwrap_or(&folder).display();
    println!(
        "{shown} holds {:.1} MB. Copy it to the machine and run there, for at most {SECONDS} s:\n\n    \
         bash {shown}/run.sh RESULTS\n\nthen copy the folder RESULTS back and run here:\n\n    \
         cargo xtask card --file RESULTS",
        bytes as f64 / 1e6
    );
    if bytes > MOST_BYTES && profile == "release" {
        return Err(format!("{shown} holds {bytes} bytes; expected {MOST_BYTES} at most"));
    }
    Ok(())
}

/// Fills the folder with the programs in `built` and the files that they and the script read.
fn lay_out(
    root: &Path,
    built: &Path,
    folder: &Path,
    programs: impl Iterator<Item = &'static str>,
    settings: &str,
) -> Result<(), String> {
    let failed = |error: Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(folder.join("golden")).map_err(failed)?;
    let mut tar = Command::new("tar");
    tar.args(["--create", "--use-compress-program", COMPRESS, "--file"]);
    tar.arg(folder.join(ARCHIVE)).arg("--directory").arg(built);
    run(tar.args(programs))?;
    for name in GOLDEN {
        copy(&root.join("tests/golden").join(name), &folder.join("golden").join(name))?;
    }
    copy(&root.join("crates/surgery-bench/peer.py"), &folder.join("peer.py"))?;
    fs::write(folder.join("run.sh"), SCRIPT).map_err(failed)?;
    fs::write(folder.join("settings"), settings).map_err(failed)
}

/// Parses backend and profile.
fn parse<'a>(arguments: &[&'a str]) -> Result<(&'a str, &'a str), String> {
    let (mut backend, mut profile) = ("cuda", "release");
    for pair in arguments.chunks(2) {
        match *pair {
            ["--backend", name @ ("cuda" | "wgpu" | "ndarray")] => backend = name,
            ["--profile", name @ ("release" | "dev")] => profile = name,
            _ => {
                return Err(format!(
                    "`{}` is not an option of `cargo xtask card`; it takes --backend cuda, wgpu or ndarray, --profile \
                     release or dev, and by itself --file FOLDER",
                    pair.join(" ")
                ));
            }
        }
    }
    Ok((backend, profile))
}

/// The settings file that the script reads.
fn settings(backend: &str, profile: &str, commit: &str) -> String {
    let Plan { parity, operation, benches } = if backend == "cuda" { CUDA } else { SMALL };
    let benches: String = benches.iter().map(|bench| format!("    \"{bench}\"\n")).collect();
    format!(
        "backend={backend}\nprofile={profile}\ncommit={commit}\nseconds={SECONDS}\nparity_limit={parity}\n\
         operation_limit={operation}\nbenches=(\n{benches})\n"
    )
}

/// The commit being built, marked if the sources differ from it.
fn commit(root: &Path) -> String {
    let mut git = Command::new("git");
    git.current_dir(root).args(["describe", "--always", "--dirty", "--exclude", "*"]);
    output(git).map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

/// Copies a file or a folder with its content.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: Error| format!("cannot copy {} to {}: {error}", from.display(), to.display());
    if !from.is_dir() {
        return fs::copy(from, to).map(drop).map_err(failed);
    }
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name: PathBuf = path.file_name().map(PathBuf::from).unwrap_or_default();
        copy(&path, &to.join(name))?;
    }
    Ok(())
}

/// Size in bytes of all files in a folder.
fn size(folder: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
