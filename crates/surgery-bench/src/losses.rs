//! The time of a step of each forget loss, beside gradient ascent's.

use serde::Serialize;
use serde_json::json;
use surgery_core::data::{Example, Set};
use surgery_core::model::Llama;
use surgery_core::objective::{Objective, StepObjective};
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::Precision;
use surgery_core::reference::Live;
use surgery_core::step::{StepDocuments, gradients};
use surgery_core::token_nll::NllTable;

use crate::Result;
use crate::ours::timed;
use crate::precomputed::Precomputed;
use crate::quiet::{median, settle};
use crate::work::{CONTEXT, Shape, StepSample};

/// The losses, gradient ascent first.
const LOSSES: [&str; 10] =
    ["ascent", "npo", "simnpo", "wga", "satimp", "dpo", "undial", "ce_u", "pdu", "rmu"];

/// A loss's time.
#[derive(Debug, Serialize)]
pub(crate) struct LossTime {
    name: &'static str,
    /// Seconds of a step's gradients, in one batch.
    seconds: f64,
    /// By ascent's.
    ratio: f64,
    /// In batches of a quarter of the step's tokens, by ascent's in such batches.
    ratio_in_batches: f64,
}

/// The steps of one loss: in one batch, and in several.
struct LossRun<P: Platform> {
    objective: StepObjective,
    references: [Precomputed<P::Infer, P::Kernels>; 2],
    seconds: [Vec<f64>; 2],
}

/// Measures every loss in turn, as many rounds as asked for, with the states of the reference known.
pub(crate) fn measure<P: Platform>(
    shape: &Shape,
    sample: &StepSample,
    precision: Precision,
    rounds: u32,
    device: &DeviceOf<P>,
) -> Result<Vec<LossTime>> {
    let config = shape.config()?;
    let reference = Llama::<P::Infer>::random(&config, 1, precision, device);
    let model = Llama::<P::Train>::random(&config, 2, precision, device);
    let documents = with_alternatives(sample);
    let all = documents.iter().flat_map(|(_, own)| std::iter::once(own).chain(&own.alternatives));
    let nll = NllTable::of::<P::Infer, P::Kernels>(&reference, all, CONTEXT)?;
    let mut step = StepDocuments::new(documents.iter().map(|(set, example)| (*set, example)), CONTEXT);
    step.reference_nll = Some(&nll);
    let batches = [usize::MAX, sample.num_tokens() / 4];
    let mut runs: Vec<LossRun<P>> = Vec::new();
    for name in LOSSES {
        let section = json!({ "forget": name, "pdu": { "epsilon": 0.1 }, "rmu": { "block": config.num_hidden_layers / 2 } });
        let objective: Objective = serde_json::from_value(section)?;
        let live = || Precomputed::new(Live::new(reference.clone()));
        runs.push(LossRun {
            objective: objective.for_model(&config, 0),
            references: [live(), live()],
            seconds: [Vec::new(), Vec::new()],
        });
    }
    // The first round warms up.
    for round in 0..=rounds {
        for LossRun { objective, references, seconds } in &mut runs {
            for ((batch_tokens, reference), seconds) in batches.iter().zip(references).zip(seconds) {
                settle();
                let step = StepDocuments { batch_tokens: *batch_tokens, ..step.clone() };
                let (_, time) = timed::<P, _>(device, || {
                    Ok(gradients::<P::Train, P::Kernels>(&model, &step, objective, Some(reference))?)
                })?;
                if round > 0 {
                    seconds.push(time);
                }
            }
        }
    }
    let medians: Vec<[f64; 2]> =
        runs.iter_mut().map(|run| run.seconds.each_mut().map(|seconds| median(seconds))).collect();
    let ascent = medians[0];
    let times = LOSSES.into_iter().zip(medians).map(|(name, [seconds, in_batches])| LossTime {
        name,
        seconds,
        ratio: seconds / ascent[0],
        ratio_in_batches: in_batches / ascent[1],
    });
    Ok(times.collect())
}

/// The documents of a step, each with an alternative as long: the document in reverse.
fn with_alternatives(sample: &StepSample) -> Vec<(Set, Example)> {
    let with_alternative = |(set, example): (Set, &Example)| {
        let reversed = Example::of_text(example.tokens.iter().rev().copied().collect());
        (set, Example { alternatives: vec![reversed], ..example.clone() })
    };
    sample.documents().map(with_alternative).collect()
}

/// Prints the times as a table.
pub(crate) fn print(shape: &str, times: &[LossTime]) {
    println!("{shape}: gradients of a step\n  {:<8}{:>9}{:>9}{:>13}", "loss", "ms", "ratio", "in batches");
    for LossTime { name, seconds, ratio, ratio_in_batches } in times {
        println!("  {name:<8}{:>9.0}{ratio:>9.2}{ratio_in_batches:>13.2}", seconds * 1e3);
    }
}
