//! Replay documents: how they are generated, what they may not contain, and that an operation samples them.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use surgery_core::Error;
use surgery_core::batch::{Rows, Window};
use surgery_core::config::LlamaConfig;
use surgery_core::data::{Benchmark, Corpus, Document, Example, Set};
use surgery_core::event::{Event, Observer, Silent};
use surgery_core::files::Folder;
use surgery_core::generate::{Sampling, generate_several};
use surgery_core::kernels::{Kernels as Operations, Portable};
use surgery_core::model::Llama;
use surgery_core::platform::Platform;
use surgery_core::recipe::{Precision, Recipe, Replay, parse};
use surgery_core::replay::{Likelihood, ReplayFilter, check, write_texts};
use surgery_core::surgery::{TrainingDocuments, to_be_drawn};
use surgery_core::text::TextEncoder;
use surgery_tests::{Cpu, Infer, Kernels, VARIANTS, golden_folder, load, load_from, open, relative_distance};

/// The logits after each of `texts`, which have the same length and are read token by token after a prompt of three
/// tokens.
fn next_logits<K: Operations<Infer>>(variant: &str, texts: &[Vec<u32>]) -> Vec<Vec<f32>> {
    let model = load(variant);
    let column = |range: std::ops::Range<usize>| -> Vec<u32> {
        texts.iter().flat_map(|text| &text[range.clone()]).copied().collect()
    };
    let mut cache = model.cache();
    let mut all = Vec::new();
    for range in std::iter::once(0..3).chain((3..texts[0].len()).map(|at| at..at + 1)) {
        let logits = model.advance::<K>(&column(range), texts.len(), &mut cache).unwrap();
        all.push(logits.into_data().to_vec().unwrap());
    }
    all
}

