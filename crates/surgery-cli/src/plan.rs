//! `--dry-run`: what a run would do, and what it would take.

use std::time::Instant;

use serde_json::{Value, json};
use surgery_core::Result;
use surgery_core::account::{Account, Plan};
use surgery_core::batch::windows;
use surgery_core::checkpoint::Checkpoint;
use surgery_core::config::LlamaConfig;
use surgery_core::data::{Draw, EncodedQuestion, Set};
use surgery_core::evaluate::{score, score_options};
use surgery_core::event::Silent;
use surgery_core::kernels::Kernels;
use surgery_core::memory::resident_bytes;
use surgery_core::model::Llama;
use surgery_core::optimizer::AdamW;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::{Recipe, ReferenceForm};
use surgery_core::reference::{Cached, Live, Reference, Store};
use surgery_core::step::{gradients, update};
use surgery_core::surgery::{drawn_documents, sampler};

use crate::exit::Outcome;
use crate::inputs::{DataFiles, ModelFiles};
use crate::terminal::{print, print_json};

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
    let options = |questions: &[EncodedQuestion]| -> usize {
        questions.iter().map(|question| question.options.len()).sum()
    };
    let resident = resident_bytes().unwrap_or(0);
    let seconds = estimate_seconds::<P>(recipe, files, data, device)?;
    let account = account::<P>(recipe, &files.config, data, context);
    // What this process holds now, the data and the tokenizer, it will hold then too.
    let memory = account.total() + resident;
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
            "memory": account,
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
        "\nmemory: about {:.0} MiB\ntime:   about {} of training, {} of evaluation",
        memory as f64 / f64::from(1 << 20),
        shown(seconds.train),
        shown(seconds.evaluate)
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
/// How often each is timed; the median counts.
const PROBES: usize = 3;
/// Documents, and questions, on which an evaluation is timed.
const PROBED_TEXTS: usize = 64;

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

    // An evaluation passes every document and every question once; a sample of each tells.
    let documents: Vec<&Vec<u32>> = benchmark.sets.iter().flat_map(|(_, documents)| documents).collect();
    let questions: Vec<&EncodedQuestion> =
        benchmark.questions.iter().flat_map(|(_, questions)| questions).collect();
    let short = |text: &Vec<u32>| text[..text.len().min(PROBED_TOKENS)].to_vec();
    let some_documents: Vec<Vec<u32>> =
        documents.iter().step_by(documents.len().div_ceil(PROBED_TEXTS).max(1)).map(|t| short(t)).collect();
    let some_questions: Vec<EncodedQuestion> = questions
        .iter()
        .step_by(questions.len().div_ceil(PROBED_TEXTS).max(1))
        .map(|&question| question.clone())
        .collect();
    let share = |some: usize, all: usize| if some == 0 { 0.0 } else { all as f64 / some as f64 };
    let lengths = |texts: &mut dyn Iterator<Item = usize>| texts.sum::<usize>();
    let of_documents = share(
        lengths(&mut some_documents.iter().map(Vec::len)),
        lengths(&mut documents.iter().map(|text| text.len())),
    );
    let of_questions = share(some_questions.len(), questions.len());

    struct Probe<P: Platform> {
        model: Llama<P::Infer>,
        trained: Option<Llama<P::Train>>,
        reference: Box<dyn Reference<P::Infer>>,
        optimizer: AdamW<P::Infer>,
        train: Vec<f64>,
        evaluate: Vec<f64>,
    }
    let probe = |layers| -> Result<Probe<P>> {
        let config = LlamaConfig { num_hidden_layers: layers, ..files.config.clone() };
        let model: Llama<P::Infer> = Llama::random(&config, recipe.train.seed, device);
        let reference: Box<dyn Reference<P::Infer>> = match recipe.train.reference {
            ReferenceForm::Live => Box::new(Live::<P::Infer, P::Kernels>::new(model.clone())),
            ReferenceForm::Cached => {
                let mut cached = Cached::<P::Infer, P::Kernels>::new(&model, Store::in_memory());
                let retained = step.documents.iter().filter(|(set, _)| *set == Set::Retain);
                cached.want(retained.map(|(_, tokens)| *tokens), context);
                cached.complete(&model)?;
                Box::new(cached)
            }
        };
        Ok(Probe::<P> {
            trained: Some(Llama::<P::Train>::trainable(model.clone())),
            reference,
            optimizer: AdamW::new(recipe.optimizer.clone()),
            model,
            train: Vec::new(),
            evaluate: Vec::new(),
        })
    };
    let mut probes: [Probe<P>; 2] = [probe(1)?, probe(2)?];
    // The two in turns, so that other work on the machine falls on both; the first round warms up.
    for round in 0..=PROBES {
        for probe in &mut probes {
            let started = Instant::now();
            let trained = probe.trained.take().expect("put back below");
            let reference: &mut dyn Reference<P::Infer> = &mut *probe.reference;
            let (objective, reference) = (&recipe.objective, Some(reference));
            let graded = gradients::<P::Train, P::Kernels>(&trained, &step, objective, reference)?;
            let updated = update::<P::Train, P::Kernels>(trained, graded, &mut probe.optimizer, 0.0, 1)?.0;
            probe.trained = Some(updated);
            let train = started.elapsed().as_secs_f64();
            let started = Instant::now();
            score::<P::Infer, P::Kernels>(&probe.model, &some_documents, &mut Silent)?;
            let scored = started.elapsed().as_secs_f64();
            score_options::<P::Infer, P::Kernels>(&probe.model, &some_questions, &mut Silent)?;
            let options = started.elapsed().as_secs_f64() - scored;
            if round > 0 {
                probe.train.push(train);
                probe.evaluate.push(scored * of_documents + options * of_questions);
            }
        }
    }
    let times = probes.map(|probe| [probe.train, probe.evaluate].map(median));
    let layers = files.config.num_hidden_layers as f64;
    let whole = |part: usize| {
        let block = (times[1][part] - times[0][part]).max(0.0);
        times[0][part] + (layers - 1.0) * block
    };
    let steps = recipe.train.steps as f64 * drawn as f64 / probed.max(1) as f64;
    Ok(Seconds { train: whole(0) * steps, evaluate: 2.0 * whole(1) })
}

