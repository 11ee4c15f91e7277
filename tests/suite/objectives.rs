//! Every forget loss and keep loss compared with plain autodiff on random documents, in one batch and in several.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use surgery_core::data::{Example, Set};
use surgery_core::kernels::{Kernels as Operations, Portable};
use surgery_core::model::Llama;
use surgery_core::objective::Objective;
use surgery_core::oracle;
use surgery_core::platform::Platform;
use surgery_core::reference::Live;
use surgery_core::step::{Graded, StepDocuments, gradients};
use surgery_core::token_nll::NllTable;
use surgery_tests::random::{models, shapes};
use surgery_tests::{Cpu, Infer, Kernels, Train, relative_distance, values_of};

const CONTEXT: usize = 40;

/// Every combination of losses that a recipe may name.
fn objectives() -> Vec<Objective> {
    let forget = ["ascent", "npo", "simnpo", "wga", "satimp", "dpo", "undial", "ce_u", "pdu", "rmu"];
    let mut all = Vec::new();
    for name in forget {
        for keep in ["kl", "nll", "hidden"] {
            let section = json!({
                "forget": name, "keep": keep, "pdu": { "epsilon": 0.5 }, "rmu": { "block": 1 },
                "satimp": { "beta_1": 1.0 }, "undial": { "beta": 2.0 },
            });
            let objective: Objective = serde_json::from_value(section).unwrap();
            if objective.check().is_ok() {
                all.push(objective);
            }
        }
    }
    all
}

/// Documents with a prompt, with two predicted ranges, with alternatives, and longer than the context.
fn documents(vocab: usize) -> Vec<(Set, Example)> {
    let mut generator = ChaCha8Rng::seed_from_u64(21);
    let mut tokens = |length: usize| -> Vec<u32> {
        (0..length).map(|_| generator.random_range(0..vocab as u32)).collect()
    };
    let mut documents = Vec::new();
    for set in Set::TRAINED {
        for (length, predicted) in [(9, vec![1..9]), (31, vec![12..31]), (95, vec![3..5, 70..95])] {
            let alternatives = vec![
                Example::of_text(tokens(14)),
                Example { tokens: tokens(50), predicted: vec![20..50], alternatives: Vec::new() },
            ];
            documents.push((set, Example { tokens: tokens(length), predicted, alternatives }));
        }
    }
    documents
}

fn graded<K: Operations<Train> + Operations<Infer>>(
    model: &Llama<Train>,
    reference_model: &Llama<Infer>,
    step: &StepDocuments,
    objective: &Objective,
) -> Graded<Infer> {
    let objective = objective.for_model(model.config(), 3);
    gradients::<Train, K>(model, step, &objective, Some(&mut Live::<Infer, K>::new(reference_model.clone())))
        .unwrap()
}

fn values(graded: &Graded<Infer>) -> BTreeMap<&str, Vec<f32>> {
    graded.gradients.iter().map(|(name, gradient)| (name.as_str(), values_of(gradient.clone()))).collect()
}

#[test]
fn every_loss_agrees_with_the_oracle_in_one_batch_and_in_several() {
    let (_, config) = shapes().remove(1);
    let (model, reference_model) = models::<Cpu>(&config, &Cpu::device(0).unwrap());
    let documents = documents(config.vocab_size);
    let all = documents.iter().flat_map(|(_, own)| std::iter::once(own).chain(&own.alternatives));
    let nll = NllTable::of::<Infer, Kernels>(&reference_model, all, CONTEXT).unwrap();
    let mut step = StepDocuments::new(documents.iter().map(|(set, example)| (*set, example)), CONTEXT);
    step.reference_nll = Some(&nll);
    for objective in objectives() {
        let what = format!("{:?} with {:?}", objective.forget, objective.keep);
        let expected =
            oracle::gradients(&model, &step, &objective.for_model(&config, 3), &reference_model).unwrap();
        let fused = |batch_tokens, recompute| {
            let step = StepDocuments { batch_tokens, recompute, ..step.clone() };
            graded::<Kernels>(&model, &reference_model, &step, &objective)
        };
        let forms = [
            ("portable", graded::<Portable>(&model, &reference_model, &step, &objective)),
            ("one batch", fused(usize::MAX, false)),
            ("recomputed", fused(usize::MAX, true)),
            ("batches", fused(60, false)),
            ("a window each, recomputed", fused(1, true)),
        ];
        for (form, found) in &forms {
            let (record, wanted) = (found.record, expected.record);
            assert!(
                (record.loss - wanted.loss).abs() <= 1e-5 * wanted.loss.abs().max(1.0),
                "{what}, {form}: {record:?} {wanted:?}"
            );
            assert!((record.grad_norm - wanted.grad_norm).abs() <= 1e-4 * wanted.grad_norm, "{what}, {form}");
            assert_eq!(record.tokens, wanted.tokens, "{what}, {form}");
            let terms = |record: surgery_core::step::StepRecord| {
                let terms = record.terms;
                [
                    terms.unlearn,
                    terms.edit_unlearn,
                    terms.edit_update,
                    terms.forget,
                    terms.keep,
                    terms.retain_kl,
                ]
            };
            for (found, expected) in terms(record).into_iter().zip(terms(wanted)) {
                match (found, expected) {
                    (Some(found), Some(expected)) => {
                        assert!(
                            (found - expected).abs() <= 1e-4 * expected.abs().max(0.01),
                            "{what}, {form}"
                        );
                    }
                    (found, expected) => assert_eq!(found, expected, "{what}, {form}"),
                }
            }
            let (found, expected) = (values(found), values(&expected));
            assert!(found.keys().eq(expected.keys()), "{what}, {form}: gradients of other parameters");
            for (name, expected) in expected {
                let distance = relative_distance(&found[name], &expected);
                assert!(distance <= 1e-4, "{what}, {form}: the gradient of {name} is off by {distance:e}");
            }
        }
    }
}
