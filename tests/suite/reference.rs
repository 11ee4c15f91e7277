//! The cached reference compared with a live model.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use surgery_core::batch::Window;
use surgery_core::burn::tensor::Tensor;
use surgery_core::data::{Benchmark, Corpus, Example, Set};
use surgery_core::model::{At, Llama};
use surgery_core::objective::Objective;
use surgery_core::recipe::{Recipe, parse};
use surgery_core::reference::{Cached, Live, Reference, Store};
use surgery_core::step::{Graded, StepDocuments, StepRecord, gradients};
use surgery_core::surgery::{Comparison, TrainingDocuments, beginning, operate, to_be_drawn};
use surgery_core::training::NoCheckpoints;
use surgery_tests::{
    Infer, Kernels, Records, Train, assert_close, golden_folder, load, open, relative_distance,
};

const VARIANT: &str = "llama1-mha";
/// Shorter than some documents, so that these are split into windows.
const CONTEXT: usize = 24;

fn data() -> (Corpus, Benchmark) {
    let (_, _, encoder) = open(VARIANT);
    let folder = golden_folder("steps/data");
    let corpus = Corpus::load(&folder, &[]).unwrap();
    let benchmark = Benchmark::encode(&folder, &corpus, &[], &encoder).unwrap();
    (corpus, benchmark)
}

fn states(
    reference: &mut dyn Reference<Infer>,
    documents: &[&Example],
) -> surgery_core::Result<Tensor<Infer, 2>> {
    reference.states(&Window::of_all(documents.iter().copied(), CONTEXT), At::Final)
}

fn values(states: Tensor<Infer, 2>) -> Vec<f32> {
    states.into_data().to_vec().unwrap()
}

/// Returns a new folder path for a test.
fn scratch(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        fs::remove_dir_all(&path).unwrap();
    }
    path
}

