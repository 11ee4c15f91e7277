//! Texts that the model writes itself before it is operated on, and that it is then held to beside those of the retain
//! set: a rehearsal of what it knows and no text at hand tells (Robins 1995, "Catastrophic forgetting, rehearsal and
//! pseudorehearsal"; for language models arXiv 2403.01244).
//!
//! They are drawn from the model's own distribution, from the token that begins a text. None is taken that names what
//! is to be forgotten or updated, that has a stretch of words in common with a text to be forgotten, or that holds a
//! question or a held-out text of the data: the model would be held to what must go, or trained on what it is examined in. Nor is one gone on
//! with that begins with a subject of the retain set, of which there are texts.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use burn::tensor::backend::Backend;

use crate::data::{Benchmark, Corpus, QuestionSet, Set};
use crate::error::{Error, Result};
use crate::event::{Event, Observer, stop_if_interrupted};
use crate::generate::{Sampling, generate_several};
use crate::kernels::Kernels;
use crate::model::Llama;
use crate::recipe::Replay;
use crate::text::TextEncoder;

/// Tokens of a text that is worth keeping, at least.
const SHORTEST: usize = 8;
/// Tokens in a row that no text has in common with one that is to be forgotten.
const STRETCH: usize = 24;
/// Tokens of the texts that are written at once.
const TOKENS_AT_ONCE: usize = 16384;
/// Letters of what is looked for as a name, at least.
const SHORTEST_NAME: usize = 3;
/// Tokens of a text that show what it is about; only then is it gone on with.
const BEGINNING: usize = 24;
/// Texts are begun until there are enough to take, but no more than about so many for each that is wanted.
const TRIES: usize = 20;

/// What texts may not hold.
pub struct Forbidden {
    phrases: AhoCorasick,
    /// What each of the phrases is.
    kinds: Vec<Phrase>,
    stretches: HashSet<Vec<u32>>,
}

/// What a phrase is that is looked for in a text. Names count as whole words only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phrase {
    /// A subject to be forgotten or updated.
    Name,
    /// A subject of the retain set.
    Kept,
    /// What the model is examined in: a question, or a text that is held out.
    Examined,
}

impl Forbidden {
    /// By the documents and the questions of the data. What names a subject is the subject as it stands; one that is to be forgotten or
    /// updated is also named by its last word, by which a text goes on about a person.
    pub fn new(corpus: &Corpus, questions: &[QuestionSet], benchmark: &Benchmark) -> Result<Self> {
        let of_set =
            |set: Set| corpus.documents(set).iter().filter_map(|document| document.subject.as_deref());
        let names = [Set::Unlearn, Set::EditUnlearn, Set::EditUpdate]
            .into_iter()
            .flat_map(of_set)
            .flat_map(|subject| [subject.trim(), subject.split_whitespace().next_back().unwrap_or("")])
            .map(|name| (Phrase::Name, name));
        let kept = of_set(Set::Retain).map(|subject| (Phrase::Kept, subject.trim()));
        let mut phrases: Vec<(Phrase, &str)> =
            names.chain(kept).filter(|(_, name)| name.chars().count() >= SHORTEST_NAME).collect();
        let asked =
            questions.iter().flat_map(|set| &set.questions).map(|question| question.question.as_str());
        let asked = asked.filter(|question| !question.trim().is_empty());
        let held_out = corpus.documents(Set::RetainHeldout).iter().map(|document| document.text.as_str());
        phrases.extend(asked.chain(held_out).map(|text| (Phrase::Examined, text)));
        phrases.sort_unstable();
        phrases.dedup();
        let (kinds, phrases): (Vec<Phrase>, Vec<&str>) = phrases.into_iter().unzip();
        let phrases = AhoCorasick::new(phrases).map_err(|error| Error::Data {
            path: "the questions".into(),
            problem: format!("are too many to be looked for in texts ({error})"),
            remedy: "set `replay.documents = 0`".into(),
        })?;
        let forgotten = [Set::Unlearn, Set::EditUnlearn].into_iter().flat_map(|set| benchmark.documents(set));
        let stretches = forgotten.flat_map(|tokens| tokens.windows(STRETCH)).map(<[u32]>::to_vec).collect();
        Ok(Self { phrases, kinds, stretches })
    }

    /// Whether a text holds any of it, by its words and its token ids.
    pub fn is_in(&self, text: &str, tokens: &[u32]) -> bool {
        self.has(text, |kind| kind != Phrase::Kept)
            || tokens.windows(STRETCH).any(|stretch| self.stretches.contains(stretch))
    }

    /// Whether a text that begins like this need not be gone on with.
    pub fn is_in_beginning(&self, text: &str) -> bool {
        self.has(text, |_| true)
    }

    fn has(&self, text: &str, counts: impl Fn(Phrase) -> bool) -> bool {
        let within_word = |at: Option<char>| at.is_some_and(char::is_alphanumeric);
        self.phrases.find_overlapping_iter(text).any(|found| {
            let kind = self.kinds[found.pattern().as_usize()];
            let before = text[..found.start()].chars().next_back();
            let after = text[found.end()..].chars().next();
            counts(kind) && (kind == Phrase::Examined || !(within_word(before) || within_word(after)))
        })
    }
}

/// The texts that `model` writes, token ids with the one that begins a text: as many as `replay` asks for. One seed, one
/// set of texts.
pub fn write_texts<B: Backend, K: Kernels<B>>(
    model: &Llama<B>,
    encoder: &TextEncoder,
    forbidden: &Forbidden,
    replay: &Replay,
    seed: u64,
    observer: &mut dyn Observer,
) -> Result<Vec<Arc<[u32]>>> {
    let prompt = encoder.encode("")?;
    if replay.documents > 0 && prompt.is_empty() {
        return Err(Error::Recipe {
            origin: "replay.documents".into(),
            problem: "is not 0, and the model's tokenizer has no token that begins a text, which it would write from; set \
                      it to 0"
                .into(),
        });
    }
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
            let new =
                generate_several::<B, K>(model, &prompts, beginning.saturating_sub(prompt.len()), sampling)?;
            for (text, new) in (written..).zip(new) {
                if !forbidden.is_in_beginning(&encoder.decode(&new)?) {
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
            false => generate_several::<B, K>(model, &prompts, replay.max_tokens - beginning, sampling)?,
        };
        let whole = going.iter().zip(ends).map(|((_, tokens), end)| [tokens.as_slice(), &end].concat());
        for mut tokens in ended.into_iter().map(|(_, tokens)| tokens).chain(whole) {
            tokens.pop_if(|token| is_last(token));
            let new = &tokens[prompt.len()..];
            if new.len() >= SHORTEST && !forbidden.is_in(&encoder.decode(new)?, &tokens) {
                taken.push(tokens.into());
            }
        }
        observer.observe(Event::Writing { done: taken.len(), total: replay.documents });
        stop_if_interrupted(observer)?;
    }
    Ok(taken)
}

fn too_few(replay: &Replay, written: usize, taken: usize) -> Error {
    Error::Recipe {
        origin: "replay.documents".into(),
        problem: format!(
            "is {}, and of {written} texts that the model began only {taken} could be taken: the others name what is to be \
             forgotten, updated or retained, have much of a text to be forgotten, or are shorter than {SHORTEST} tokens; ask \
             for fewer, or set it to 0",
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
pub fn stand_ins(replay: &Replay, context: usize) -> Vec<Arc<[u32]>> {
    vec![vec![0; replay.max_tokens.min(context)].into(); replay.documents]
}
