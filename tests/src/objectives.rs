//! Every forget loss and keep loss compared with PyTorch: the values of four steps, and the change of the weights.

use std::sync::Arc;

use serde_json::Value;
use surgery_core::burn::module::AutodiffModule;
use surgery_core::burn::tensor::{DType, Tensor, TensorData};
use surgery_core::data::{Example, Set};
use surgery_core::kernels::{HeadKernels, Predictions, TokenLoss};
use surgery_core::model::Llama;
use surgery_core::objective::forget::ForgetLoss;
use surgery_core::objective::forget::rmu::RmuLoss;
use surgery_core::objective::weighing::{Measured, Tokens, Use};
use surgery_core::objective::{Objective, StepObjective, Weighing};
use surgery_core::optimizer::{AdamW, OptimizerConfig};
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::reference::Live;
use surgery_core::step::{StepDocument, StepDocuments, gradients, update};
use surgery_core::token_nll::NllTable;

use crate::parity::{Found, Tolerances, changes, relative, text};
use crate::{golden_json, ids, load_on, number, relative_distance, values_of};

/// The cases, by the names of their files.
pub const CASES: [&str; 15] = [
    "ascent",
    "ascent-nll",
    "ce_u",
    "dpo",
    "npo",
    "npo-field",
    "pdu",
    "pdu-nll",
    "rmu",
    "rmu-hidden",
    "rmu-hidden-update",
    "satimp",
    "simnpo",
    "undial",
    "wga",
];

/// Longer than every document.
const CONTEXT: usize = 64;

/// Settings that must not change the result of a step: the maximum number of tokens of a batch, and recomputation.
const WAYS: [(usize, bool); 2] = [(usize::MAX, false), (50, true)];

/// Cases that reach every operation: an alternative, both kinds of target distribution, the spread of logits, and states of
/// a block.
const FEW: [&str; 5] = ["ce_u", "dpo", "pdu", "rmu-hidden-update", "undial"];

/// Measures the losses of tokens, and the cases: all of them in every way, or a few in one way, since a GPU compiles again
/// for each shape.
pub(crate) fn measure<P: Platform>(
    device: &DeviceOf<P>,
    is_thorough: bool,
    tolerances: Tolerances,
    found: &mut Found,
) {
    let (cases, ways) = if is_thorough { (&CASES[..], &WAYS[..]) } else { (&FEW[..], &WAYS[..1]) };
    for case in cases {
        let expected = golden_json(&format!("objectives/{case}.json"));
        for &way in ways {
            steps::<P>(device, case, &expected, way, tolerances, found);
        }
    }
    tokens::<P>(device, tolerances, found);
}

fn example(value: &Value) -> Example {
    let range = |range: &Value| {
        let ends = ids(range);
        ends[0] as usize..ends[1] as usize
    };
    let alternative = value.get("alternative").filter(|alternative| !alternative.is_null());
    Example {
        tokens: ids(&value["tokens"]),
        predicted: value["predicted"].as_array().expect("ranges").iter().map(range).collect(),
        alternatives: alternative.map(example).into_iter().collect(),
    }
}

/// The objective of a case on its model, with the direction that the case gives.
fn objective<P: Platform>(expected: &Value, model: &Llama<P::Infer>) -> StepObjective {
    let section: Objective =
        serde_json::from_value(expected["objective"].clone()).expect("an objective's section");
    let objective = section.for_model(model.config(), 0);
    let Some(u) = expected["u"].as_array() else { return objective };
    let target: Arc<[f32]> = u.iter().map(|u| (section.rmu.coefficient * number(u)) as f32).collect();
    let block = section.rmu.block(model.config().num_hidden_layers);
    objective.with_forget_loss(Box::new(RmuLoss { block, target }))
}

fn steps<P: Platform>(
    device: &DeviceOf<P>,
    case: &str,
    expected: &Value,
    (batch_tokens, recompute): (usize, bool),
    tolerances: Tolerances,
    found: &mut Found,
) {
    let before = load_on::<P>(text(&expected["model"]), device);
    let mut objective = objective::<P>(expected, &before);
    let steps = expected["steps"].as_array().expect("steps").iter();
    let steps: Vec<(Vec<(Set, Example)>, &Value)> = steps
        .map(|step| {
            let documents = step["documents"].as_array().expect("documents").iter();
            let set = |document: &Value| serde_json::from_value(document["set"].clone()).expect("a set");
            (documents.map(|document| (set(document), example(document))).collect(), &step["expected"])
        })
        .collect();
    let all = steps.iter().flat_map(|(documents, _)| documents).map(|(_, example)| example);
    let all = all.flat_map(|example| std::iter::once(example).chain(&example.alternatives));
    let nll = NllTable::of::<P::Infer, P::Kernels>(&before, all, CONTEXT).expect("the reference's NLL");
    let mut reference = Live::<P::Infer, P::Kernels>::new(before.clone());
    let settings: OptimizerConfig = serde_json::from_value(expected["optimizer"].clone()).expect("a section");
    let (rate, mut optimizer) = (settings.learning_rate, AdamW::new(settings));
    let mut model = Llama::<P::Train>::trainable(before.clone());
    let mut errors = Vec::new();
    for (number, (documents, expected)) in (1..).zip(&steps) {
        let documents =
            documents.iter().map(|(set, example)| StepDocument { set: *set, example, alternative: 0 });
        let step = StepDocuments {
            documents: documents.collect(),
            context: CONTEXT,
            batch_tokens,
            recompute,
            bounds: None,
            reference_nll: Some(&nll),
        };
        let graded = gradients::<P::Train, P::Kernels>(&model, &step, &objective, Some(&mut reference))
            .expect("gradients");
        let record = graded.record;
        errors.extend(figures(&record, expected));
        objective.set_lambda(objective.next_lambda(&record.terms));
        model =
            update::<P::Train, P::Kernels>(model, graded, &mut optimizer, rate, number).expect("a step").0;
    }
    if let Some(lambda) = expected["lambda_after"].as_f64() {
        errors.push(relative(objective.lambda().expect("of pdu"), lambda, 0.01));
    }
    let way = if recompute { ", in batches, recomputed" } else { "" };
    found.add(format!("objective {case}{way}: figures of the steps"), tolerances.figures, errors);
    let file = format!("objectives/{case}.safetensors");
    let errors = changes::<P>(case, &before, &model.valid(), &file);
    found.add(format!("objective {case}{way}: change of the weights"), tolerances.changes, errors);
}