/// A cached reference of `model` with the states of `documents`.
fn cached(model: &Llama<Infer>, store: Store, documents: &[&Example]) -> Cached<Infer, Kernels> {
    let mut cached = Cached::new(model, store);
    cached.want(documents.iter().copied(), CONTEXT, At::Final);
    cached.complete(model).unwrap();
    cached
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn cached_states_equal_those_of_the_model() {
    let (_, benchmark) = data();
    let model = load(VARIANT);
    let documents: Vec<&Example> = benchmark.kept().collect();
    assert!(documents.iter().any(|document| document.len() > CONTEXT));
    let mut live = Live::<Infer, Kernels>::new(model.clone());
    let folder = scratch("states");
    for store in [Store::in_memory(), Store::in_folder(&folder).unwrap()] {
        let mut all = cached(&model, store, &documents);
        let some = [documents[1], documents[0], documents[1]];
        let found = values(states(&mut all, &some).unwrap());
        let expected = values(states(&mut live, &some).unwrap());
        assert!(relative_distance(&found, &expected) < 1e-6);
        assert_eq!(values(all.head()), values(live.head()));

        // A document that was not requested has no states.
        let other = Example::of_text(documents[0].tokens[1..].to_vec());
        assert!(states(&mut all, &[&other]).is_err());
    }
    // States computed in the same layout are equal.
    let tokens = &documents[0].tokens;
    let window = Example::of_text(tokens[..CONTEXT.min(tokens.len())].to_vec());
    let window = [&window];
    let bits = |states| values(states).into_iter().map(f32::to_bits).collect::<Vec<u32>>();
    let found = states(&mut cached(&model, Store::in_memory(), &window), &window).unwrap();
    assert!(bits(found) == bits(states(&mut live, &window).unwrap()));
}

#[test]
fn a_store_is_reused_and_damage_is_repaired_or_reported() {
    let (_, benchmark) = data();
    let model = load(VARIANT);
    let documents: Vec<&Example> = benchmark.documents(Set::Retain)[..3].iter().collect();
    let folder = scratch("again");
    let store = || Store::in_folder(&folder).unwrap();
    let mut first = cached(&model, store(), &documents);
    let expected = values(states(&mut first, &documents).unwrap());
    let content = |files: &[PathBuf]| files.iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>();
    let (written, before) = (files(&folder), content(&files(&folder)));
    assert!(written.len() >= 3);

    // Nothing is computed again, even if the model has changed.
    let mut again = Cached::<Infer, Kernels>::new(&model, store());
    again.want(documents.iter().copied(), CONTEXT, At::Final);
    again.complete(&load("llama1-mha-perturbed")).unwrap();
    assert!(values(states(&mut again, &documents).unwrap()) == expected);
    assert!(content(&files(&folder)) == before);

    // The states of another model are stored under other names.
    cached(&load("llama1-mha-perturbed"), store(), &documents);
    assert_eq!(files(&folder).len(), 2 * written.len());

    for damage in [Vec::new(), before[0][..before[0].len() - 1].to_vec(), [&before[0][1..], &[0]].concat()] {
        fs::write(&written[0], &damage).unwrap();
        let error = states(&mut first, &documents).unwrap_err().to_string();
        assert!(error.contains(written[0].to_str().unwrap()) && error.contains("damaged"), "{error}");
        let mut mended = cached(&model, store(), &documents);
        assert!(relative_distance(&values(states(&mut mended, &documents).unwrap()), &expected) < 1e-6);
    }
    fs::remove_file(&written[0]).unwrap();
    let error = states(&mut first, &documents).unwrap_err().to_string();
    assert!(error.contains(written[0].to_str().unwrap()), "{error}");
}

#[test]
fn a_step_is_the_same_with_either_reference() {
    let (_, benchmark) = data();
    let original = load(VARIANT);
    let model = Llama::<Train>::trainable(load("llama1-mha-perturbed"));
    let mut documents: Vec<(Set, &Example)> = Vec::new();
    for set in Set::TRAINED {
        documents.extend(benchmark.documents(set)[..3].iter().map(|example| (set, example)));
    }
    let retained: Vec<&Example> = benchmark.documents(Set::Retain).iter().collect();
    let step = StepDocuments::new(documents, CONTEXT);
    let objective = Objective::default().for_model(model.config(), 0);
    let grade = |reference: &mut dyn Reference<Infer>| -> Graded<Infer> {
        gradients::<Train, Kernels>(&model, &step, &objective, Some(reference)).unwrap()
    };
    let live = grade(&mut Live::<Infer, Kernels>::new(original.clone()));
    let found = grade(&mut cached(&original, Store::in_memory(), &retained));
    assert!(live.record.terms.retain_kl.unwrap() > 1e-4);
    assert_close("loss", found.record.loss, live.record.loss, 1e-6, 0.0);
    assert_close("norm", found.record.grad_norm, live.record.grad_norm, 1e-6, 0.0);
    for (name, gradient) in live.gradients {
        let (found, expected): (Vec<f32>, Vec<f32>) = (
            found.gradients[&name].clone().into_data().to_vec().unwrap(),
            gradient.into_data().to_vec().unwrap(),
        );
        let distance = relative_distance(&found, &expected);
        assert!(distance < 1e-6, "the gradient of {name} is off by {distance:e}");
    }
}

#[test]
fn an_operation_requests_only_the_predicted_documents() {
    let (corpus, benchmark) = data();
    let overrides = [
        "train.steps=3",
        "train.documents_per_step=1",
        "train.max_tokens=24",
        "optimizer.learning_rate=1e-3",
    ];
    let recipe: Recipe = parse("short", "", &overrides.map(str::to_owned)).unwrap();
    let model = load(VARIANT);
    let retain = benchmark.documents(Set::Retain);
    let drawn = to_be_drawn(&corpus, &recipe).remove(&Set::Retain).unwrap();
    assert!(!drawn.is_empty() && drawn.len() <= 3);
    let drawn: Vec<&Example> = drawn.into_iter().map(|index| &retain[index]).collect();

    let operate_against = |reference: &mut dyn Reference<Infer>| {
        let mut records = Records::default();
        let model = Llama::<Train>::trainable(model.clone());
        let state = beginning(model, &corpus, &recipe);
        let training_documents = TrainingDocuments { benchmark: &benchmark, replay: Vec::new() };
        let checkpointer = &mut NoCheckpoints;
        let comparison = Comparison { reference, reference_nll: None, bounds: None };
        operate::<Train, Kernels>(
            state,
            &training_documents,
            &recipe,
            comparison,
            checkpointer,
            &mut records,
        )
        .unwrap();
        records.0
    };
    let found = operate_against(&mut cached(&model, Store::in_memory(), &drawn));
    let expected = operate_against(&mut Live::<Infer, Kernels>::new(model.clone()));
    let figures = |records: Vec<StepRecord>| -> BTreeMap<usize, [f64; 3]> {
        let figures = |record: StepRecord| [record.loss, record.terms.retain_kl.unwrap(), record.grad_norm];
        records.into_iter().map(figures).enumerate().collect()
    };
    for ((step, found), expected) in figures(found).into_iter().zip(figures(expected).into_values()) {
        for (found, expected) in found.into_iter().zip(expected) {
            assert_close(&format!("step {step}"), found, expected, 1e-5, 1e-7);
        }
    }
}
