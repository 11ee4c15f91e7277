//! Texts that a model writes to be kept: what they are, what they may not hold, and that an operation draws them.

use std::collections::HashMap;
use std::sync::Arc;

use surgery_core::batch::Rows;
use surgery_core::data::{Benchmark, Corpus, Document, Question, QuestionSet, Set, Split};
use surgery_core::event::Silent;
use surgery_core::generate::{Sampling, generate_several};
use surgery_core::kernels::{Kernels as Operations, Portable};
use surgery_core::recipe::{Recipe, Replay, parse};
use surgery_core::replay::{Forbidden, write_texts};
use surgery_core::surgery::{Drawable, retain_to_be_drawn};
use surgery_tests::{Infer, Kernels, VARIANTS, golden_folder, load, open, relative_distance};

/// The logits after each of `texts`, all as long, given token by token after a prompt of three.
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
fn texts_go_on_token_by_token_as_if_read_at_once() {
    for variant in VARIANTS {
        let model = load(variant);
        let vocab = model.config().vocab_size as u32;
        for count in [1, 3, 11] {
            let text = |row: u32| (0..9).map(|at| (row * 31 + at * 7 + 1) % vocab).collect();
            let texts: Vec<Vec<u32>> = (0..count).map(text).collect();
            let fused = next_logits::<Kernels>(variant, &texts);
            let portable = next_logits::<Portable>(variant, &texts);
            for (step, (fused, portable)) in fused.iter().zip(&portable).enumerate() {
                let read: Vec<&[u32]> = texts.iter().map(|text| &text[..3 + step]).collect();
                let rows = Rows::pack(&read, 16, false);
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
fn several_texts_are_drawn_by_their_numbers() {
    let model = load("llama1-mha");
    let sampling = Sampling { temperature: 1.0, seed: 5 };
    let draw = |texts: std::ops::Range<usize>| {
        let prompts: Vec<(usize, &[u32])> = texts.map(|text| (text, [1].as_slice())).collect();
        generate_several::<Infer, Kernels>(&model, &prompts, 12, sampling).unwrap()
    };
    let all = draw(0..20);
    assert_eq!(all, draw(0..20));
    // Rows of a product of matrices are computed alike in any number that is worth packing.
    assert_eq!(all[8..], draw(8..20)[..]);
    let distinct: std::collections::HashSet<&Vec<u32>> = all.iter().collect();
    assert!(distinct.len() > 15, "texts of different numbers are different: {all:?}");
}

fn data() -> (Corpus, Benchmark) {
    let (_, _, encoder) = open("llama1-mha");
    let folder = golden_folder("steps/data");
    let corpus = Corpus::load(&folder, &Set::TRAINED).unwrap();
    let benchmark = Benchmark::encode(&folder, &corpus, &[], &encoder).unwrap();
    (corpus, benchmark)
}

#[test]
fn what_is_written_is_what_the_seed_says_and_holds_nothing_forbidden() {
    let (_, _, encoder) = open("llama1-mha");
    let (corpus, benchmark) = data();
    let model = load("llama1-mha");
    let replay = Replay { documents: 30, max_tokens: 24, temperature: 1.0 };
    let write = |forbidden: &Forbidden, seed| {
        write_texts::<Infer, Kernels>(&model, &encoder, forbidden, &replay, seed, &mut Silent)
    };
    let forbidden = Forbidden::new(&corpus, &[], &benchmark).unwrap();
    let texts = write(&forbidden, 1).unwrap();
    assert_eq!(texts.len(), 30);
    assert!(texts.iter().all(|text| text[0] == 1 && (9..=24).contains(&text.len())), "{texts:?}");
    assert_eq!(texts, write(&forbidden, 1).unwrap());
    assert_ne!(texts, write(&forbidden, 2).unwrap());

    // Of a word that the model writes often, none is taken once it is a question.
    let decoded: Vec<String> = texts.iter().map(|text| encoder.decode(text).unwrap()).collect();
    let mut counts: HashMap<char, usize> = HashMap::new();
    for letter in decoded.iter().flat_map(|text| text.chars().collect::<std::collections::BTreeSet<_>>()) {
        *counts.entry(letter).or_default() += 1;
    }
    let (common, count) = counts
        .into_iter()
        .filter(|(letter, count)| letter.is_ascii_alphanumeric() && *count < 25)
        .max_by_key(|(_, n)| *n)
        .unwrap();
    assert!(count > 3, "{common:?} is in {count} texts");
    let question = Question {
        id: "q".into(),
        subject: None,
        question: common.to_string(),
        options: vec!["a".into(), "b".into()],
        answer: 0,
        split: Split::Test,
    };
    let asked = |questions| vec![QuestionSet { name: "asked".into(), questions }];
    let forbidden = Forbidden::new(&corpus, &asked(vec![question.clone()]), &benchmark).unwrap();
    let texts = write(&forbidden, 1).unwrap();
    assert!(texts.iter().all(|text| !encoder.decode(text).unwrap().contains(common)));

    // Where next to nothing may be taken, it is said.
    let letters = ('a'..='z').chain('0'..='9').chain([' ']);
    let all = letters.map(|letter| Question { question: letter.to_string(), ..question.clone() }).collect();
    let forbidden = Forbidden::new(&corpus, &asked(all), &benchmark).unwrap();
    let error = write(&forbidden, 1).unwrap_err();
    assert_eq!(error.kind(), surgery_core::Kind::Input);
    assert!(error.to_string().contains("replay.documents"), "{error}");
}

#[test]
fn names_count_as_words_and_texts_to_be_forgotten_by_their_stretches() {
    let (_, _, encoder) = open("llama1-mha");
    let document = |id: &str, subject: Option<&str>, text: &str| Document {
        id: id.into(),
        subject: subject.map(str::to_owned),
        text: text.into(),
    };
    let long =
        "a text of some length, which goes on and on about the sea, the sand and the wind over both of them";
    let corpus: Corpus = [
        (Set::Unlearn, vec![document("u", Some("Ada van Quell"), "x"), document("v", None, long)]),
        (Set::EditUpdate, vec![document("e", Some("Bo"), "y")]),
        (Set::Retain, vec![document("r", Some("Orrin Hale"), "z")]),
        (Set::RetainHeldout, vec![document("h", Some("Zinc"), "Zinc is a metal.")]),
    ]
    .into_iter()
    .collect();
    let benchmark = Benchmark::encode(&golden_folder("steps/data"), &corpus, &[], &encoder).unwrap();
    let forbidden = Forbidden::new(&corpus, &[], &benchmark).unwrap();
    let is_in = |text: &str| forbidden.is_in(text, &encoder.encode(text).unwrap());
    assert!(is_in("Of Ada van Quell it is said"));
    assert!(is_in("Quell's house"));
    assert!(!is_in("Quelle and Ada"));
    assert!(!is_in("Orrin Hale"), "what is kept may be named");
    assert!(forbidden.is_in_beginning("Orrin Hale was"), "what is kept has texts of its own");
    assert!(!forbidden.is_in_beginning("Hale was"));
    assert!(!is_in("Bo"), "two letters are no name to look for");
    assert!(is_in("Tin is one. Zinc is a metal. So is lead."), "a held-out text");
    assert!(!is_in("Zinc is one."), "what is held out may be told of in other words");
    assert!(is_in(long));
    assert!(is_in(&long[3..]));
    assert!(!is_in("about the sea, the sand"));
}

#[test]
fn what_was_written_is_drawn_among_the_retain_set() {
    let (corpus, benchmark) = data();
    let overrides = ["train.steps=40".to_owned(), "replay.documents=7".to_owned()];
    let recipe: Recipe = parse("replay", "", &overrides).unwrap();
    let own = benchmark.documents(Set::Retain).len();
    let drawn = retain_to_be_drawn(&corpus, &recipe);
    assert_eq!(drawn, (0..own + 7).collect());
    let written: Vec<Arc<[u32]>> = (0..7).map(|text| [1, text, text + 1].into()).collect();
    let drawable = Drawable { benchmark: &benchmark, written: written.clone() };
    assert_eq!(drawable.document(Set::Retain, own - 1), benchmark.documents(Set::Retain)[own - 1]);
    assert_eq!(*drawable.document(Set::Retain, own + 6), *written[6]);
}
