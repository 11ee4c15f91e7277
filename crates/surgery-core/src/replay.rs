//! Texts that the model writes itself before it is operated on, and that it is then held to beside those of the retain
//! set: a rehearsal of what it knows and no text at hand tells (Robins 1995, "Catastrophic forgetting, rehearsal and
//! pseudorehearsal"; for language models arXiv 2403.01244).
//!
//! They are drawn from the model's own distribution, from the token that begins a text. None is taken that names what
//! is to be forgotten or updated, that has a stretch of words in common with a text to be forgotten, or that holds a
//! question of the data: the model would be held to what must go, or trained on what it is examined in.

use std::collections::HashSet;

use aho_corasick::AhoCorasick;
use burn::tensor::backend::Backend;

use crate::data::{Benchmark, Corpus, QuestionSet, Set};
use crate::error::{Error, Result};
use crate::event::{Event, Observer};
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
/// Texts are written until there are enough to take, but no more than so many for each that is wanted.
const TRIES: usize = 5;

/// What texts may not hold.
pub struct Forbidden {
    phrases: AhoCorasick,
    /// How many of the phrases are names, which come first: they count as whole words only.
    names: usize,
    stretches: HashSet<Vec<u32>>,
}

impl Forbidden {
    /// By the documents to be forgotten or learnt, and the questions. A name is a subject as it stands, or its last
    /// word, by which a text goes on about a person.
    pub fn new(corpus: &Corpus, questions: &[QuestionSet], benchmark: &Benchmark) -> Result<Self> {
        let subjects = [Set::Unlearn, Set::EditUnlearn, Set::EditUpdate]
            .into_iter()
            .flat_map(|set| corpus.documents(set))
            .filter_map(|document| document.subject.as_deref());
        let mut names: Vec<&str> = subjects
            .flat_map(|subject| [subject.trim(), subject.split_whitespace().next_back().unwrap_or("")])
            .filter(|name| name.chars().count() >= SHORTEST_NAME)
            .collect();
        names.sort_unstable();
        names.dedup();
        let asked =
            questions.iter().flat_map(|set| &set.questions).map(|question| question.question.as_str());
        let asked = asked.filter(|question| !question.trim().is_empty());
        let phrases = AhoCorasick::new(names.iter().copied().chain(asked)).map_err(|error| Error::Data {
            path: "the questions".into(),
            problem: format!("are too many to be looked for in texts ({error})"),
            remedy: "set `replay.documents = 0`".into(),
        })?;
        let forgotten = [Set::Unlearn, Set::EditUnlearn].into_iter().flat_map(|set| benchmark.documents(set));
        let stretches = forgotten.flat_map(|tokens| tokens.windows(STRETCH)).map(<[u32]>::to_vec).collect();
        Ok(Self { phrases, names: names.len(), stretches })
    }

    /// Whether a text holds any of it,
    /// by its words and its token ids.
    pub fn is_in(&self, text: &str, tokens: &[u32]) -> bool {
        let within_word = |at: Option<char>| at.is_some_and(char::is_alphanumeric);
        let named = self.phrases.find_overlapping_iter(text).any(|found| {
            let is_name = found.pattern().as_usize() < self.names;
            let before = text[..found.start()].chars().next_back();
            let after = text[found.end()..].chars().next();
            !(is_name && (within_word(before) || within_word(after)))
        });
        named || tokens.windows(STRETCH).any(|stretch| self.stretches.contains(stretch))
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
) -> Result<Vec<Vec<u32>>> {
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
    let at_once = at_once(replay);
    let mut taken = Vec::with_capacity(replay.documents);
    let mut written = 0;
    while taken.len() < replay.documents {
        if written >= TRIES * replay.documents {
            return Err(Error::Recipe {
                origin: "replay.documents".into(),
                problem: format!(
                    "is {}, and of {written} texts that the model wrote only {} could be taken: the others name what is to \
                     be forgotten or updated, have much of a text to be forgotten, or are shorter than {SHORTEST} tokens; \
                     ask for fewer, or set it to 0",
                    replay.documents,
                    taken.len()
                ),
            });
        }
        let most = replay.max_tokens - prompt.len();
        let texts = generate_several::<B, K>(model, &prompt, written..written + at_once, most, sampling)?;
        written += at_once;
        for mut new in texts {
            if new.last().is_some_and(|token| model.config().eos_token_ids.contains(token)) {
                new.pop();
            }
            let tokens = [prompt.as_slice(), &new].concat();
            if new.len() >= SHORTEST && !forbidden.is_in(&encoder.decode(&new)?, &tokens) {
                taken.push(tokens);
            }
        }
        taken.truncate(replay.documents);
        observer.observe(Event::Writing { done: taken.len(), total: replay.documents });
        if observer.interrupted() {
            return Err(Error::Interrupted { step: 0, remedy: String::new() });
        }
    }
    Ok(taken)
}

/// The tokens of texts that are written at once, at most, whose keys and values are in a cache.
pub fn tokens_in_cache(replay: &Replay) -> usize {
    if replay.documents == 0 { 0 } else { at_once(replay) * replay.max_tokens }
}

/// How many texts are written at once: enough for matrix products, and no more than a cache should hold.
fn at_once(replay: &Replay) -> usize {
    (TOKENS_AT_ONCE / replay.max_tokens).max(1)
}

/// Texts as long as those that [`write_texts`] will give can be, for a plan.
pub fn stand_ins(replay: &Replay) -> Vec<Vec<u32>> {
    vec![vec![0; replay.max_tokens]; replay.documents]
}
