//! `--dry-run`: what a run would do, and what it would take.

use std::time::Instant;

use serde_json::{Value, json};
use surgery_core::Result;
use surgery_core::batch::windows;
use surgery_core::checkpoint::Checkpoint;
use surgery_core::config::LlamaConfig;
use surgery_core::data::lint::Finding;
use surgery_core::data::{Benchmark, EncodedQuestion, Set};
use surgery_core::evaluate::{score, score_options};
use surgery_core::event::Silent;
use surgery_core::generate::{Sampling, generate, generate_several};
use surgery_core::memory::{resident_bytes, shown};
use surgery_core::model::Llama;
use surgery_core::optimizer::AdamW;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::{Recipe, ReferenceForm};
use surgery_core::reference::{Cached, Live, Reference, Store};
use surgery_core::replay::{at_once, stand_ins};
use surgery_core::step::{gradients, update};
use surgery_core::surgery::{Drawable, sampler};
use surgery_core::training::OnTheWay;

use crate::exit::Outcome;
use crate::fit;
use crate::inputs::{DataFiles, ModelFiles};
use crate::look::prompts;
use crate::terminal::{Log, print, print_json};

/// Prints the plan of a run.
pub fn show<P: Platform>(
    recipe: &Recipe,
    models: fit::Models,
    checkpoint: &Checkpoint,
    data: &DataFiles,
    device: &DeviceOf<P>,
    as_json: bool,
    log: Log,
) -> Outcome {
    let files = models.operated;
    let context = files.config.context(recipe.train.max_tokens);
    let sets: Vec<Contents> =
        data.benchmark.sets.iter().map(|(set, texts)| contents(*set, texts, context)).collect();
    let options = |questions: &[EncodedQuestion]| -> usize {
        questions.iter().map(|question| question.options.len()).sum()
    };
    let findings = data.lint(files, Some(recipe));
    log.findings(&findings);
    let account = fit::of_step::<P>(recipe, &files.config, Some(data));
    // What this process holds now, the data and the tokenizer, it will hold then too.
    let memory = fit::of_operation::<P>(recipe, models, Some(data)) + resident_bytes().unwrap_or(0) + PROCESS;
    let room = P::room(device);
    let refusal = fit::operation::<P>("", recipe, models, Some(data), device).err();
    let is_measured = refusal.is_none() && fit::probes::<P>(recipe, files, device).is_ok();
    let seconds = match is_measured {
        true => Some(estimate_seconds::<P>(recipe, files, data, device)?),
        false => None,
    };
    if as_json {
        let sets: Vec<Value> = sets.iter().map(Contents::json).collect();
        let questions: Vec<Value> = data
            .benchmark
            .questions
            .iter()
            .map(|(name, list)| json!({ "set": name, "questions": list.len(), "options": options(list) }))
            .collect();
        print_json(&json!({
            "recipe": recipe,
            "model": {
                "parameters": files.config.num_parameters() as u64,
                "weights_bytes": checkpoint.bytes(),
            },
            "sets": sets,
            "questions": questions,
            "findings": findings,
            "memory_bytes": memory,
            "memory": account,
            "memory_room_bytes": room.map(|room| room.bytes),
            "fits": refusal.is_none(),
            "train_seconds": seconds.as_ref().map(|seconds| seconds.train),
            "evaluate_seconds": seconds.as_ref().map(|seconds| seconds.evaluate),
        }))?;
        return refusal.map_or(Ok(()), |refusal| Err(refusal.into()));
    }
    print(toml::to_string(recipe).expect("a recipe is TOML").trim_end())?;
    print(&format!("\nmodel: {} parameters", files.config.num_parameters()))?;
    for contents in &sets {
        print(&contents.line())?;
    }
    for (name, list) in &data.benchmark.questions {
        print(&format!("questions/{name}: {} questions, {} options", list.len(), options(list)))?;
    }
    for Finding { file, count, problem, .. } in &findings {
        print(&format!("finding: {file}: {count} {problem}"))?;
    }
    let room = room
        .map_or(String::new(), |room| format!("; {} has room for {} more", room.limit, shown(room.bytes)));
    print(&format!("\nmemory: about {}{room}", shown(memory)))?;
    print(&match seconds {
        Some(Seconds { train, evaluate }) => {
            format!("time:   about {} of training, {} of evaluation", of_time(train), of_time(evaluate))
        }
        None => "time:   not measured, for which there is not the memory".into(),
    })?;
    refusal.map_or(Ok(()), |refusal| Err(refusal.into()))
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

/// Bytes that a run fills besides what is counted and what a plan holds: code that a plan does not get to, stacks, holes in
/// the allocator's heap. Measured on two cores: 12 to 25 MiB.
const PROCESS: u64 = 16 << 20;
/// Tokens on which a step is timed, at most about that many.
pub const PROBED_TOKENS: usize = 1024;
/// How often each is timed; the median counts.
const PROBES: usize = 3;
/// Tokens of the texts on which writing is timed, a batch of texts or one.
const PROBED_WRITTEN: usize = 16;
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
    let drawable = Drawable { benchmark, written: stand_ins(&recipe.replay, context) };
    let mut step =
        drawable.step(&sampler(&data.corpus, recipe).draw(), context, recipe.train.recompute, None);
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

    // An evaluation passes every document and every question once; some of each tell.
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
    // Before, after, and of a sample on the way.
    let on_the_way = OnTheWay::new(benchmark, recipe.train.evaluate_every);
    let (evaluations, sample) = on_the_way.in_steps(recipe.train.steps);
    let tokens = |benchmark: &Benchmark| -> usize {
        benchmark.sets.iter().flat_map(|(_, documents)| documents).map(Vec::len).sum()
    };
    let asked = |benchmark: &Benchmark| -> usize {
        benchmark.questions.iter().map(|(_, questions)| questions.len()).sum()
    };
    let times = |count: &dyn Fn(&Benchmark) -> usize, probed: usize| {
        (2 * count(benchmark) + evaluations * count(sample)) as f64 / probed.max(1) as f64
    };
    let of_documents = times(&tokens, some_documents.iter().map(Vec::len).sum());
    let of_questions = times(&asked, some_questions.len());
    // Continuations are written one by one, before and after.
    let continued: usize = prompts(benchmark, context).iter().map(|prompt| prompt.most).sum();
    let of_continuations = 2.0 * continued as f64 / PROBED_WRITTEN as f64;

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
        let model: Llama<P::Infer> =
            Llama::random(&config, recipe.train.seed, recipe.model.precision, device);
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
    let steps = recipe.train.steps as f64 * drawn as f64 / probed.max(1) as f64;
    // As if every text that the model writes could be taken.
    let batches = recipe.replay.documents.div_ceil(at_once(&recipe.replay)) as f64
        * (recipe.replay.max_tokens as f64 / PROBED_WRITTEN as f64);
    let sampling = Sampling { temperature: recipe.replay.temperature, seed: recipe.train.seed };
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
            let step = started.elapsed().as_secs_f64() * steps;
            let started = Instant::now();
            if batches > 0.0 {
                let prompts: Vec<(usize, &[u32])> =
                    (0..at_once(&recipe.replay)).map(|text| (text, [0].as_slice())).collect();
                generate_several::<P::Infer, P::Kernels>(&probe.model, &prompts, PROBED_WRITTEN, sampling)?;
            }
            let train = step + started.elapsed().as_secs_f64() * batches;
            let started = Instant::now();
            score::<P::Infer, P::Kernels>(&probe.model, &some_documents, &mut Silent)?;
            let scored = started.elapsed().as_secs_f64();
            score_options::<P::Infer, P::Kernels>(&probe.model, &some_questions, &mut Silent)?;
            let options = started.elapsed().as_secs_f64() - scored;
            let started = Instant::now();
            generate::<P::Infer, P::Kernels>(&probe.model, &[0], PROBED_WRITTEN, sampling)?;
            let continued = started.elapsed().as_secs_f64();
            if round > 0 {
                probe.train.push(train);
                probe
                    .evaluate
                    .push(scored * of_documents + options * of_questions + continued * of_continuations);
            }
        }
    }
    let times = probes.map(|probe| [probe.train, probe.evaluate].map(median));
    let layers = files.config.num_hidden_layers as f64;
    let whole = |part: usize| {
        let block = (times[1][part] - times[0][part]).max(0.0);
        times[0][part] + (layers - 1.0) * block
    };
    Ok(Seconds { train: whole(0), evaluate: whole(1) })
}

fn of_time(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
