//! How fast a step of the operation and an evaluation are, on random weights and random tokens; beside it what this
//! machine's matrix products allow, and the same work in PyTorch.

mod chart;
mod floor;
mod job;
mod memory;
mod ours;
mod peer;
mod precomputed;
mod report;
mod rounds;
mod table;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use surgery_core::platform::Platform;
use surgery_ndarray::Cpu;

use crate::peer::Peer;
use crate::report::Report;
use crate::rounds::{Choices, measure};
use crate::work::{Lengths, SHAPES, Shape};

/// What goes wrong here is told to a person, and ends the program.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Measures a step of the operation, its parts, and an evaluation.
#[derive(Parser)]
#[command(name = "surgery-bench", version)]
struct Arguments {
    /// The model's shape
    #[arg(long, default_value = "6m", value_parser = ["1m", "6m", "27m", "all"])]
    shape: String,
    /// The documents' lengths: 60 to 180 tokens, or all 120
    #[arg(long, value_enum, default_value_t = Lengths::Mixed)]
    lengths: Lengths,
    /// Rounds whose median is taken, after one that is not counted
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Do the same with PyTorch, in turns
    #[arg(long, requires = "python")]
    peer: bool,
    /// A Python with PyTorch and transformers
    #[arg(long)]
    python: Option<PathBuf>,
    /// Measure the whole job too: evaluate, some steps, evaluate
    #[arg(long)]
    job: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Draw the times into this file
    #[arg(long)]
    svg: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    // Before there is a model: what a process holds that does nothing.
    let idle_bytes = memory::held_bytes();
    let device = Cpu::device(0)?;
    let threads = rayon::current_num_threads();
    let choices =
        Choices { lengths: arguments.lengths, steps: arguments.steps, job: arguments.job, idle_bytes };
    let mut report = Report { backend: Cpu::NAME, threads, peer: None, shapes: Vec::new() };
    let chosen = |shape: &&Shape| arguments.shape == "all" || shape.name == arguments.shape;
    for shape in SHAPES.iter().filter(chosen) {
        let mut peer = match &arguments.python {
            Some(python) if arguments.peer => Some(Peer::start(python, shape, threads)?),
            _ => None,
        };
        let measured = measure::<Cpu>(shape, &choices, peer.as_mut(), &device)?;
        if let Some(peer) = peer {
            report.peer = Some(peer.versions().clone());
        }
        if !arguments.json {
            table::print(&measured, &report);
        }
        report.shapes.push(measured);
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    }
    if let Some(path) = &arguments.svg {
        std::fs::write(path, chart::draw(&report))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}