fn shown(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What a step holds at its peak, counted.
fn account<P: Platform>(recipe: &Recipe, config: &LlamaConfig, data: &DataFiles, context: usize) -> Account {
    let lengths = |set: Set| data.benchmark.documents(set).iter().map(Vec::len);
    let sets = recipe.objective.sets();
    let longest = sets.iter().flat_map(|&set| lengths(set)).max().unwrap_or(0).min(context);
    // The seed says which documents the steps will draw: the step with the most tokens decides.
    let mut sampler = sampler(&data.corpus, recipe);
    let tokens_of = |set: Set, drawn: &[usize]| -> usize {
        drawn.iter().map(|&index| data.benchmark.documents(set)[index].len()).sum()
    };
    let of_step = |draw: Draw| {
        let retained = draw.get(&Set::Retain).map_or(0, |drawn| tokens_of(Set::Retain, drawn));
        (draw.iter().map(|(&set, drawn)| tokens_of(set, drawn)).sum::<usize>(), retained)
    };
    let (tokens, retained) =
        (0..recipe.train.steps).map(|_| of_step(sampler.draw())).max().unwrap_or_default();
    let plan = Plan {
        precision: recipe.model.precision,
        tokens,
        retained,
        recompute: recipe.train.recompute,
        live_reference: recipe.train.reference == ReferenceForm::Live,
        kept_values: <P::Kernels as Kernels<P::Train>>::kept_values(config, longest),
        work_values: <P::Kernels as Kernels<P::Train>>::work_values(config),
        reserve: <P::Kernels as Kernels<P::Train>>::RESERVE,
    };
    Account::new(config, &plan)
}
