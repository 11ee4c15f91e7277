//! Multiple choice in the parity suite: the paper's rule and lm-evaluation-harness's.

use serde_json::Value;
use surgery_core::data::{Benchmark, Corpus, EncodedQuestion, Question, QuestionSet, Split};
use surgery_core::evaluate::{Choices, OptionLoss, choose, score_options};
use surgery_core::event::Silent;
use surgery_core::platform::{DeviceOf, Platform};

use crate::parity::{Found, Tolerances, differing, relative, text};
use crate::{golden_folder, load_on, number, open};

/// Compares option scores and choices by the paper's rule with PyTorch's.
pub(crate) fn by_the_paper<P: Platform>(
    device: &DeviceOf<P>,
    case: &Value,
    tolerances: Tolerances,
    found: &mut Found,
) {
    let (mut errors, mut agree) = (Vec::new(), Vec::new());
    for (_, losses, expected) in scored::<P>(device, case) {
        for (option, loss) in losses.iter().enumerate() {
            let mean = loss.paper.mean().expect("an option has tokens");
            errors.push(relative(mean, number(&expected["scores"][option]), 0.0));
            errors.push(relative(-loss.paper.sum, number(&expected["sums"][option]), 0.0));
        }
        let chosen = choose(losses.iter().map(|loss| &loss.paper));
        agree.push(Some(chosen as u64) == expected["prediction"].as_u64());
    }
    let variant = text(&case["model"]);
    found.add(format!("{variant}: scores of options"), tolerances.nll, errors);
    found.add(format!("{variant}: answers that differ"), 0.0, [differing(agree)]);
}

/// Compares log-likelihoods, `acc` and `acc_norm` with lm-evaluation-harness's.
pub(crate) fn by_the_harness<P: Platform>(
    device: &DeviceOf<P>,
    case: &Value,
    tolerances: Tolerances,
    found: &mut Found,
) {
    let (mut errors, mut agree) = (Vec::new(), Vec::new());
    for (question, losses, expected) in scored::<P>(device, case) {
        for (option, loss) in losses.iter().enumerate() {
            errors.push(relative(-loss.harness.sum, number(&expected["likelihoods"][option]), 0.0));
        }
        let Choices { acc, acc_norm, .. } = Choices::of((&question, &losses));
        for (right, rule) in [(acc, "acc"), (acc_norm, "acc_norm")] {
            agree.push(f64::from(u8::from(right)) == number(&expected[rule]));
        }
    }
    let variant = text(&case["model"]);
    found.add(format!("{variant}: log-likelihoods of lm-evaluation-harness"), tolerances.nll, errors);
    found.add(format!("{variant}: acc and acc_norm that differ"), 0.0, [differing(agree)]);
}

/// The questions of a case with their losses and the expected values.
fn scored<'a, P: Platform>(
    device: &DeviceOf<P>,
    case: &'a Value,
) -> impl Iterator<Item = (EncodedQuestion, Vec<OptionLoss>, &'a Value)> {
    let variant = text(&case["model"]);
    let (_, _, encoder) = open(variant);
    let expected = case["questions"].as_array().expect("a list");
    let questions = expected.iter().enumerate().map(question).collect();
    let set = QuestionSet { name: "choice".into(), questions };
    let folder = golden_folder("expected");
    let benchmark = Benchmark::encode(&folder, &Corpus::default(), &[set], &encoder).expect("questions");
    let questions = benchmark.questions.into_iter().next().expect("one set").1;
    let model = load_on::<P>(variant, device);
    let losses = score_options::<P::Infer, P::Kernels>(&model, &questions, &mut Silent).expect("scores");
    questions
        .into_iter()
        .zip(losses)
        .zip(expected)
        .map(|((question, losses), value)| (question, losses, value))
}

/// Parses a question of a case; the first option is right unless one is named.
fn question((number, value): (usize, &Value)) -> Question {
    let options = value["options"].as_array().expect("a list");
    Question {
        id: number.to_string(),
        subject: None,
        question: text(&value["question"]).to_owned(),
        options: options.iter().map(|option| text(option).to_owned()).collect(),
        answer: value["answer"].as_u64().map_or(0, |answer| answer as usize),
        split: Split::Test,
    }
}
