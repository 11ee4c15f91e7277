//! The fast form of every operation compared with the oracle, on random weights and documents. Whole steps are
//! compared, so that operations run in their actual shapes and orders, forward and backward.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use surgery_core::batch::{Rows, Window};
use surgery_core::burn::module::AutodiffModule;
use surgery_core::burn::tensor::{Tensor, TensorData};
use surgery_core::config::LlamaConfig;
use surgery_core::data::Example;
use surgery_core::kernels::{AdamWStep, HeadKernels, Kernels as Operations, OptimizerKernels, Portable};
use surgery_core::model::Llama;
use surgery_core::objective::Objective;
use surgery_core::oracle;
use surgery_core::placement::Placement;
use surgery_core::platform::Platform;
use surgery_core::reference::Live;
use surgery_core::step::{Graded, StepDocuments, gradients};
use surgery_core::token_nll::NllTable;
use surgery_tests::random::{self, documents, shapes, step};
use surgery_tests::{Cpu, Infer, Kernels, Train, relative_distance, values_of};

/// A model to train, and a different one as reference.
fn models(config: &LlamaConfig) -> (Llama<Train>, Llama<Infer>) {
    random::models::<Cpu>(config, &Cpu::device(0).unwrap())
}

fn fast<K>(
    model: &Llama<Train>,
    reference: &Llama<Infer>,
    step: &StepDocuments,
    objective: &Objective,
) -> Graded<Infer>
where
    K: Operations<Train> + Operations<Infer>,
{
    let objective = objective.for_model(model.config(), 0);
    gradients::<Train, K>(model, step, &objective, Some(&mut Live::<Infer, K>::new(reference.clone())))
        .unwrap()
}

fn slow(
    model: &Llama<Train>,
    reference: &Llama<Infer>,
    step: &StepDocuments,
    objective: &Objective,
) -> Graded<Infer> {
    oracle::gradients(model, step, &objective.for_model(model.config(), 0), reference).unwrap()
}

fn values(graded: &Graded<Infer>) -> BTreeMap<String, Vec<f32>> {
    let gradients = graded.gradients.iter();
    gradients.map(|(name, gradient)| (name.clone(), gradient.clone().into_data().to_vec().unwrap())).collect()
}

fn assert_same(what: &str, found: &Graded<Infer>, expected: &Graded<Infer>, tolerance: f64) {
    let (record, wanted) = (found.record, expected.record);
    assert!((record.loss - wanted.loss).abs() <= tolerance * wanted.loss.abs(), "{what}: {record:?}");
    assert!(
        (record.grad_norm - wanted.grad_norm).abs() <= tolerance * wanted.grad_norm,
        "{what}: {record:?}"
    );
    assert_eq!(record.tokens, wanted.tokens, "{what}");
    let (found, expected) = (values(found), values(expected));
    assert!(found.keys().eq(expected.keys()), "{what}: gradients of other parameters");
    for (name, expected) in expected {
        let distance = relative_distance(&found[&name], &expected);
        assert!(distance <= tolerance, "{what}: the gradient of {name} is off by {distance:e}");
    }
}

#[test]
fn every_form_of_a_step_agrees_with_the_oracle() {
    for (name, config) in shapes() {
        let (model, reference) = models(&config);
        let documents = documents(config.vocab_size, 3);
        for objective in [Objective::default(), Objective { ascent_cap: Some(6.0), ..Objective::default() }] {
            let expected = slow(&model, &reference, &step(&documents, false), &objective);
            for recompute in [false, true] {
                let step = step(&documents, recompute);
                let what = format!("{name}, recompute {recompute}, cap {:?}", objective.ascent_cap);
                let found = fast::<Kernels>(&model, &reference, &step, &objective);
                assert_same(&format!("{what}, fused"), &found, &expected, 1e-4);
                if objective.ascent_cap.is_none() {
                    let found = fast::<Portable>(&model, &reference, &step, &objective);
                    assert_same(&format!("{what}, portable"), &found, &expected, 1e-4);
                }
            }
        }
    }
}

#[test]
fn a_cap_that_some_documents_have_reached_is_applied() {
    let (_, config) = shapes().remove(0);
    let (model, reference) = models(&config);
    let documents = documents(config.vocab_size, 3);
    let means =
        fast::<Kernels>(&model, &reference, &step(&documents, false), &Objective::default()).record.terms;
    // The mean of the document means lies between them.
    let objective = Objective { ascent_cap: means.unlearn, ..Objective::default() };
    let expected = slow(&model, &reference, &step(&documents, false), &objective);
    let found = fast::<Kernels>(&model, &reference, &step(&documents, false), &objective);
    assert_same("capped", &found, &expected, 1e-4);
    let uncapped = fast::<Kernels>(&model, &reference, &step(&documents, false), &Objective::default());
    assert!(found.record.loss != uncapped.record.loss);
}

