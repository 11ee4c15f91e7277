//! `--dry-run`: what a run would do, and what it would take.

use std::time::Instant;

use serde_json::{Value, json};
use surgery_core::batch::windows;
use surgery_core::checkpoint::Checkpoint;
use surgery_core::config::LlamaConfig;
use surgery_core::data::Set;
use surgery_core::evaluate::score;
use surgery_core::event::Silent;
use surgery_core::model::Llama;
use surgery_core::optimizer::AdamW;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::Recipe;
use surgery_core::reference::Live;
use surgery_core::step::{gradients, update};
use surgery_core::surgery::{drawn_documents, sampler};
use surgery_core::{Error, Result};

use crate::exit::Outcome;
use crate::inputs::{DataFiles, ModelFiles};
use crate::terminal::{print, print_json};

/// Refuses what a recipe may say and this version does not do.
pub fn check_supported(recipe: &Recipe) -> Result<()> {
    match recipe.train.checkpoint_every {
        0 => Ok(()),
        every => Err(Error::Recipe {
            origin: "train.checkpoint_every".into(),
            problem: format!("is {every}; this version writes no checkpoints on the way: expected 0"),
        }),
    }
}

/// Prints the plan of a run.
pub fn show<P: Platform>(
    recipe: &Recipe,
    files: &ModelFiles,
    checkpoint: &Checkpoint,
    data: &DataFiles,
    device: &DeviceOf<P>,
    as_json: bool,
) -> Outcome {
    let context = files.config.context(recipe.train.max_tokens);
    let sets: Vec<Contents> =
        data.benchmark.sets.iter().map(|(set, texts)| contents(*set, texts, context)).collect();
    let options = |questions: &[surgery_core::data::EncodedQuestion]| -> usize {
        questions.iter().map(|question| question.options.len()).sum()
    };
    let seconds = estimate_seconds::<P>(recipe, files, data, device)?;
    let memory = estimate_memory(recipe, &files.config, data, context);
    if as_json {
        let sets: Vec<Value> = sets.iter().map(Contents::json).collect();
        let questions: Vec<Value> = data
            .benchmark
            .questions
            .iter()
            .map(|(name, list)| json!({ "set": name, "questions": list.len(), "options": options(list) }))
            .collect();
        return print_json(&json!({
            "recipe": recipe,
            "model": {
                "parameters": files.config.num_parameters() as u64,
                "weights_bytes": checkpoint.bytes(),
            },
            "sets": sets,
            "questions": questions,
            "memory_bytes": memory,
            "train_seconds": seconds.train,
            "evaluate_seconds": seconds.evaluate,
        }));
    }
    print(toml::to_string(recipe).expect("a recipe is TOML").trim_end())?;
    print(&format!("\nmodel: {} parameters", files.config.num_parameters()))?;
    for contents in &sets {
        print(&contents.line())?;
    }
    for (name, list) in &data.benchmark.questions {
        print(&format!("questions/{name}: {} questions, {} options", list.len(), options(list)))?;
    }
    print(&format!(
        "\nmemory: about {:.0} MiB\ntime:   about {:.0} s of training, {:.0} s of evaluation",
        memory as f64 / f64::from(1 << 20),
        seconds.train,
        seconds.evaluate
    ))
}

/// What a set holds.
struct Contents {
    set: Set,
    documents: usize,
    tokens: usize,
    windows: usize,
}

fn contents(set: Set, texts: &[Vec<u32>], context: usize) -> Contents {
    Contents {
        set,
        documents: texts.len(),
        tokens: texts.iter().map(Vec::len).sum(),
        windows: texts.iter().map(|text| windows(text.len(), context).len()).sum(),
    }
}

impl Contents {
    fn json(&self) -> Value {
        json!({
            "set": self.set,
            "documents": self.documents,
            "tokens": self.tokens,
            "windows": self.windows,
        })
    }

    fn line(&self) -> String {
        let split = self.windows - self.documents;
        let windows = match split {
            0 => String::new(),
            _ => format!(", {} windows, for some are longer than the context", self.windows),
        };
        format!("{}: {} documents, {} tokens{windows}", self.set, self.documents, self.tokens)
    }
}

/// Tokens on which a step is timed, at most about that many.
const PROBED_TOKENS: usize = 1024;

struct Seconds {
    train: f64,
    evaluate: f64,
}

