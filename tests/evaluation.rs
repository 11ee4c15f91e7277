//! Evaluation against PyTorch and transformers: perplexity, multiple choice, KL.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surgery_core::data::{Benchmark, Corpus, EncodedQuestion, Question, QuestionSet, Split};
use surgery_core::evaluate::{Against, Choices, choose, context, evaluate, score_options};
use surgery_core::event::Silent;
use surgery_core::kernels::Portable;
use surgery_core::model::Llama;
use surgery_core::reference::{Cached, Live, Reference, Store};
use surgery_core::text::TextEncoder;
use surgery_tests::{Infer, Kernels, assert_close, golden_folder, golden_json, load, number, open};

#[test]
fn multiple_choice_agrees_with_transformers() {
    for case in golden_json("expected/choice.json").as_array().unwrap() {
        let variant = case["model"].as_str().unwrap();
        let (_, _, encoder) = open(variant);
        let expected = case["questions"].as_array().unwrap();
        let questions: Vec<Question> = expected.iter().enumerate().map(question).collect();
        let encoded = encode(questions, &encoder);
        let found = score_options::<Infer, Kernels>(&load(variant), &encoded, &mut Silent).unwrap();
        for (number_of, (found, expected)) in found.iter().zip(expected).enumerate() {
            let what = format!("{variant}, question {number_of}");
            for (option, loss) in found.iter().enumerate() {
                assert_close(&what, loss.mean().unwrap(), number(&expected["scores"][option]), 2e-5, 0.0);
                assert_close(&what, -loss.sum, number(&expected["sums"][option]), 2e-5, 0.0);
            }
            assert_eq!(choose(found) as u64, expected["prediction"].as_u64().unwrap(), "{what}");
            // The harness's rules, from PyTorch's log-likelihoods: of an option, and of one per character.
            let likelihoods = expected["sums"].as_array().unwrap().iter().map(number);
            let lengths = expected["options"].as_array().unwrap().iter().map(|o| o.as_str().unwrap().chars());
            let per_character = likelihoods.clone().zip(lengths).map(|(sum, text)| sum / text.count() as f64);
            let answers = [highest(likelihoods), highest(per_character)];
            let choices = Choices::of((&encoded[number_of], found));
            assert_eq!([choices.acc, choices.acc_norm], answers.map(|answer| answer == 0), "{what}");
        }
    }
}

/// The index of the highest value.
fn highest(values: impl Iterator<Item = f64>) -> usize {
    values.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).unwrap().0
}

fn question((number, value): (usize, &serde_json::Value)) -> Question {
    let options = value["options"].as_array().unwrap();
    Question {
        id: number.to_string(),
        subject: None,
        question: value["question"].as_str().unwrap().to_owned(),
        options: options.iter().map(|option| option.as_str().unwrap().to_owned()).collect(),
        answer: 0,
        split: Split::Test,
    }
}

fn encode(questions: Vec<Question>, encoder: &TextEncoder) -> Vec<EncodedQuestion> {
    let set = QuestionSet { name: "choice".into(), questions };
    let folder = golden_folder("expected");
    let benchmark = Benchmark::encode(&folder, &Corpus::default(), &[set], encoder).unwrap();
    benchmark.questions.into_iter().next().unwrap().1
}

#[test]
fn an_evaluation_agrees_with_pytorch() {
    let expected = golden_json("expected/eval.json");
    let variant = expected["model"].as_str().unwrap();
    let (_, _, encoder) = open(variant);
    let folder = golden_folder(expected["data"].as_str().unwrap());
    let corpus = Corpus::load(&folder, &[]).unwrap();
    let questions = QuestionSet::load_all(&folder).unwrap();
    let benchmark = Benchmark::encode(&folder, &corpus, &questions, &encoder).unwrap();
    let mut reference = Live::<Infer, Kernels>::new(load(expected["reference"].as_str().unwrap()));
    let against = Against::Reference(&mut reference);
    let found = evaluate::<Infer, Kernels>(&load(variant), &benchmark, against, &mut Silent).unwrap();

    let perplexities = expected["perplexity"].as_object().unwrap();
    assert_eq!(found.perplexity.len(), perplexities.len());
    for (set, expected) in perplexities {
        let found = found.perplexity[set];
        for (key, found) in [("mean", found.mean), ("corpus", found.corpus), ("median", found.median)] {
            assert_close(&format!("{set}, {key}"), found, number(&expected[key]), 1e-4, 0.0);
        }
    }
    let accuracies = expected["accuracy"].as_object().unwrap();
    assert_eq!(found.accuracy.len(), accuracies.len());
    for (set, expected) in accuracies {
        let found = found.accuracy[set];
        for (key, found) in [("validation", found.validation), ("test", found.test)] {
            match found {
                Some(found) => {
                    assert_close(&format!("{set}, {key}"), found, number(&expected[key]), 1e-6, 0.0)
                }
                None => assert!(expected[key].is_null(), "{set}, {key}"),
            }
        }
    }
    assert_close("kl", found.kl["retain"], number(&expected["kl"]["retain"]), 1e-4, 0.0);
}

fn documents_of(variant: &str) -> Benchmark {
    let (_, _, encoder) = open(variant);
    let folder = golden_folder("steps/data");
    let corpus = Corpus::load(&folder, &[]).unwrap();
    Benchmark::encode(&folder, &corpus, &[], &encoder).unwrap()
}

