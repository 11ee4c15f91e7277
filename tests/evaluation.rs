//! Evaluation against PyTorch and transformers: perplexity, multiple choice, KL.

use surgery_core::data::{Benchmark, Corpus, EncodedQuestion, Question, QuestionSet, Split};
use surgery_core::evaluate::{choose, evaluate, score_options};
use surgery_core::event::Silent;
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
        }
    }
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
    let reference = load(expected["reference"].as_str().unwrap());
    let found =
        evaluate::<Infer, Kernels>(&load(variant), &benchmark, Some(&reference), &mut Silent).unwrap();

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

#[test]
fn a_model_does_not_diverge_from_itself() {
    let (_, _, encoder) = open("llama3-gqa");
    let folder = golden_folder("steps/data");
    let corpus = Corpus::load(&folder, &[]).unwrap();
    let benchmark = Benchmark::encode(&folder, &corpus, &[], &encoder).unwrap();
    let model = load("llama3-gqa");
    let found = evaluate::<Infer, Kernels>(&model, &benchmark, Some(&model), &mut Silent).unwrap();
    assert_eq!(found.kl["retain"], 0.0);
    assert_eq!(found.minus(&found).perplexity["unlearn"].corpus, 0.0);
}