#[test]
fn bounds_that_some_tokens_have_reached_are_applied() {
    let (_, config) = shapes().remove(0);
    let (model, reference) = models(&config);
    let documents = documents(config.vocab_size, 3);
    let texts = documents.iter().map(|(_, example)| example);
    // The bounds are from another random model: about half of the tokens have reached theirs.
    let bounds = NllTable::of::<Infer, Kernels>(&reference, texts, 280).unwrap();
    let objective = Objective { ascent_model: Some("another".into()), ..Objective::default() };
    let bounded = StepDocuments { bounds: Some(&bounds), ..step(&documents, false) };
    let expected = slow(&model, &reference, &bounded, &objective);
    assert_same("fused", &fast::<Kernels>(&model, &reference, &bounded, &objective), &expected, 1e-4);
    assert_same("portable", &fast::<Portable>(&model, &reference, &bounded, &objective), &expected, 1e-4);
    let unbounded = fast::<Kernels>(&model, &reference, &bounded, &Objective::default());
    assert!(relative_distance(&flat(&unbounded), &flat(&expected)) > 0.01);
}

fn flat(graded: &Graded<Infer>) -> Vec<f32> {
    values(graded).into_values().flatten().collect()
}

fn bits(graded: &Graded<Infer>) -> Vec<u32> {
    flat(graded).into_iter().map(f32::to_bits).collect()
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (_, config) = shapes().remove(1);
    let (model, reference) = models(&config);
    let documents = documents(config.vocab_size, 4);
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            bits(&fast::<Kernels>(&model, &reference, &step(&documents, false), &Objective::default()))
        })
    };
    let one = on(1);
    assert!(one.iter().any(|&bits| bits != 0));
    for threads in [2, 3, 8] {
        assert!(on(threads) == one, "{threads} threads give other gradients");
    }
}

#[test]
fn recomputation_changes_no_bit() {
    let (_, config) = shapes().remove(2);
    let (model, reference) = models(&config);
    let documents = documents(config.vocab_size, 5);
    let with = |recompute| {
        bits(&fast::<Kernels>(&model, &reference, &step(&documents, recompute), &Objective::default()))
    };
    assert!(with(true) == with(false));
}

#[test]
fn hidden_states_do_not_depend_on_other_documents() {
    for (name, config) in shapes() {
        let model: Llama<Infer> = models(&config).0.valid();
        let documents: Vec<Example> =
            documents(config.vocab_size, 6).into_iter().map(|(_, example)| example).collect();
        let windows = Window::of_all(&documents, 1024);
        let hidden = |rows: &Rows| -> Vec<f32> {
            model.hidden::<Kernels>(rows).unwrap().into_data().to_vec().unwrap()
        };
        for one_row in [true, false] {
            let rows = Rows::pack(&windows, one_row);
            let all = hidden(&rows);
            for segment in &rows.segments {
                let alone = hidden(&Rows::pack(&[windows[segment.text]], true));
                let start = (segment.row * rows.columns + segment.columns.start) * config.hidden_size;
                assert!(
                    all[start..start + alone.len()] == alone,
                    "{name}: document {} is another in company",
                    segment.text
                );
            }
        }
    }
}

/// The logits after each of `chunks`, which are consecutive tokens of `texts`.
fn logits_of<K: Operations<Infer>>(
    model: &Llama<Infer>,
    texts: &[Vec<u32>],
    chunks: &[std::ops::Range<usize>],
) -> Vec<Vec<f32>> {
    let mut cache = model.cache();
    let advance = |chunk: &std::ops::Range<usize>| {
        let tokens: Vec<u32> = texts.iter().flat_map(|text| &text[chunk.clone()]).copied().collect();
        values_of(model.advance::<K>(&tokens, texts.len(), &mut cache).unwrap())
    };
    chunks.iter().map(advance).collect()
}

