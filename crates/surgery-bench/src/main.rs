//! How fast a step of the operation and an evaluation are, on random weights and random tokens.

use std::time::Instant;

use clap::Parser;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::json;
use surgery_core::burn::module::AutodiffModule;
use surgery_core::burn::tensor::backend::{Backend, BackendTypes};
use surgery_core::config::LlamaConfig;
use surgery_core::data::{EncodedQuestion, Set, Split};
use surgery_core::evaluate::{score, score_options};
use surgery_core::event::Silent;
use surgery_core::model::Llama;
use surgery_core::objective::Objective;
use surgery_core::optimizer::{AdamW, OptimizerConfig};
use surgery_core::platform::Platform;
use surgery_core::reference::{Live, Reference};
use surgery_core::step::{StepDocuments, gradients, update};
use surgery_core::{Error, Result};
use surgery_ndarray::Cpu;

/// Documents of each set in a step.
const DOCUMENTS: usize = 8;
/// The context, in tokens; no document is longer.
const CONTEXT: usize = 256;
/// Questions of an evaluation, and options of each.
const QUESTIONS: usize = 50;
const OPTIONS: usize = 4;
/// Tokens of an option with its question, and how many of these are its own.
const OPTION_TOKENS: usize = 20;
const OWN_TOKENS: usize = 4;

/// Measures one step of the operation, its parts, and an evaluation.
#[derive(Parser)]
#[command(name = "surgery-bench", version)]
struct Arguments {
    /// 1m, 6m, 27m, or all of them
    #[arg(long, default_value = "6m")]
    shape: String,
    /// Steps whose median is taken, after one that is not counted
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A model's shape.
struct Shape {
    name: &'static str,
    hidden: usize,
    layers: usize,
    heads: usize,
    intermediate: usize,
    vocab: usize,
}

const SHAPES: [Shape; 3] = [
    Shape { name: "1m", hidden: 128, layers: 4, heads: 4, intermediate: 344, vocab: 1024 },
    Shape { name: "6m", hidden: 256, layers: 6, heads: 4, intermediate: 688, vocab: 2048 },
    Shape { name: "27m", hidden: 512, layers: 8, heads: 8, intermediate: 1376, vocab: 2048 },
];

impl Shape {
    fn config(&self) -> Result<LlamaConfig> {
        let config = json!({
            "model_type": "llama",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocab,
            "max_position_embeddings": CONTEXT,
        });
        LlamaConfig::parse(self.name, &config)
    }
}

/// What one shape was measured to take; times are medians, in seconds.
#[derive(Serialize)]
struct Measured {
    shape: &'static str,
    backend: &'static str,
    parameters: u64,
    /// Input tokens of a step.
    tokens: usize,
    steps: u32,
    step: f64,
    /// Forward, the reference's forward, and backward.
    gradients: f64,
    /// The clipping and AdamW.
    update: f64,
    /// By itself: the frozen model over the retain documents, which is a part of `gradients`.
    reference: f64,
    /// By itself: the loss of all documents without a gradient.
    forward: f64,
    tokens_per_second: f64,
    /// Products of the weights only: 6 operations a token and weight, 2 in the reference.
    gflops: f64,
    /// Options of questions scored.
    options_per_second: f64,
    /// The most memory the process has held, where the system tells.
    peak_memory_bytes: Option<u64>,
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let chosen: Vec<&Shape> =
        SHAPES.iter().filter(|shape| arguments.shape == "all" || shape.name == arguments.shape).collect();
    if chosen.is_empty() {
        eprintln!("error: there is no shape {:?}; there are 1m, 6m, 27m and all", arguments.shape);
        return 2.into();
    }
    match run(&chosen, &arguments) {
        Ok(()) => 0.into(),
        Err(error) => {
            eprintln!("error: {error}");
            1.into()
        }
    }
}

fn run(shapes: &[&Shape], arguments: &Arguments) -> Result<()> {
    let device = Cpu::device(0)?;
    let mut all = Vec::new();
    for shape in shapes {
        let measured = measure::<Cpu>(shape, arguments.steps, &device)?;
        if !arguments.json {
            print(&measured);
        }
        all.push(measured);
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&all).expect("plain values"));
    }
    Ok(())
}