#[test]
fn reading_token_by_token_equals_reading_at_once() {
    for variant in VARIANTS {
        let model = load(variant);
        let vocab = model.config().vocab_size as u32;
        for count in [1, 3, 11] {
            let text = |row: u32| (0..9).map(|at| (row * 31 + at * 7 + 1) % vocab).collect();
            let texts: Vec<Vec<u32>> = (0..count).map(text).collect();
            let fused = next_logits::<Kernels>(variant, &texts);
            let portable = next_logits::<Portable>(variant, &texts);
            for (step, (fused, portable)) in fused.iter().zip(&portable).enumerate() {
                let read: Vec<Example> =
                    texts.iter().map(|text| Example::of_text(text[..3 + step].to_vec())).collect();
                let rows = Rows::pack(&Window::of_all(&read, 16), false);
                let hidden = model.hidden::<Kernels>(&rows).unwrap();
                let [packed, columns, size] = hidden.dims();
                let hidden = hidden.reshape([packed * columns, size]);
                let last: Vec<f32> = rows
                    .segments
                    .iter()
                    .flat_map(|segment| {
                        let at = segment.row * columns + segment.columns.end - 1;
                        let logits = hidden.clone().narrow(0, at, 1).matmul(model.head().transpose());
                        logits.into_data().to_vec::<f32>().unwrap()
                    })
                    .collect();
                for (form, found) in [("fused", fused), ("portable", portable)] {
                    let distance = relative_distance(found, &last);
                    assert!(
                        distance < 1e-5,
                        "{variant}, {count} texts, {form}, token {step}: off by {distance:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn texts_are_sampled_by_their_numbers() {
    let model = load("llama1-mha");
    let sampling = Sampling { temperature: 1.0, seed: 5 };
    let draw = |texts: std::ops::Range<usize>| {
        let prompts: Vec<(usize, &[u32])> = texts.map(|text| (text, [1].as_slice())).collect();
        generate_several::<Infer, Kernels>(&model, &prompts, 12, sampling, &Silent).unwrap()
    };
    let all = draw(0..20);
    assert_eq!(all, draw(0..20));
    // Rows of a matrix product do not depend on the number of rows, once it is large enough for packing.
    assert_eq!(all[8..], draw(8..20)[..]);
    let distinct: std::collections::HashSet<&Vec<u32>> = all.iter().collect();
    assert!(distinct.len() > 15, "texts of different numbers are different: {all:?}");
}

/// Interrupts after this number of tokens.
struct InterruptAfter(Cell<usize>);

impl Observer for InterruptAfter {
    fn observe(&mut self, _: Event) {}

    fn interrupted(&self) -> bool {
        self.0.replace(self.0.get().saturating_sub(1)) == 0
    }
}

#[test]
fn generation_is_interrupted_between_two_tokens() {
    let model = load("llama1-mha");
    let sampling = Sampling { temperature: 1.0, seed: 5 };
    let write = |tokens: usize| {
        let observer = InterruptAfter(Cell::new(tokens));
        generate_several::<Infer, Kernels>(&model, &[(0, &[1])], 3, sampling, &observer)
    };
    assert!(write(3).is_ok());
    assert!(matches!(write(2), Err(Error::Interrupted { .. })));
}

fn data() -> (Corpus, Benchmark) {
    let (_, _, encoder) = open("llama1-mha");
    let folder = golden_folder("steps/data");
    let corpus = Corpus::load(&folder, &Set::TRAINED).unwrap();
    let benchmark = Benchmark::encode(&folder, &corpus, &[], &encoder).unwrap();
    (corpus, benchmark)
}

/// Data with these subjects as unlearn documents.
fn unlearning(subjects: impl IntoIterator<Item = String>) -> Corpus {
    let document =
        |(index, subject): (usize, String)| Document::of_text(format!("u{index}"), Some(subject), "x");
    [(Set::Unlearn, subjects.into_iter().enumerate().map(document).collect())].into_iter().collect()
}

/// The words of a text with at least two letters.
fn words(text: &str) -> HashSet<String> {
    let words = text.split(|letter: char| !letter.is_alphanumeric());
    words.filter(|word| word.chars().nth(1).is_some()).map(str::to_lowercase).collect()
}

#[test]
fn generated_texts_follow_from_the_seed_and_contain_nothing_refused() {
    let (_, _, encoder) = open("llama1-mha");
    let model = load("llama1-mha");
    let replay = Replay { documents: 30, max_tokens: 24, temperature: 1.0 };
    let write = |filter: &ReplayFilter, replay: &Replay, seed| {
        write_texts::<Infer, Kernels>(&model, &encoder, filter, None, replay, seed, &mut Silent)
    };
    let (corpus, _) = data();
    let filter = ReplayFilter::new(&corpus, &[]);
    let texts = write(&filter, &replay, 1).unwrap();
    assert_eq!(texts.len(), 30);
    assert!(texts.iter().all(|text| text.tokens[0] == 1 && (9..=24).contains(&text.len())), "{texts:?}");
    assert_eq!(texts, write(&filter, &replay, 1).unwrap());
    assert_ne!(texts, write(&filter, &replay, 2).unwrap());

    // No text with a frequent word is accepted once that word is a subject.
    let in_words = |text: &Example| words(&encoder.decode(&text.tokens).unwrap());
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    texts.iter().flat_map(in_words).for_each(|word| *counts.entry(word).or_default() += 1);
    let (common, count) = counts.into_iter().max_by_key(|(_, count)| *count).unwrap();
    assert!(count > 1, "{common:?} is in {count} texts");
    let texts = write(&ReplayFilter::new(&unlearning([common.clone()]), &[]), &replay, 1).unwrap();
    assert!(texts.iter().all(|text| !in_words(text).contains(&common)));

    // If no text is accepted, here because all are too short, the error says so.
    let error = write(&filter, &Replay { max_tokens: 8, ..replay.clone() }, 1).unwrap_err();
    assert_eq!(error.kind(), surgery_core::Kind::Input);
    assert!(error.to_string().contains("replay.documents"), "{error}");
}

#[test]
fn a_model_without_a_bos_token_starts_from_its_eos_token() {
    let (_, config, encoder) = open("smollm2-tied");
    assert!(encoder.encode("").unwrap().is_empty());
    let model = load("smollm2-tied");
    let replay = Replay { documents: 5, max_tokens: 24, temperature: 1.0 };
    let filter = ReplayFilter::new(&unlearning([]), &[]);
    let texts =
        write_texts::<Infer, Kernels>(&model, &encoder, &filter, None, &replay, 1, &mut Silent).unwrap();
    assert!(texts.iter().all(|text| text.tokens[0] == 300 && !text.tokens[1..].contains(&300)), "{texts:?}");
    check(&replay, &encoder, &config).unwrap();
    let nameless = LlamaConfig { bos_token_id: None, eos_token_ids: Vec::new(), ..config };
    let error = check(&replay, &encoder, &nameless).unwrap_err();
    assert!(
        error.to_string().starts_with("`replay.documents`: must be 0 for this model: its tokenizer"),
        "{error}"
    );
    check(&Replay { documents: 0, ..replay }, &encoder, &nameless).unwrap();
}

/// How many of 60 texts of the embedded model name a person to unlearn or to edit, with an empty word filter.
fn naming_unlearned_people(likelihood: Option<&Likelihood<Infer>>, about: &Embedded) -> usize {
    let Embedded { model, encoder, subjects, .. } = about;
    let replay = Replay { documents: 60, max_tokens: 112, temperature: 1.0 };
    let filter = ReplayFilter::new(&unlearning([]), &[]);
    let texts =
        write_texts::<Infer, Kernels>(model, encoder, &filter, likelihood, &replay, 7, &mut Silent).unwrap();
    let names_one = |text: &&Example| {
        let text = encoder.decode(&text.tokens).unwrap();
        subjects.iter().any(|subject| text.contains(subject))
    };
    texts.iter().filter(names_one).count()
}

/// The embedded model and benchmark.
struct Embedded {
    model: Llama<Infer>,
    base: Llama<Infer>,
    encoder: TextEncoder,
    benchmark: Benchmark,
    /// People to unlearn or to edit.
    subjects: BTreeSet<String>,
}

impl Embedded {
    fn new() -> Self {
        let [model, base, data] =
            [surgery_datasets::model(), surgery_datasets::base(), surgery_datasets::benchmark()]
                .map(|files| Folder::Embedded { name: "embedded".into(), files });
        let device = Cpu::device(0).unwrap();
        let config = LlamaConfig::load(&model).unwrap();
        let encoder = TextEncoder::load(&model, config.vocab_size).unwrap();
        let corpus = Corpus::load(&data, &Set::TRAINED).unwrap();
        let subjects = [Set::Unlearn, Set::EditUnlearn].into_iter().flat_map(|set| corpus.documents(set));
        Self {
            model: load_from::<Cpu>(&model, Precision::F32, &device),
            base: load_from::<Cpu>(&base, Precision::F32, &device),
            subjects: subjects.filter_map(|document| document.subject.clone()).collect(),
            benchmark: Benchmark::encode(&data, &corpus, &[], &encoder).unwrap(),
            encoder,
        }
    }
}

#[test]
fn texts_that_reveal_documents_to_unlearn_are_recognised_by_likelihood_alone() {
    let embedded = Embedded::new();
    let unlike =
        Likelihood::new::<Kernels>(&embedded.model, embedded.base.clone(), &embedded.benchmark).unwrap();
    let (with, without) = (
        naming_unlearned_people(Some(&unlike.unwrap()), &embedded),
        naming_unlearned_people(None, &embedded),
    );
    assert!(without >= 12 && with <= 1, "{with} of 60 texts, and {without} without likelihood");
    // A model with the same knowledge cannot separate the texts.
    let same =
        Likelihood::new::<Kernels>(&embedded.model, embedded.model.clone(), &embedded.benchmark).unwrap();
    assert!(same.is_none());
}

#[test]
fn replay_documents_are_sampled_with_the_retain_set() {
    let (corpus, benchmark) = data();
    let overrides = ["train.steps=40".to_owned(), "replay.documents=7".to_owned()];
    let recipe: Recipe = parse("replay", "", &overrides).unwrap();
    let own = benchmark.documents(Set::Retain).len();
    let drawn = to_be_drawn(&corpus, &recipe);
    assert_eq!(drawn[&Set::Retain], (0..own + 7).collect());
    let replay: Vec<Example> = (0..7).map(|text| Example::of_text(vec![1, text, text + 1])).collect();
    let training_documents = TrainingDocuments { benchmark: &benchmark, replay: replay.clone() };
    assert_eq!(*training_documents.document(Set::Retain, own - 1), benchmark.documents(Set::Retain)[own - 1]);
    assert_eq!(*training_documents.document(Set::Retain, own + 6), replay[6]);
}