#[test]
fn a_model_does_not_diverge_from_itself() {
    let benchmark = documents_of("llama3-gqa");
    let model = load("llama3-gqa");
    let mut live = Live::<Infer, Kernels>::new(model.clone());
    let measure = |against: Against<Infer>| {
        evaluate::<Infer, Kernels>(&model, &benchmark, against, &mut Silent).unwrap()
    };
    let computed = measure(Against::Reference(&mut live));
    assert_eq!(computed.kl["retain"], 0.0);
    assert_eq!(computed.minus(&computed).perplexity["unlearn"].corpus, 0.0);
    assert_eq!(measure(Against::Itself(&mut live)), computed, "what is known is what would be computed");
}

#[test]
fn states_remembered_before_give_the_divergence_after() {
    let benchmark = documents_of("llama1-mha");
    let (was, is) = (load("llama1-mha"), load("llama1-mha-perturbed"));
    let mut cached = Cached::<Infer, Kernels>::new(&was, Store::in_memory());
    cached.want(benchmark.kept(), context(was.config()));
    let itself = Against::Itself(&mut cached);
    evaluate::<Infer, Kernels>(&was, &benchmark, itself, &mut Silent).unwrap();
    let measure = |reference: &mut dyn Reference<Infer>| {
        let against = Against::Reference(reference);
        evaluate::<Infer, Kernels>(&is, &benchmark, against, &mut Silent).unwrap()
    };
    let found = measure(&mut cached);
    assert!(found.kl["retain"] > 0.0 && found.kl["retain_heldout"] > 0.0);
    assert_eq!(found, measure(&mut Live::<Infer, Kernels>::new(was)), "bit for bit");
}

/// A question whose options begin with the same `shared` random tokens and go on for these lengths, the first
/// `common` tokens of that alike too; of each, what comes after the shared tokens counts.
fn random_question(dice: &mut ChaCha8Rng, shared: usize, common: usize, own: &[usize]) -> EncodedQuestion {
    let mut tokens = |count| -> Vec<u32> { (0..count).map(|_| dice.random_range(3..200)).collect() };
    let beginning = tokens(shared + common);
    let option = |&own: &usize| {
        let text = [&beginning[..], &tokens(own)].concat();
        let counted = shared.max(1)..text.len();
        (text, counted)
    };
    EncodedQuestion {
        options: own.iter().map(option).collect(),
        characters: vec![1; own.len()],
        answer: 0,
        split: Split::Test,
    }
}

/// Holds options that share their beginning to the same options each by itself.
fn assert_sharing_changes_nothing<K: surgery_core::kernels::Kernels<Infer>>(
    what: &str,
    model: &Llama<Infer>,
    questions: &[EncodedQuestion],
) {
    let by_itself =
        |option: &(Vec<u32>, _)| EncodedQuestion { options: vec![option.clone()], ..questions[0].clone() };
    let singles: Vec<EncodedQuestion> =
        questions.iter().flat_map(|question| question.options.iter().map(by_itself)).collect();
    let together = score_options::<Infer, K>(model, questions, &mut Silent).unwrap();
    let apart = score_options::<Infer, K>(model, &singles, &mut Silent).unwrap();
    for (number, (found, expected)) in together.iter().flatten().zip(apart.iter().flatten()).enumerate() {
        let what = format!("{what}, option {number}");
        assert_eq!(found.tokens, expected.tokens, "{what}");
        assert_eq!(found.tokens, singles[number].options[0].1.len(), "{what}");
        assert_close(&what, found.sum, expected.sum, 1e-5, 0.0);
    }
}

#[test]
fn options_that_share_their_beginning_score_as_each_by_itself() {
    for variant in ["llama1-mha", "tinyllama-gqa", "llama3-gqa", "mqa", "smollm2-tied"] {
        let model = load(variant);
        let length = context(model.config());
        let mut dice = ChaCha8Rng::seed_from_u64(7);
        let mut questions: Vec<EncodedQuestion> = (0..30)
            .map(|_| {
                let own: Vec<usize> = (0..dice.random_range(2..6)).map(|_| dice.random_range(1..9)).collect();
                let (shared, common) = (dice.random_range(1..40), dice.random_range(0..3));
                random_question(&mut dice, shared, common, &own)
            })
            .collect();
        for (shared, common, own) in [
            (1, 0, [3, 4, 1]),
            (0, 0, [3, 4, 2]),
            // The first option is what the others begin with; then all are the same.
            (9, 2, [0, 3, 1]),
            (9, 2, [0, 0, 0]),
            (1, 1, [0, 0, 5]),
            // Some are longer than the context, by one token and by windows.
            (length - 3, 0, [3, 3, 4]),
            (length, 1, [5, 2, 1]),
            (9, 0, [2 * length, 1, 3]),
        ] {
            questions.push(random_question(&mut dice, shared, common, &own));
        }
        // Tokens after those that count belong to no loss.
        for (text, _) in &mut questions[0].options {
            text.extend([5, 6, 7]);
        }
        assert_sharing_changes_nothing::<Kernels>(&format!("{variant}, one row"), &model, &questions);
        assert_sharing_changes_nothing::<Portable>(&format!("{variant}, rows"), &model, &questions);
    }
}