fn measure<P: Platform>(
    shape: &Shape,
    steps: u32,
    device: &<P::Infer as BackendTypes>::Device,
) -> Result<Measured> {
    forget_peak_memory();
    let config = shape.config()?;
    let mut generator = ChaCha8Rng::seed_from_u64(0);
    let mut tokens =
        |count| -> Vec<u32> { (0..count).map(|_| generator.random_range(0..shape.vocab as u32)).collect() };
    let mut lengths = ChaCha8Rng::seed_from_u64(1);
    let documents: Vec<Vec<u32>> =
        (0..4 * DOCUMENTS).map(|_| tokens(lengths.random_range(60..=180))).collect();
    let option = |_| (tokens(OPTION_TOKENS), OPTION_TOKENS - OWN_TOKENS..OPTION_TOKENS);
    let options: Vec<_> = (0..QUESTIONS * OPTIONS).map(option).collect();
    let question =
        |options: &[_]| EncodedQuestion { options: options.to_vec(), answer: 0, split: Split::Test };
    let questions: Vec<EncodedQuestion> = options.chunks(OPTIONS).map(question).collect();

    let sets = Set::TRAINED.into_iter().flat_map(|set| std::iter::repeat_n(set, DOCUMENTS));
    let drawn = StepDocuments {
        documents: sets.zip(documents.iter().map(Vec::as_slice)).collect(),
        context: CONTEXT,
        recompute: false,
    };
    let retained: Vec<&[u32]> =
        drawn.documents.iter().filter(|(set, _)| *set == Set::Retain).map(|(_, tokens)| *tokens).collect();

    let mut model = Llama::<P::Train>::random(&config, 0, device);
    let mut reference = Live::<P::Infer, P::Kernels>::new(model.valid());
    let mut optimizer = AdamW::new(OptimizerConfig::default());
    let (objective, rate) = (Objective::default(), optimizer.config().learning_rate);
    let mut times: [Vec<f64>; 3] = Default::default();
    for number in 0..=steps {
        let started = Instant::now();
        let graded = gradients::<P::Train, P::Kernels>(&model, &drawn, &objective, Some(&mut reference))?;
        wait::<P>(device)?;
        let graded_at = started.elapsed().as_secs_f64();
        (model, _) = update::<P::Train, P::Kernels>(model, graded, &mut optimizer, rate, number as usize)?;
        wait::<P>(device)?;
        let step = started.elapsed().as_secs_f64();
        // The first allocates, and on a GPU compiles.
        if number > 0 {
            for (times, time) in times.iter_mut().zip([step, graded_at, step - graded_at]) {
                times.push(time);
            }
        }
    }
    let [step, gradients, update] = times.map(median);
    let peak_memory_bytes = surgery_core::memory::peak_bytes();

    let model = model.valid();
    let reference = repeated::<P>(steps, device, || reference.hidden(&retained, CONTEXT).map(drop))?;
    let forward = repeated::<P>(steps, device, || {
        score::<P::Infer, P::Kernels>(&model, &documents, &mut Silent).map(drop)
    })?;
    let evaluation = repeated::<P>(steps, device, || {
        score_options::<P::Infer, P::Kernels>(&model, &questions, &mut Silent).map(drop)
    })?;

    let tokens: usize = documents.iter().map(Vec::len).sum();
    let retained: usize = retained.iter().map(|document| document.len()).sum();
    let weights = config.num_parameters() as f64 - (shape.vocab * shape.hidden) as f64;
    let operations = weights * (6 * tokens + 2 * retained) as f64;
    Ok(Measured {
        shape: shape.name,
        backend: P::NAME,
        parameters: config.num_parameters() as u64,
        tokens,
        steps,
        step,
        gradients,
        update,
        reference,
        forward,
        tokens_per_second: tokens as f64 / step,
        gflops: operations / step / 1e9,
        options_per_second: (QUESTIONS * OPTIONS) as f64 / evaluation,
        peak_memory_bytes,
    })
}

fn print(measured: &Measured) {
    let Measured { shape, backend, parameters, tokens, steps, .. } = measured;
    println!("{shape}: {parameters} parameters, {backend}, {tokens} tokens a step, median of {steps}");
    let row = |name: &str, value: String| println!("  {name:<22}{value:>12}");
    for (name, seconds) in [
        ("step", measured.step),
        ("  gradients", measured.gradients),
        ("  update", measured.update),
        ("reference, by itself", measured.reference),
        ("forward, by itself", measured.forward),
    ] {
        row(name, format!("{:.1} ms", seconds * 1e3));
    }
    row("training", format!("{:.0} tok/s", measured.tokens_per_second));
    row("weight products", format!("{:.1} GFLOP/s", measured.gflops));
    row("evaluation", format!("{:.0} opt/s", measured.options_per_second));
    if let Some(bytes) = measured.peak_memory_bytes {
        row("peak memory", format!("{:.0} MB", bytes as f64 / 1e6));
    }
}

/// The median time of `times` calls after one that is not counted.
fn repeated<P: Platform>(
    times: u32,
    device: &<P::Infer as BackendTypes>::Device,
    mut work: impl FnMut() -> Result<()>,
) -> Result<f64> {
    let mut seconds = Vec::new();
    for _ in 0..=times {
        let started = Instant::now();
        work()?;
        wait::<P>(device)?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    seconds.remove(0);
    Ok(median(seconds))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

/// Until the device has done what it was told.
fn wait<P: Platform>(device: &<P::Infer as BackendTypes>::Device) -> Result<()> {
    P::Infer::sync(device).map_err(|error| Error::Backend {
        problem: format!("backend {} failed: {error:?}", P::NAME),
        remedy: "try a smaller shape".into(),
    })
}

/// Lets the system count the peak from here; where it cannot, the peak is the process's.
fn forget_peak_memory() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
