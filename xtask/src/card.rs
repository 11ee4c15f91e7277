//! `cargo xtask card`: all that a machine with the device needs to measure this program within minutes, in one folder;
//! and `cargo xtask card --file FOLDER`, which files what came back.

mod results;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use results::file;

use crate::{cargo, output, run, target};

/// What is run where the device is.
const SCRIPT: &str = include_str!("card/run.sh");

/// The programs that it runs.
const PROGRAMS: [&str; 3] = ["surgery", "parity", "surgery-bench"];

/// What the benchmark asks for the rate of matrix products on a CPU. It is built by itself: it asks for features of what
/// burn stands on.
const GEMM: &str = "surgery-gemm";

/// The programs that a backend's folder holds.
fn programs(backend: &str) -> impl Iterator<Item = &'static str> {
    PROGRAMS.into_iter().chain((backend == "ndarray").then_some(GEMM))
}

/// Below `tests/golden`: what the parity suite reads.
const GOLDEN: [&str; 4] = ["expected", "models", "pretrain", "steps"];

/// The programs, as they are carried. They have much in common, the embedded models above all.
const ARCHIVE: &str = "programs.tar.xz";

/// Compresses an archive of them: a dictionary as large as they are together finds what is in two of them.
const COMPRESS: &str = "xz --lzma2=preset=4,dict=192MiB";

/// The folder is carried to another machine: it should hold no more bytes than this.
const MOST_BYTES: u64 = 60_000_000;

/// All parts together, in seconds.
const SECONDS: u32 = 480;

/// What is measured of a backend.
struct Plan {
    /// The most seconds that the parity suite may take, and the default operation.
    parity: u32,
    operation: u32,
    /// A run of the benchmark each: the most seconds that it may take, the shape, the precision, and `peer` for PyTorch
    /// beside it, where the machine has it. The last ones are skipped when no time is left.
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

/// Where there is no GPU, or one that only looks like it: the same way in small.
const SMALL: Plan = Plan { parity: 200, operation: 200, benches: &["60 1m f32 peer"] };

/// Builds the folder, and says what to run.
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
        "{shown} holds {:.1} MB. Carry it to the machine, and run there, for {SECONDS} s at most:\n\n    \
         bash {shown}/run.sh RESULTS\n\nand here, on the folder RESULTS that came back:\n\n    \
         cargo xtask card --file RESULTS",
        bytes as f64 / 1e6
    );
    if bytes > MOST_BYTES && profile == "release" {
        return Err(format!("{shown} holds {bytes} bytes; expected {MOST_BYTES} at most"));
    }
    Ok(())
}

/// Fills the folder with the programs in `built` and all that they and the script read.
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

/// The backend and the profile.
fn parse<'a>(arguments: &[&'a str]) -> Result<(&'a str, &'a str), String> {
    let (mut backend, mut profile) = ("cuda", "release");
    for pair in arguments.chunks(2) {
        match *pair {
            ["--backend", name @ ("cuda" | "wgpu" | "ndarray")] => backend = name,
            ["--profile", name @ ("release" | "dev")] => profile = name,
            _ => {
                return Err(format!(
                    "`{}` is no option of `cargo xtask card`; it takes --backend cuda, wgpu or ndarray, --profile \
                     release or dev, and by itself --file FOLDER",
                    pair.join(" ")
                ));
            }
        }
    }
    Ok((backend, profile))
}

/// What the script reads before it begins.
fn settings(backend: &str, profile: &str, commit: &str) -> String {
    let Plan { parity, operation, benches } = if backend == "cuda" { CUDA } else { SMALL };
    let benches: String = benches.iter().map(|bench| format!("    \"{bench}\"\n")).collect();
    format!(
        "backend={backend}\nprofile={profile}\ncommit={commit}\nseconds={SECONDS}\nparity_limit={parity}\n\
         operation_limit={operation}\nbenches=(\n{benches})\n"
    )
}

/// The commit that is built, with a mark where the sources differ from it.
fn commit(root: &Path) -> String {
    let mut git = Command::new("git");
    git.current_dir(root).args(["describe", "--always", "--dirty", "--exclude", "*"]);
    output(git).map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

/// Copies a file, or a folder and all that is in it.
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

/// The bytes of all files in a folder.
fn size(folder: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