#[test]
fn prompts_fresh_and_continued_agree_with_the_portable_form() {
    // A first chunk of one token, of less than a tile of queries, and of several tiles; then further chunks.
    let chunks = [
        vec![0..1, 1..2, 2..45, 45..46, 46..140],
        vec![0..29, 29..61, 61..62, 62..200],
        vec![0..130, 130..132],
    ];
    for (name, config) in shapes() {
        let model: Llama<Infer> = models(&config).0.valid();
        let mut generator = ChaCha8Rng::seed_from_u64(9);
        for texts in [1, 3] {
            let text = |_| (0..200).map(|_| generator.random_range(0..config.vocab_size as u32)).collect();
            let texts: Vec<Vec<u32>> = (0..texts).map(text).collect();
            for chunks in &chunks {
                let found = logits_of::<Kernels>(&model, &texts, chunks);
                let expected = logits_of::<Portable>(&model, &texts, chunks);
                for ((found, expected), chunk) in found.iter().zip(&expected).zip(chunks) {
                    let distance = relative_distance(found, expected);
                    assert!(distance < 1e-5, "{name}, {} texts, {chunk:?}: off by {distance:e}", texts.len());
                }
            }
        }
    }
}

#[test]
fn a_continued_text_has_the_angles_of_the_whole_text() {
    let (_, config) = shapes().remove(0);
    let device = Cpu::device(0).unwrap();
    let of = |past, count| Placement::<Infer>::continued([2, past, count], &config, &device).unwrap();
    let whole = of(0, 90);
    for (past, count) in [(89, 1), (37, 2), (0, 1)] {
        let continued_placement = of(past, count);
        for place in past..past + count {
            assert_eq!(continued_placement.layout().angles(place), whole.layout().angles(place));
        }
        let cos = values_of(continued_placement.cos());
        assert_eq!(cos.len(), 2 * count * config.head_dim / 2);
        assert_eq!(cos[..config.head_dim / 2], *whole.layout().angles(past).0);
    }
    // A late token takes the same time as an early one. With the angles of all positions, this loop would take
    // minutes.
    for past in 0..2000 {
        of(1_000_000 + past, 1);
    }
}

#[test]
fn adamw_and_norms_agree_with_their_plain_forms() {
    let device = Cpu::device(0).unwrap();
    let mut generator = ChaCha8Rng::seed_from_u64(7);
    for length in [1, 15, 17, 40_000] {
        let mut random = |scale: f32| -> Tensor<Infer, 1> {
            let values: Vec<f32> = (0..length).map(|_| scale * (generator.random::<f32>() - 0.5)).collect();
            Tensor::from_data(TensorData::new(values, [length]), &device)
        };
        let (value, gradient) = (random(1.0), random(1e-3));
        let (first, second) = (random(1e-3), random(1e-6).abs());
        let step = AdamWStep {
            clip: 0.7,
            rate: 1e-2,
            beta_1: 0.9,
            beta_2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            step: 3,
        };
        let all = || (value.clone(), first.clone(), second.clone(), gradient.clone());
        let (p, m, v, g) = all();
        let found = <Kernels as OptimizerKernels<Infer>>::adamw(p, m, v, g, &step);
        let (p, m, v, g) = all();
        let expected = <Portable as OptimizerKernels<Infer>>::adamw(p, m, v, g, &step);
        for (found, expected) in [(found.0, expected.0), (found.1, expected.1), (found.2, expected.2)] {
            let [found, expected]: [Vec<f32>; 2] =
                [found, expected].map(|tensor| tensor.into_data().to_vec().unwrap());
            assert!(relative_distance(&found, &expected) < 1e-6);
        }
        let norm = |squares: Tensor<Infer, 1>| f64::from(squares.into_scalar());
        let found = norm(<Kernels as OptimizerKernels<Infer>>::squared_norm(gradient.clone()));
        let expected = norm(<Portable as OptimizerKernels<Infer>>::squared_norm(gradient.clone()));
        assert!((found - expected).abs() <= 1e-5 * expected);
    }
}

#[test]
fn a_reference_may_have_another_width() {
    let mut generator = ChaCha8Rng::seed_from_u64(5);
    let device = Cpu::device(0).unwrap();
    let mut random = |shape: [usize; 2]| -> Tensor<Infer, 2> {
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| generator.random_range(-1.0..1.0)).collect();
        Tensor::from_data(TensorData::new(values, shape), &device)
    };
    let (hidden, head, reference_hidden, reference_head) =
        (random([95, 64]), random([301, 64]), random([95, 40]), random([301, 40]));
    let values = |kl: Tensor<Infer, 1>| kl.into_data().to_vec::<f32>().unwrap();
    let plain = Portable::kl(hidden.clone(), head.clone(), reference_hidden.clone(), reference_head.clone());
    let found = values(<Kernels as HeadKernels<Infer>>::kl(hidden, head, reference_hidden, reference_head));
    assert!(relative_distance(&found, &values(plain)) < 1e-5);
}