/// Times a step and a batch of an evaluation on models of one block and of two with random weights, and
/// scales up: the model itself need not be loaded.
fn estimate_seconds<P: Platform>(
    recipe: &Recipe,
    files: &ModelFiles,
    data: &DataFiles,
    device: &DeviceOf<P>,
) -> Result<Seconds> {
    let benchmark = &data.benchmark;
    let context = files.config.context(recipe.train.max_tokens);
    let mut step =
        drawn_documents(&sampler(&data.corpus, recipe).draw(), benchmark, context, recipe.train.recompute);
    let drawn: usize = step.documents.iter().map(|(_, tokens)| tokens.len()).sum();
    // A step's time grows with its tokens; a few of them tell, in little memory.
    let stride = drawn.div_ceil(PROBED_TOKENS);
    step.documents = step
        .documents
        .iter()
        .step_by(stride)
        .map(|&(set, tokens)| (set, &tokens[..tokens.len().min(PROBED_TOKENS)]))
        .collect();
    let probed: usize = step.documents.iter().map(|(_, tokens)| tokens.len()).sum();

    // Texts of the evaluation: documents, those that should stay twice for the KL and its reference, and
    // the options of questions; before and after.
    let mut texts: Vec<&Vec<u32>> = Vec::new();
    for (set, documents) in &benchmark.sets {
        let times = if matches!(set, Set::Retain | Set::RetainHeldout) { 3 } else { 1 };
        (0..times).for_each(|_| texts.extend(documents));
    }
    let questions = benchmark.questions.iter().flat_map(|(_, questions)| questions);
    texts.extend(questions.flat_map(|question| question.options.iter().map(|(tokens, _)| tokens)));
    let total: usize = texts.iter().map(|text| text.len()).sum();
    let stride = texts.len().div_ceil(64).max(1);
    let short = |text: &Vec<u32>| text[..text.len().min(PROBED_TOKENS)].to_vec();
    let sample: Vec<Vec<u32>> = texts.into_iter().step_by(stride).map(short).collect();
    let sampled: usize = sample.iter().map(Vec::len).sum();

    let mut times = Vec::new();
    for layers in [1, 2] {
        let config = LlamaConfig { num_hidden_layers: layers, ..files.config.clone() };
        let model: Llama<P::Infer> = Llama::random(&config, recipe.train.seed, device);
        let mut reference = Live::<P::Infer, P::Kernels>::new(model.clone());
        let mut optimizer = AdamW::new(recipe.optimizer.clone());
        let mut trained = Llama::<P::Train>::trainable(model.clone());
        // The first round warms up; the faster of the others counts.
        let mut train = f64::INFINITY;
        for round in 0..3 {
            let started = Instant::now();
            let graded =
                gradients::<P::Train, P::Kernels>(&trained, &step, &recipe.objective, Some(&mut reference))?;
            trained = update::<P::Train, P::Kernels>(trained, graded, &mut optimizer, 0.0, 1)?.0;
            if round > 0 {
                train = train.min(started.elapsed().as_secs_f64());
            }
        }
        let started = Instant::now();
        score::<P::Infer, P::Kernels>(&model, &sample, &mut Silent)?;
        times.push([train, started.elapsed().as_secs_f64()]);
    }
    let layers = files.config.num_hidden_layers as f64;
    let whole = |part: usize| {
        let block = (times[1][part] - times[0][part]).max(0.0);
        times[0][part] + (layers - 1.0) * block
    };
    let batches = 2.0 * total as f64 / sampled.max(1) as f64;
    let steps = recipe.train.steps as f64 * drawn as f64 / probed.max(1) as f64;
    Ok(Seconds { train: whole(0) * steps, evaluate: whole(1) * batches })
}

/// What a step holds at its peak, in bytes: weights of model and reference, gradients, AdamW's moments, and
/// the values that the plain form keeps for its backward pass.
fn estimate_memory(recipe: &Recipe, config: &LlamaConfig, data: &DataFiles, context: usize) -> u64 {
    let parameters = config.num_parameters() as u64;
    let lengths = |set: Set| data.benchmark.documents(set).iter().map(|text| text.len() as u64);
    let mut tokens = 0;
    let mut longest = 0;
    for set in recipe.objective.sets() {
        let documents = data.benchmark.documents(set).len() as u64;
        let drawn = (recipe.train.documents_per_step.of(set) as u64).min(documents);
        tokens += lengths(set).sum::<u64>() * drawn / documents.max(1);
        longest = lengths(set).max().unwrap_or(0).min(context as u64).max(longest);
    }
    let [hidden, wide, heads, head_dim, vocab] = [
        config.hidden_size,
        config.intermediate_size,
        config.num_attention_heads,
        config.head_dim,
        config.vocab_size,
    ]
    .map(|size| size as u64);
    // Counted in the plain form: copies that autodiff keeps of each kind of value, a token and block.
    let block = 12 * hidden + 10 * heads * head_dim + 6 * wide + 5 * heads * longest;
    let activations = tokens * (config.num_hidden_layers as u64 * block + 6 * vocab);
    4 * (5 * parameters + activations)
}
