//! Measures the speed of an operation's step and of an evaluation on random weights and tokens, compared with the
//! limit of this machine's matrix products and with PyTorch.

mod backend;
mod chart;
mod floor;
mod job;
mod losses;
mod memory;
mod ours;
mod peer;
mod precomputed;
mod quiet;
mod report;
mod rounds;
mod table;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use surgery_core::account::{Account, Plan};
use surgery_core::config::LlamaConfig;
use surgery_core::kernels::Footprint;
use surgery_core::memory::shown;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::Precision;

use crate::peer::Peer;
use crate::report::Report;
use crate::rounds::{Choices, measure};
use crate::work::{Lengths, SHAPES, Shape};

/// Errors are printed and end the program.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Measures a step of the operation, its parts, and an evaluation.
#[derive(Parser)]
#[command(name = "surgery-bench", version)]
struct Arguments {
    /// The model's shape; `all` measures every shape that fits on the device
    #[arg(long, default_value = "6m", value_parser = shapes())]
    shape: String,
    /// The backend: ndarray, or another one compiled in
    #[arg(long, default_value = "ndarray")]
    backend: String,
    /// The device's number
    #[arg(long, default_value_t = 0)]
    device: usize,
    /// Precision: f32, mixed or bf16, if the backend supports it; PyTorch uses the same
    #[arg(long, default_value = "f32", value_parser = precision)]
    precision: Precision,
    /// The documents' lengths: 60 to 180 tokens, or all 120
    #[arg(long, value_enum, default_value_t = Lengths::Mixed)]
    lengths: Lengths,
    /// Number of rounds, of which the median is taken, after a warm-up round
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Measure PyTorch too, alternately
    #[arg(long, requires = "python")]
    peer: bool,
    /// A Python with PyTorch and transformers
    #[arg(long)]
    python: Option<PathBuf>,
    /// PyTorch's part, peer.py [default: that of the source folder]
    #[arg(long, default_value = peer::SCRIPT, hide_default_value = true)]
    script: PathBuf,
    /// Measure the whole job too: evaluate, train, evaluate again
    #[arg(long)]
    job: bool,
    /// Measure a step of each forget loss instead
    #[arg(long, conflicts_with_all = ["peer", "job", "svg"])]
    losses: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write a chart of the times to this SVG file
    #[arg(long)]
    svg: Option<PathBuf>,
}

fn shapes() -> Vec<&'static str> {
    SHAPES.iter().map(|shape| shape.name).chain(["all"]).collect()
}

/// Parses a precision by its name in a recipe.
fn precision(name: &str) -> std::result::Result<Precision, serde_json::Error> {
    serde_json::from_value(name.into())
}

fn main() -> ExitCode {
    match backend::run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_on<P: Platform>(arguments: &Arguments) -> Result<()> {
    // Memory of the idle process, before there is a model.
    let idle_bytes = memory::resident_bytes();
    let device = P::device(arguments.device)?;
    let precision = arguments.precision;
    P::check_precision(precision)?;
    let threads = rayon::current_num_threads();
    let choices = Choices {
        precision,
        lengths: arguments.lengths,
        steps: arguments.steps,
        job: arguments.job,
        idle_bytes,
    };
    let mut report =
        Report { backend: P::NAME, precision: precision.name(), threads, peer: None, shapes: Vec::new() };
    let chosen = |shape: &&Shape| arguments.shape == "all" || shape.name == arguments.shape;
    for shape in SHAPES.iter().filter(chosen) {
        if let Some(reason) = too_large::<P>(&shape.config()?, precision, &device) {
            if arguments.shape != "all" {
                return Err(format!("{}: {reason}", shape.name).into());
            }
            eprintln!("{} is skipped: {reason}", shape.name);
            continue;
        }
        if arguments.losses {
            let sample = work::Work::new(shape, arguments.lengths).draw;
            let times = losses::measure::<P>(shape, &sample, precision, arguments.steps, &device)?;
            match arguments.json {
                true => println!("{}", serde_json::to_string_pretty(&times)?),
                false => losses::print(shape.name, &times),
            }
            continue;
        }
        let mut peer = match &arguments.python {
            Some(python) if arguments.peer => {
                Some(Peer::start::<P>(python, &arguments.script, shape, precision, threads)?)
            }
            _ => None,
        };
        let measured = measure::<P>(shape, &choices, peer.as_mut(), &device)?;
        if let Some(peer) = peer {
            report.peer = Some(peer.versions().clone());
        }
        if !arguments.json {
            table::print(&measured, &report);
        }
        report.shapes.push(measured);
    }
    if arguments.losses {
        return Ok(());
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

/// The reason why a step of the model does not fit on the device, if its memory is known.
fn too_large<P: Platform>(
    config: &LlamaConfig,
    precision: Precision,
    device: &DeviceOf<P>,
) -> Option<String> {
    let room = P::room(device)?;
    let longest = work::CONTEXT;
    let plan = Plan {
        precision,
        tokens: work::DOCUMENTS * 4 * longest,
        retained: work::DOCUMENTS * longest,
        is_divided: false,
        trained: config.num_parameters(),
        recompute: false,
        // Both kinds of reference are measured.
        live_reference: true,
        kept_values: <P::Kernels as Footprint<P::Train>>::kept_values(config, longest),
        work_values: <P::Kernels as Footprint<P::Train>>::work_values(config),
        reserve: <P::Kernels as Footprint<P::Train>>::RESERVE,
    };
    let needed = Account::new(config, &plan).total();
    (needed > room.bytes).then(|| {
        format!("a step takes {}, but {} has room for {}", shown(needed), room.limit, shown(room.bytes))
    })
}
