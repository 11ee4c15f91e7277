//! Inspection of a model on a data folder: the evaluation with results for every document and question, greedy
//! continuations of prompts, and activations of hidden units. A report compares two inspections.

use std::collections::BTreeMap;

use crate::activations::mlp_activations;
use crate::data::{Benchmark, Example, Set};
use crate::error::Result;
use crate::evaluate::{Against, Details, Evaluation, TextLoss, context, evaluate_in_detail, score};
use crate::event::{Observer, Silent};
use crate::generate::{Sampling, generate};
use crate::model::Llama;
use crate::platform::Platform;

/// The sets of the paper's figure of activations.
pub const FIGURE: [Set; 3] = [Set::Unlearn, Set::EditUpdate, Set::Retain];
/// The sets whose continuations the report shows.
const SHOWN: [Set; 4] = [Set::Unlearn, Set::EditUpdate, Set::Retain, Set::RetainHeldout];
/// Number of continuations shown for each set.
const SHOWN_EACH: usize = 2;
/// Number of retain prompts whose continuations are scored for fluency.
const JUDGED: usize = 16;
/// Maximum number of texts of a set whose activations are measured.
pub const OBSERVED: usize = 48;
/// Maximum number of tokens of a continuation.
const NEW_TOKENS: usize = 48;

/// The beginning of a document, for the model to continue.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// The set.
    pub set: Set,
    /// The document's index in the set.
    pub document: usize,
    /// The tokens before the first predicted one; for a document that is predicted as a whole, the first quarter.
    pub tokens: Vec<u32>,
    /// Maximum number of tokens to generate.
    pub most: usize,
    /// Whether the report shows it. The others are only scored for fluency.
    pub shown: bool,
}

/// The prompts of a benchmark; they do not depend on the model.
pub fn prompts(benchmark: &Benchmark, context: usize) -> Vec<Prompt> {
    let mut prompts = Vec::new();
    for set in SHOWN {
        let documents = benchmark.documents(set);
        let wanted = if set == Set::Retain { JUDGED } else { SHOWN_EACH };
        let count = wanted.min(documents.len());
        for index in 0..count {
            let document = index * documents.len() / count;
            let example = &documents[document];
            let predicted = example.predicted.first().map_or(1, |range| range.start);
            let given = if predicted > 1 { predicted } else { (example.len() / 4).max(8) };
            let given = given.min(example.len() - 1).min(context - 1);
            let most = (example.len() - given).min(NEW_TOKENS).min(context - given);
            // For retain, show the first prompt and one from the middle, which may be of another kind.
            let shown = set != Set::Retain || index % JUDGED.div_ceil(SHOWN_EACH) == 0;
            let tokens = example.tokens[..given].to_vec();
            prompts.push(Prompt { set, document, tokens, most, shown });
        }
    }
    prompts
}

/// The results of an inspection.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// Results by set.
    pub evaluation: Evaluation,
    /// Results by document and question.
    pub details: Details,
    /// The generated tokens after each prompt.
    pub continuations: Vec<Vec<u32>>,
    /// Mean activations for the sets of [`FIGURE`] that have documents: layer × hidden unit.
    pub activations: BTreeMap<Set, Vec<Vec<f32>>>,
}

/// Inspects `model`.
pub fn inspect<P: Platform>(
    model: &Llama<P::Infer>,
    benchmark: &Benchmark,
    prompts: &[Prompt],
    against: Against<P::Infer>,
    observer: &mut dyn Observer,
) -> Result<Inspection> {
    let (evaluation, details) =
        evaluate_in_detail::<P::Infer, P::Kernels>(model, benchmark, against, observer)?;
    let mut inspection =
        Inspection { evaluation, details, continuations: Vec::new(), activations: BTreeMap::new() };
    if inspection.evaluation.not_finite().is_some() {
        // Such a model cannot generate.
        return Ok(inspection);
    }
    let greedy = Sampling { temperature: 0.0, seed: 0 };
    for prompt in prompts {
        let new = generate::<P::Infer, P::Kernels>(model, &prompt.tokens, prompt.most, greedy)?;
        inspection.continuations.push(new);
    }
    for set in FIGURE {
        let texts = benchmark.documents(set);
        let texts = &texts[..texts.len().min(OBSERVED)];
        if !texts.is_empty() {
            inspection.activations.insert(set, mlp_activations::<P::Infer, P::Kernels>(model, texts)?);
        }
    }
    Ok(inspection)
}

/// The mean NLL of the continuations of retain prompts under `judge`, in nats a token; `None` if there are none.
pub fn fluency<P: Platform>(
    judge: &Llama<P::Infer>,
    prompts: &[Prompt],
    continuations: &[Vec<u32>],
) -> Result<Option<f64>> {
    let longest = context(judge.config());
    let judged = prompts.iter().zip(continuations).filter(|(prompt, _)| prompt.set == Set::Retain);
    let text = |(prompt, new): (&Prompt, &Vec<u32>)| {
        let tokens = [prompt.tokens.as_slice(), new].concat();
        let predicted = prompt.tokens.len()..tokens.len().min(longest);
        let predicted = if predicted.is_empty() { Vec::new() } else { vec![predicted] };
        Example { tokens, predicted, alternatives: Vec::new() }
    };
    let texts: Vec<Example> = judged.map(text).collect();
    let losses = score::<P::Infer, P::Kernels>(judge, &texts, &mut Silent)?;
    let total = losses.iter().fold(TextLoss::default(), |total, loss| TextLoss {
        sum: total.sum + loss.sum,
        tokens: total.tokens + loss.tokens,
    });
    Ok(total.mean())
}
