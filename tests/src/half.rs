//! Products in half precision compared with f32, on a device that supports bf16 or f16.

use surgery_core::burn::tensor::backend::Backend;
use surgery_core::burn::tensor::{DType, FloatDType};
use surgery_core::data::{Benchmark, Corpus};
use surgery_core::objective::{Objective, Terms};
use surgery_core::oracle;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::{Precision, Recipe, parse};
use surgery_core::reference::Live;
use surgery_core::step::{StepRecord, gradients};
use surgery_core::surgery::TrainingDocuments;

use crate::default_operation::DefaultOperation;
use crate::parity::{Found, Item, Tolerances, operated, relative};
use crate::{Cpu, golden, golden_folder, load_on, open, operations, random, relative_distance, values_of};

/// The model whose losses over an operation are compared.
const VARIANT: &str = "llama1-mha";

impl Tolerances {
    /// For values rounded to bf16 (8 bits).
    pub const BF16: Self = Self { operations: 1e-2, figures: 1e-2, gradients: 1e-1, ..Self::F32 };
    /// For values rounded to f16 (11 bits).
    pub const F16: Self = Self { operations: 2e-3, figures: 1e-2, gradients: 2e-2, ..Self::F32 };
}

/// Every item for each half precision that the device supports; empty if it supports none. Losses are compared over
/// `steps` steps.
pub fn measure<P: Platform>(device: &DeviceOf<P>, steps: usize) -> Vec<Item> {
    let all = [("bf16: ", FloatDType::BF16, Tolerances::BF16), ("f16: ", FloatDType::F16, Tolerances::F16)];
    let has = |dtype: FloatDType| P::Infer::supports_dtype(device, DType::from(dtype));
    let measured =
        all.into_iter().filter(|(_, dtype, _)| has(*dtype)).flat_map(|(prefix, dtype, tolerances)| {
            let mut found = Found { prefix, ..Found::default() };
            operations::measure::<P>(device, dtype, tolerances.operations, &mut found);
            step_of_the_oracle::<P>(device, dtype, tolerances, &mut found);
            losses::<P>(device, dtype, steps, tolerances, &mut found);
            found.items
        });
    let mut items: Vec<Item> = measured.collect();
    if P::precisions().contains(&Precision::Mixed) {
        let mut found = Found { prefix: "mixed: ", ..Found::default() };
        mixed_on_the_default_operation::<P>(device, steps, &mut found);
        items.extend(found.items);
    }
    items
}

/// Compares the first steps of the default operation in `mixed` with `f32`: the loss, relative to the size of its
/// terms (it passes through 0 itself), and the terms. The KL is the least exact term: it starts at 0, so all of it
/// comes from the difference of weight changes.
fn mixed_on_the_default_operation<P: Platform>(device: &DeviceOf<P>, steps: usize, found: &mut Found) {
    let operation = DefaultOperation::new(steps);
    let [mixed, f32] =
        [Precision::Mixed, Precision::F32].map(|precision| operation.records::<P>(precision, device));
    let Objective { unlearn, edit_unlearn, edit_update, retain, .. } = operation.recipe.objective;
    type Term = fn(&Terms) -> Option<f64>;
    let terms: [(&str, Term, f64, f64); 4] = [
        ("unlearn", |terms| terms.unlearn, unlearn, 1e-2),
        ("edit_unlearn", |terms| terms.edit_unlearn, edit_unlearn, 1e-2),
        ("edit_update", |terms| terms.edit_update, edit_update, 1e-2),
        ("retain_kl", |terms| terms.retain_kl, retain, 5e-2),
    ];
    let mut size = 0.0;
    for (name, term, weight, tolerance) in terms {
        let of = |records: &[StepRecord]| -> Vec<f64> {
            records
                .iter()
                .map(|record| term(&record.terms).expect("every step draws from every set"))
                .collect()
        };
        let (mixed, f32) = (of(&mixed), of(&f32));
        size += weight * f32.iter().sum::<f64>();
        let what = format!("{name} over {steps} steps of the default operation");
        found.add(what, tolerance, [distance(&mixed, &f32)]);
    }
    let error = mixed.iter().zip(&f32).map(|(mixed, f32)| (mixed.loss - f32.loss).abs()).sum::<f64>() / size;
    found.add(format!("the loss over {steps} steps of the default operation"), 1e-2, [error]);
}

