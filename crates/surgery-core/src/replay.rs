//! Replay: before training, the model generates texts of its own and is then trained to keep its predictions on them,
//! like on retain documents. They rehearse knowledge that no document of the data contains (Robins 1995,
//! "Catastrophic forgetting, rehearsal and pseudorehearsal"; for language models arXiv 2403.01244).
//!
//! Texts are sampled from the model's distribution, starting at the BOS token. They must not contain anything to be
//! unlearned, since training would preserve it. [`ReplayFilter`] refuses texts by their words: those with names from
//! the documents to unlearn or update, and those with word sequences of an unlearn document, a question or a held-out
//! document. [`Likelihood`] refuses texts that a model which never saw the documents to unlearn finds unlikely, if
//! there is such a model. Texts that begin with a subject of the retain set are dropped too, because retain has
//! documents about it.
//!
//! Held-out documents are used for evaluation, so no text may copy them. Their facts may be rehearsed in the model's
//! own words, like all its knowledge.

mod filter;
mod likelihood;
mod names;
mod sequences;

use std::collections::VecDeque;

use burn::tensor::backend::Backend;

use crate::config::LlamaConfig;
use crate::data::Example;
use crate::error::{Error, Result};
use crate::event::{Event, Observer, stop_if_interrupted};
use crate::generate::{Sampling, generate_several};
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::recipe::Replay;
use crate::text::TextEncoder;

pub use filter::ReplayFilter;
pub use likelihood::Likelihood;

/// Minimum number of tokens of a text.
const SHORTEST: usize = 8;
/// Number of tokens in the texts that are generated at once.
const TOKENS_AT_ONCE: usize = 16384;
/// Number of tokens that show what a text is about. Only then is it continued or dropped.
const BEGINNING: usize = 24;
/// Maximum number of texts begun for each text wanted.
const TRIES: usize = 20;

/// The tokens that start a generated text: those that the tokenizer adds in front of every text. If it adds none, the
/// configuration's BOS token, or else its EOS token, since such a model was trained on texts separated by it. The
/// token stays in the text, so the model's prediction of a text's first token is preserved too.
fn opening(encoder: &TextEncoder, config: &LlamaConfig) -> Result<Vec<u32>> {
    let own = encoder.encode("")?;
    if !own.is_empty() {
        return Ok(own);
    }
    let between = config.bos_token_id.iter().chain(&config.eos_token_ids);
    match between.copied().find(|&token| (token as usize) < config.vocab_size) {
        Some(token) => Ok(vec![token]),
        None => Err(Error::Recipe {
            origin: "`replay.documents`".into(),
            problem:
                "must be 0 for this model: its tokenizer has no BOS token to start generation from, and its \
                      configuration names neither `bos_token_id` nor `eos_token_id`"
                    .into(),
        }),
    }
}

/// Refuses a recipe with replay for a model that has no token to start generation from.
pub fn check(replay: &Replay, encoder: &TextEncoder, config: &LlamaConfig) -> Result<()> {
    if replay.documents > 0 { opening(encoder, config).map(drop) } else { Ok(()) }
}