/// The errors of the values of a step.
fn figures(record: &surgery_core::step::StepRecord, expected: &Value) -> Vec<f64> {
    let terms = record.terms;
    let figures = [
        ("loss", Some(record.loss)),
        ("forget", terms.forget),
        ("unlearn", terms.unlearn),
        ("edit_unlearn", terms.edit_unlearn),
        ("edit_update", terms.edit_update),
        ("keep", terms.keep),
        ("lambda", terms.lambda),
        ("grad_norm", Some(record.grad_norm)),
    ];
    let error = |(key, figure): (&str, Option<f64>)| match (figure, expected[key].as_f64()) {
        (Some(figure), Some(wanted)) => relative(figure, wanted, 0.01),
        (None, None) => 0.0,
        (figure, wanted) => panic!("{key}: {figure:?} where PyTorch has {wanted:?}"),
    };
    figures.into_iter().map(error).collect()
}

/// The loss of each token and the gradient of their sum with respect to logits: the head's matrix is the identity.
fn tokens<P: Platform>(device: &DeviceOf<P>, tolerances: Tolerances, found: &mut Found) {
    let expected = golden_json("objectives/tokens.json");
    let rows = |value: &Value| -> Vec<f32> {
        let rows = value.as_array().expect("rows").iter().flat_map(|row| row.as_array().expect("a row"));
        rows.map(|value| number(value) as f32).collect()
    };
    let (tokens, logits, reference) =
        (ids(&expected["tokens"]), rows(&expected["logits"]), rows(&expected["reference"]));
    let count = tokens.len();
    let vocab = logits.len() / count;
    let tensor = |values: Vec<f32>, shape: [usize; 2]| {
        Tensor::<P::Infer, 2>::from_data(TensorData::new(values, shape), (device, DType::F32))
    };
    let identity: Vec<f32> =
        (0..vocab * vocab).map(|at| if at % (vocab + 1) == 0 { 1.0 } else { 0.0 }).collect();
    let head = || tensor(identity.clone(), [vocab, vocab]);
    let run = |loss: TokenLoss, coefficients: Vec<f32>| {
        let predictions = Predictions {
            loss,
            positions: (0..count).collect(),
            tokens: tokens.clone(),
            coefficients,
            is_nll_wanted: true,
            reference: Some((tensor(reference.clone(), [count, vocab]), head())),
        };
        let graded = <P::Kernels as HeadKernels<P::Infer>>::head_gradient(
            tensor(logits.clone(), [count, vocab]),
            head(),
            &[predictions],
        );
        (graded.losses[0].clone(), values_of(graded.hidden))
    };
    for case in expected["cases"].as_array().expect("cases") {
        let name = text(&case["forget"]);
        let section = serde_json::json!({ "forget": name, name: case["parameters"] });
        let section: Objective = serde_json::from_value(section).expect("a section");
        let config = load_on::<P>("llama1-mha", device).config().clone();
        let objective = section.for_model(&config, 0);
        let Use::Logits(loss) = objective.usage(Set::Unlearn) else { panic!("{name} is a loss of logits") };
        let (measured, mut gradient) = run(loss, vec![1.0; count]);
        let mut losses = measured.loss.clone();
        if loss == TokenLoss::Nll {
            let own = Tokens { count, nll: measured.nll, loss: measured.loss, reference_nll: None };
            let document = Measured { set: Set::Unlearn, own, alternative: None, bounds: None };
            // The weights are means over the document's tokens.
            let weights = weights(&section, &document);
            losses.iter_mut().zip(&weights).for_each(|(loss, weight)| *loss *= weight);
            gradient = run(loss, weights).1;
        }
        let wanted: Vec<f32> = floats(&case["losses"]);
        found.add(
            format!("tokens: {name}, losses"),
            tolerances.figures,
            [relative_distance(&losses, &wanted)],
        );
        let error = relative_distance(&gradient, &rows(&case["gradient"]));
        found.add(format!("tokens: {name}, gradient"), tolerances.gradients, [error]);
    }
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().expect("a list").iter().map(|value| number(value) as f32).collect()
}

/// The weight of each token of a document, times their number.
fn weights(section: &Objective, document: &Measured) -> Vec<f32> {
    let loss: &dyn ForgetLoss = match section.forget {
        surgery_core::objective::Forget::Wga => &section.wga,
        surgery_core::objective::Forget::Satimp => &section.satimp,
        other => panic!("{other:?} weighs no tokens"),
    };
    let weights = loss.weights(document);
    (0..document.own.count).map(|token| (weights.of(token) * document.own.count as f64) as f32).collect()
}