/// A step with products in `dtype` on f32 weights, compared with the CPU's oracle in f32.
fn step_of_the_oracle<P: Platform>(
    device: &DeviceOf<P>,
    dtype: FloatDType,
    tolerances: Tolerances,
    found: &mut Found,
) {
    let (_, config) = random::shapes().remove(1);
    let documents = random::documents(config.vocab_size, 3);
    let step = random::step(&documents, false);
    let objective = Objective::default().for_model(&config, 0);
    let (model, reference_model) = random::models::<Cpu>(&config, &Cpu::device(0).expect("there is a CPU"));
    let expected = oracle::gradients(&model, &step, &objective, &reference_model).expect("gradients");
    let (model, reference_model) = random::models::<P>(&config, device);
    let mut reference = Live::<P::Infer, P::Kernels>::new(reference_model.computing_in(dtype));
    let model = model.computing_in(dtype);
    let graded = gradients::<P::Train, P::Kernels>(&model, &step, &objective, Some(&mut reference))
        .expect("gradients");
    let error = relative(graded.record.loss, expected.record.loss, 0.0);
    found.add("a step: loss".into(), tolerances.figures, [error]);
    let errors = expected.gradients.iter().map(|(name, expected)| {
        relative_distance(&values_of(graded.gradients[name].clone()), &values_of(expected.clone()))
    });
    found.add("a step: gradients".into(), tolerances.gradients, errors);
}

/// The losses of an operation with products in `dtype`, compared with those in f32 on the same device.
fn losses<P: Platform>(
    device: &DeviceOf<P>,
    dtype: FloatDType,
    steps: usize,
    tolerances: Tolerances,
    found: &mut Found,
) {
    let error = distance(&curve::<P>(device, Some(dtype), steps), &curve::<P>(device, None, steps));
    found.add(format!("the loss over {steps} steps"), tolerances.figures, [error]);
}

/// The loss of each of `steps` steps of an operation, with products in `dtype` if given.
pub fn curve<P: Platform>(device: &DeviceOf<P>, dtype: Option<FloatDType>, steps: usize) -> Vec<f64> {
    let recipe = std::fs::read_to_string(golden("steps/paper/recipe.toml")).expect("a recipe");
    let changes = [format!("train.steps={steps}"), "objective.ascent_cap=6.0".into()];
    let recipe: Recipe = parse("paper", &recipe, &changes).expect("a recipe");
    let (_, _, encoder) = open(VARIANT);
    let folder = golden_folder("steps/data");
    let corpus = Corpus::load(&folder, &recipe.objective.sets()).expect("documents");
    let benchmark = Benchmark::encode(&folder, &corpus, &[], &encoder).expect("documents");
    let model = load_on::<P>(VARIANT, device);
    let model = match dtype {
        Some(dtype) => model.computing_in(dtype),
        None => model,
    };
    let drawable = TrainingDocuments { benchmark: &benchmark, replay: Vec::new() };
    let (_, _, records) = operated::<P>(model, &corpus, &drawable, &recipe, None);
    assert_eq!(records.0.len(), steps);
    records.0.iter().map(|record| record.loss).collect()
}

/// The mean distance over all steps, divided by the mean absolute loss.
pub fn distance(got: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(got.len(), wanted.len());
    let distance: f64 = got.iter().zip(wanted).map(|(got, wanted)| (got - wanted).abs()).sum();
    distance / wanted.iter().map(|loss| loss.abs()).sum::<f64>()
}