/// Generates as many texts as `replay` asks for that neither `filter` nor `likelihood` refuses, as token ids
/// including the start token. The seed fixes the texts.
pub fn write_texts<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    encoder: &TextEncoder,
    filter: &ReplayFilter,
    likelihood: Option<&Likelihood<B>>,
    replay: &Replay,
    seed: u64,
    observer: &mut dyn Observer,
) -> Result<Vec<Example>> {
    if replay.documents == 0 {
        return Ok(Vec::new());
    }
    let prompt = opening(encoder, model.config())?;
    let sampling = Sampling { temperature: replay.temperature, seed };
    let beginning = BEGINNING.min(replay.max_tokens);
    let is_last = |token: &u32| model.config().eos_token_ids.contains(token);
    let mut begun: VecDeque<(usize, Vec<u32>)> = VecDeque::new();
    let mut taken = Vec::with_capacity(replay.documents);
    let mut written = 0;
    while taken.len() < replay.documents {
        // Enough beginnings for a batch, or for the texts still missing.
        let wanted = at_once(replay).min(replay.documents - taken.len());
        while begun.len() < wanted {
            if written >= TRIES * replay.documents {
                return Err(too_few(replay, written, taken.len()));
            }
            let several = (TOKENS_AT_ONCE / beginning).min(2 * wanted);
            let prompts: Vec<(usize, &[u32])> =
                (written..written + several).map(|text| (2 * text, prompt.as_slice())).collect();
            let most = beginning.saturating_sub(prompt.len());
            let new = generate_several::<B, K>(model, &prompts, most, sampling, &*observer)?;
            for (text, new) in (written..).zip(new) {
                if !filter.refuses_beginning(&encoder.decode(&new)?) {
                    begun.push_back((text, [prompt.as_slice(), &new].concat()));
                }
            }
            written += several;
            stop_if_interrupted(observer)?;
        }
        let batch: Vec<(usize, Vec<u32>)> = begun.drain(..wanted).collect();
        let (ended, going): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|(_, tokens)| tokens.last().is_some_and(is_last));
        let prompts: Vec<(usize, &[u32])> =
            going.iter().map(|(text, tokens)| (2 * text + 1, tokens.as_slice())).collect();
        let ends = match prompts.is_empty() {
            true => Vec::new(),
            false => {
                let most = replay.max_tokens - beginning;
                generate_several::<B, K>(model, &prompts, most, sampling, &*observer)?
            }
        };
        let whole = going.iter().zip(ends).map(|((_, tokens), end)| [tokens.as_slice(), &end].concat());
        let mut passed = Vec::new();
        for mut tokens in ended.into_iter().map(|(_, tokens)| tokens).chain(whole) {
            tokens.pop_if(|token| is_last(token));
            let new = &tokens[prompt.len()..];
            if new.len() >= SHORTEST && !filter.refuses(&encoder.decode(new)?) {
                passed.push(Example::of_text(tokens));
            }
        }
        if let Some(likelihood) = likelihood {
            passed = likelihood.passed::<K>(model, passed)?;
        }
        taken.extend(passed);
        observer.observe(Event::Generating { done: taken.len(), total: replay.documents });
        stop_if_interrupted(observer)?;
    }
    Ok(taken)
}

fn too_few(replay: &Replay, written: usize, taken: usize) -> Error {
    Error::Recipe {
        origin: "replay.documents".into(),
        problem: format!(
            "is {}, but of {written} texts that the model generated only {taken} were accepted: the others name a subject to be \
            unlearned, updated or retained, share word sequences with a document to unlearn, a question or a held-out \
            document, reveal documents to unlearn, or are shorter than {SHORTEST} tokens; ask for fewer, or set it to 0",
            replay.documents
        ),
    }
}

/// Maximum number of tokens generated at once, whose keys and values are cached.
pub fn tokens_in_cache(replay: &Replay) -> usize {
    if replay.documents == 0 { 0 } else { at_once(replay) * replay.max_tokens }
}

/// Maximum number of tokens in a forward pass during generation: the beginnings of a batch.
pub fn tokens_at_once(replay: &Replay) -> usize {
    if replay.documents == 0 { 0 } else { at_once(replay) * BEGINNING.min(replay.max_tokens) }
}

/// Number of texts generated at once: enough for matrix products, within the size of the cache.
pub fn at_once(replay: &Replay) -> usize {
    (TOKENS_AT_ONCE / replay.max_tokens).max(1)
}

/// Texts as long as those that [`write_texts`] will give can be, for a plan; `context` is the longest window.
pub fn stand_ins(replay: &Replay, context: usize) -> Vec<Example> {
    vec![Example::of_text(vec![0; replay.max_tokens.min(context)]); replay.documents]
}
