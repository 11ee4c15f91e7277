//! Texts that the model writes itself before it is operated on, and that it is then held to beside those of the retain
//! set: a rehearsal of what it knows and no text at hand tells (Robins 1995, "Catastrophic forgetting, rehearsal and
//! pseudorehearsal"; for language models arXiv 2403.01244).
//!
//! They are drawn from the model's own distribution, from the token that begins a text. What is to be forgotten must not be
//! among them, or the model would be held to it. A [filter](ReplayFilter) refuses texts by their words: by the names of
//! what is to be forgotten or updated, and by stretches of words of a text to be forgotten, a question or a held-out
//! text. [`Likelihood`] refuses those that a model which has never seen what is to be forgotten finds unlikely, where
//! there is one. Nor is a text gone on with that begins with a subject of the retain set, of which there are texts.
//!
//! Held-out texts are examined, and none of them is written out again; what they tell is rehearsed, in the model's own
//! words, like all else that it knows.

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

/// Tokens of a text that is worth keeping, at least.
const SHORTEST: usize = 8;
/// Tokens of the texts that are written at once.
const TOKENS_AT_ONCE: usize = 16384;
/// Tokens of a text that show what it is about; only then is it gone on with.
const BEGINNING: usize = 24;
/// Texts are begun until there are enough to take, but no more than about so many for each that is wanted.
const TRIES: usize = 20;

/// The tokens that a text of the model's own begins with: those that its tokenizer puts in front of every text. Where it
/// puts none, the token that the configuration names as the first of a text, or else the one that ends a text: such a
/// model has read its texts one after the other, with that token between them. It stays in the text, which the model wrote
/// from there: what a text may begin with is among what is kept.
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

/// Refuses a recipe that asks a model for texts which has no token to begin them with.
pub fn check(replay: &Replay, encoder: &TextEncoder, config: &LlamaConfig) -> Result<()> {
    if replay.documents > 0 { opening(encoder, config).map(drop) } else { Ok(()) }
}

/// The texts that `model` writes, token ids with the one that begins a text: as many as `replay` asks for, of those that
/// neither `filter` nor `likelihood` refuses. One seed, one set of texts.
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
        // Enough beginnings for a batch, or for what is still wanted.
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
            "is {}, and of {written} texts that the model began only {taken} could be taken: the others name what is to be \
             forgotten, updated or retained, have words in common with a text to be forgotten, a question or a held-out \
             text, tell what is to be forgotten, or are shorter than {SHORTEST} tokens; ask for fewer, or set it to 0",
            replay.documents
        ),
    }
}

/// The tokens of texts that are written at once, at most, whose keys and values are in a cache.
pub fn tokens_in_cache(replay: &Replay) -> usize {
    if replay.documents == 0 { 0 } else { at_once(replay) * replay.max_tokens }
}

/// The tokens that a forward pass runs over where texts are written, at most: the beginnings that a batch goes on from.
pub fn tokens_at_once(replay: &Replay) -> usize {
    if replay.documents == 0 { 0 } else { at_once(replay) * BEGINNING.min(replay.max_tokens) }
}

/// How many texts are written at once: enough for matrix products, and no more than a cache should hold.
pub fn at_once(replay: &Replay) -> usize {
    (TOKENS_AT_ONCE / replay.max_tokens).max(1)
}

/// Texts as long as those that [`write_texts`] will give can be, for a plan; `context` is the longest window.
pub fn stand_ins(replay: &Replay, context: usize) -> Vec<Example> {
    vec![Example::of_text(vec![0; replay.max_tokens.min(context)]); replay.documents]
}
