//! `--dry-run`: the plan of a run, with its memory and time.

use serde_json::{Value, json};
use surgery_core::data::lint::Finding;
use surgery_core::data::windows;
use surgery_core::data::{EncodedQuestion, Example, Set};
use surgery_core::memory::{peak_bytes, resident_bytes, shown};
use surgery_core::platform::Platform;

use crate::example::{Marks, one_of_each_set};
use crate::exit::Outcome;
use crate::fit;
use crate::prepare::Prepared;
use crate::terminal::{Log, print, print_json};
use crate::timing::{self, Estimate};

/// Prints the plan of a run.
pub fn show<P: Platform>(prepared: &Prepared<P>, as_json: bool, log: Log) -> Outcome {
    let Prepared { recipe, files, checkpoint, data, device, .. } = prepared;
    let parameters = files.config.parameters().train_only(&recipe.train.trainable)?;
    let context = files.config.context(recipe.train.max_tokens);
    let sets: Vec<Contents> =
        data.benchmark.sets.iter().map(|(set, texts)| contents(*set, texts, context)).collect();
    let options = |questions: &[EncodedQuestion]| -> usize {
        questions.iter().map(|question| question.options.len()).sum()
    };
    let findings = data.lint(files, Some(recipe));
    log.findings(&findings);
    let account = fit::step_memory::<P>(recipe, &files.config, Some(data));
    // The memory of this process, with the data and the tokenizer, will be in use then, too. Reading the data may have taken
    // more than the steps will: 200 bytes a token of a long document.
    let counted = fit::operation_memory::<P>(recipe, prepared.models(), Some(data));
    let in_steps = counted + resident_bytes().unwrap_or(0);
    let memory = in_steps.max(peak_bytes().unwrap_or(0)) + PROCESS;
    let room = P::room(device);
    let refusal = prepared.check_memory().err();
    let time = match &refusal {
        None => timing::estimate::<P>(recipe, &files.config, data, device)?,
        Some(_) => None,
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
                "parameters": parameters.values(),
                "trained_parameters": parameters.trained_values(),
                "weights_bytes": checkpoint.bytes(),
            },
            "sets": sets,
            "questions": questions,
            "findings": findings,
            "memory_bytes": memory,
            "memory": account,
            "memory_room_bytes": room.map(|room| room.bytes),
            "fits": refusal.is_none(),
            "train_seconds": time.as_ref().map(|time| time.train),
            "evaluate_seconds": time.as_ref().map(|time| time.evaluate),
            "time_basis": time.as_ref().map(|time| &time.basis),
        }))?;
        return refusal.map_or(Ok(()), |refusal| Err(refusal.into()));
    }
    print(toml::to_string(recipe).expect("a recipe is TOML").trim_end())?;
    let (values, trained) = (parameters.values(), parameters.trained_values());
    let trained = if trained == values { String::new() } else { format!(", of which {trained} are trained") };
    print(&format!("\nmodel: {values} parameters{trained}"))?;
    for contents in &sets {
        print(&contents.line())?;
    }
    for (name, list) in &data.benchmark.questions {
        print(&format!("questions/{name}: {} questions, {} options", list.len(), options(list)))?;
    }
    for Finding { file, count, problem, .. } in &findings {
        print(&format!("finding: {file}: {count} {problem}"))?;
    }
    if log.is_verbose()
        && let Some(examples) = one_of_each_set(data, &files.encoder, Marks::for_stdout())?
    {
        print(&format!("\n{examples}"))?;
    }
    let room = room
        .map_or(String::new(), |room| format!("; {} has room for {} more", room.limit, shown(room.bytes)));
    print(&format!("\nmemory: about {}{room}", shown(memory)))?;
    print(&match time {
        Some(Estimate { train, evaluate, basis }) => {
            let [train, evaluate] = [train, evaluate].map(of_time);
            format!("time:   about {train} of training, {evaluate} of evaluation; {basis}")
        }
        None => "time:   not measured, for which there is not the memory".into(),
    })?;
    refusal.map_or(Ok(()), |refusal| Err(refusal.into()))
}

/// The size of a set.
struct Contents {
    set: Set,
    documents: usize,
    tokens: usize,
    windows: usize,
}

fn contents(set: Set, texts: &[Example], context: usize) -> Contents {
    Contents {
        set,
        documents: texts.len(),
        tokens: texts.iter().map(Example::len).sum(),
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

/// Additional memory of a run in bytes, neither counted nor in use by a plan: code that a plan does not execute, stacks,
/// unused parts of the allocator's heap. Measured on two cores: 12 to 25 MiB.
const PROCESS: u64 = 16 << 20;

fn of_time(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}
