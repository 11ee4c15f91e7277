//! What a model is seen to do with a data folder: figures for every item, how it goes on from prompts, and how its
//! hidden units answer. A report sets two such looks side by side.

use std::collections::BTreeMap;

use surgery_core::Result;
use surgery_core::activations::mlp_activations;
use surgery_core::data::{Benchmark, EncodedOption, EncodedQuestion, Set, Split};
use surgery_core::evaluate::{
    Against, Details, Evaluation, TextLoss, context, evaluate_in_detail, score_options,
};
use surgery_core::event::Silent;
use surgery_core::generate::{Sampling, generate};
use surgery_core::model::Llama;
use surgery_core::platform::Platform;

use crate::progress::Progress;

/// The sets of the paper's figure of activations.
pub const FIGURE: [Set; 3] = [Set::Unlearn, Set::EditUpdate, Set::Retain];
/// The sets of which continuations are shown.
const SHOWN: [Set; 4] = [Set::Unlearn, Set::EditUpdate, Set::Retain, Set::RetainHeldout];
/// Continuations shown of each set.
const SHOWN_EACH: usize = 2;
/// Retain prompts whose continuations are judged.
const JUDGED: usize = 16;
/// Texts of a set whose activations are measured.
pub const OBSERVED: usize = 48;
/// Tokens of a continuation, at most.
const NEW_TOKENS: usize = 48;

/// The beginning of a document, to be continued.
pub struct Prompt {
    /// The set.
    pub set: Set,
    /// The document, by its position in the set.
    pub document: usize,
    /// The first quarter of its tokens.
    pub tokens: Vec<u32>,
    /// How many tokens to add.
    pub most: usize,
    /// Whether it stands in the report, or is judged only.
    pub shown: bool,
}

/// Prompts from a benchmark: the same whatever the model.
pub fn prompts(benchmark: &Benchmark, context: usize) -> Vec<Prompt> {
    let mut prompts = Vec::new();
    for set in SHOWN {
        let texts = benchmark.documents(set);
        let wanted = if set == Set::Retain { JUDGED } else { SHOWN_EACH };
        let count = wanted.min(texts.len());
        for index in 0..count {
            let document = index * texts.len() / count;
            let text = &texts[document];
            let given = (text.len() / 4).max(8).min(text.len() - 1).min(context - 1);
            let most = (text.len() - given).min(NEW_TOKENS).min(context - given);
            // Retain's shown ones are its first and one from the middle: of another kind, maybe.
            let shown = set != Set::Retain || index % JUDGED.div_ceil(SHOWN_EACH) == 0;
            prompts.push(Prompt { set, document, tokens: text[..given].to_vec(), most, shown });
        }
    }
    prompts
}

/// What was seen.
pub struct Inspection {
    /// Figures by set.
    pub evaluation: Evaluation,
    /// Figures by document and question.
    pub details: Details,
    /// The new tokens after each prompt.
    pub continuations: Vec<Vec<u32>>,
    /// Mean activations of the sets of [`FIGURE`] that there are: layer × hidden unit.
    pub activations: BTreeMap<Set, Vec<Vec<f32>>>,
}

/// Looks at `model`.
pub fn inspect<P: Platform>(
    model: &Llama<P::Infer>,
    benchmark: &Benchmark,
    prompts: &[Prompt],
    against: Against<P::Infer>,
    progress: &mut Progress,
) -> Result<Inspection> {
    let (evaluation, details) =
        evaluate_in_detail::<P::Infer, P::Kernels>(model, benchmark, against, progress)?;
    let mut look =
        Inspection { evaluation, details, continuations: Vec::new(), activations: BTreeMap::new() };
    if look.evaluation.not_finite().is_some() {
        // Such a model generates nothing either.
        return Ok(look);
    }
    let greedy = Sampling { temperature: 0.0, seed: 0 };
    for prompt in prompts {
        let new = generate::<P::Infer, P::Kernels>(model, &prompt.tokens, prompt.most, greedy)?;
        look.continuations.push(new);
    }
    for set in FIGURE {
        let texts = benchmark.documents(set);
        let texts = &texts[..texts.len().min(OBSERVED)];
        if !texts.is_empty() {
            look.activations.insert(set, mlp_activations::<P::Infer, P::Kernels>(model, texts)?);
        }
    }
    Ok(look)
}

/// The mean NLL, in nats a token, that `judge` gives to the continuations of retain prompts; none where there are
/// none.
pub fn fluency<P: Platform>(
    judge: &Llama<P::Infer>,
    prompts: &[Prompt],
    continuations: &[Vec<u32>],
) -> Result<Option<f64>> {
    let longest = context(judge.config());
    let judged = prompts.iter().zip(continuations).filter(|(prompt, _)| prompt.set == Set::Retain);
    let text = |(prompt, new): (&Prompt, &Vec<u32>)| {
        let text = [prompt.tokens.as_slice(), new].concat();
        let counted = prompt.tokens.len()..text.len().min(longest);
        EncodedQuestion {
            options: vec![EncodedOption::of_tokens(text, counted, 1)],
            answer: 0,
            split: Split::Validation,
        }
    };
    let texts: Vec<EncodedQuestion> = judged.map(text).collect();
    let losses = score_options::<P::Infer, P::Kernels>(judge, &texts, &mut Silent)?;
    let total = losses.iter().flatten().fold(TextLoss::default(), |total, loss| TextLoss {
        sum: total.sum + loss.paper.sum,
        tokens: total.tokens + loss.paper.tokens,
    });
    Ok(total.mean())
}
