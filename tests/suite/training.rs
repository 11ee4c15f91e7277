//! The seed determines the result, and steps with values that are not finite change nothing. The parity suite
//! compares the numbers with PyTorch.

use surgery_core::batch::Window;
use surgery_core::burn::module::AutodiffModule;
use surgery_core::burn::tensor::Tensor;
use surgery_core::checkpoint::Checkpoint;
use surgery_core::data::{Benchmark, Corpus, Example, Set};
use surgery_core::event::{Event, Observer, Silent};
use surgery_core::model::{At, Llama};
use surgery_core::objective::TokenMean;
use surgery_core::optimizer::AdamW;
use surgery_core::platform::Platform;
use surgery_core::recipe::{Precision, Recipe, parse};
use surgery_core::reference::{Live, Reference};
use surgery_core::step::{StepDocuments, gradients, update};
use surgery_core::surgery::{Comparison, TrainingDocuments, beginning, operate};
use surgery_core::training::NoCheckpoints;
use surgery_tests::{Cpu, Infer, Kernels, Train, golden_folder, load, open};

fn train(variant: &str) -> Llama<Train> {
    Llama::trainable(load(variant))
}

fn values(model: &Llama<Infer>) -> Vec<(String, Vec<f32>)> {
    let tensors = model.tensors().into_iter();
    let mut values: Vec<(String, Vec<f32>)> =
        tensors.map(|(name, tensor)| (name, tensor.into_data().to_vec().unwrap())).collect();
    values.sort_by(|a, b| a.0.cmp(&b.0));
    values
}

fn drawable(benchmark: &Benchmark) -> TrainingDocuments<'_> {
    TrainingDocuments { benchmark, replay: Vec::new() }
}

fn against(reference: &mut dyn Reference<Infer>) -> Comparison<'_, Infer> {
    Comparison { reference, reference_nll: None, bounds: None }
}

/// A short operation on the golden data, sampled by the seed.
fn short_operation(seed: u64) -> Vec<(String, Vec<f32>)> {
    let (_, _, encoder) = open("llama1-mha");
    let overrides = [
        "train.steps=3".to_owned(),
        "train.documents_per_step=2".to_owned(),
        "optimizer.learning_rate=1e-3".to_owned(),
        format!("train.seed={seed}"),
    ];
    let recipe: Recipe = parse("short", "", &overrides).unwrap();
    let folder = golden_folder("steps/data");
    let corpus = Corpus::load(&folder, &recipe.objective.sets()).unwrap();
    let benchmark = Benchmark::encode(&folder, &corpus, &[], &encoder).unwrap();
    let mut reference = Live::<Infer, Kernels>::new(load("llama1-mha"));
    let state = beginning(train("llama1-mha"), &corpus, &recipe);
    let (drawable, checkpointer) = (drawable(&benchmark), &mut NoCheckpoints);
    let (after, _) = operate::<Train, Kernels>(
        state,
        &drawable,
        &recipe,
        against(&mut reference),
        checkpointer,
        &mut Silent,
    )
    .unwrap();
    values(&after.valid())
}

#[test]
fn the_seed_determines_the_result_bit_for_bit() {
    let bits = |values: Vec<(String, Vec<f32>)>| -> Vec<u32> {
        values.into_iter().flat_map(|(_, values)| values).map(f32::to_bits).collect()
    };
    let first = bits(short_operation(1));
    assert!(first == bits(short_operation(1)), "the same seed gave other weights");
    assert!(first != bits(short_operation(2)), "another seed gave the same weights");
}

#[test]
fn a_gradient_that_is_not_finite_updates_nothing() {
    let model = train("llama1-mha");
    let example = Example::of_text(vec![1, 5, 9, 7]);
    let documents = StepDocuments::new([(Set::EditUpdate, &example)], 16);
    let mut graded = gradients::<Train, Kernels>(&model, &documents, &TokenMean, None).unwrap();
    graded.record.grad_norm = f64::NAN;
    let mut optimizer = AdamW::new(Default::default());
    let error = update::<Train, Kernels>(model, graded, &mut optimizer, 1e-3, 7).unwrap_err();
    assert_eq!(error.kind(), surgery_core::Kind::Diverged);
    assert!(error.to_string().contains("step 7"), "{error}");
}

/// A reference whose states are NaN in some calls.
struct Faulty {
    model: Live<Infer, Kernels>,
    calls: usize,
    faults: Vec<usize>,
}

impl Reference<Infer> for Faulty {
    fn states(&mut self, windows: &[Window], at: At) -> surgery_core::Result<Tensor<Infer, 2>> {
        self.calls += 1;
        let states = self.model.states(windows, at)?;
        Ok(if self.faults.contains(&self.calls) { states * f32::NAN } else { states })
    }

    fn head(&self) -> Tensor<Infer, 2> {
        Reference::<Infer>::head(&self.model)
    }
}

#[test]
fn steps_that_are_not_finite_are_skipped_as_often_as_the_recipe_allows() {
    let (_, _, encoder) = open("llama1-mha");
    let folder = golden_folder("steps/data");
    let with = |skipped: usize, faults: &[usize]| {
        let overrides = [
            "train.steps=5".to_owned(),
            "train.documents_per_step=2".to_owned(),
            format!("guard.skip_not_finite={skipped}"),
        ];
        let recipe: Recipe = parse("skips", "", &overrides).unwrap();
        let corpus = Corpus::load(&folder, &recipe.objective.sets()).unwrap();
        let benchmark = Benchmark::encode(&folder, &corpus, &[], &encoder).unwrap();
        let model = Live::new(load("llama1-mha"));
        let mut reference = Faulty { model, calls: 0, faults: faults.to_vec() };
        let mut seen = Seen::default();
        let state = beginning(train("llama1-mha"), &corpus, &recipe);
        let checkpointer = &mut NoCheckpoints;
        let outcome = operate::<Train, Kernels>(
            state,
            &drawable(&benchmark),
            &recipe,
            against(&mut reference),
            checkpointer,
            &mut seen,
        );
        (outcome, seen)
    };
    let (outcome, seen) = with(2, &[2, 4]);
    let (model, cost) = outcome.unwrap();
    assert_eq!((cost.steps, cost.skipped), (5, 2));
    assert_eq!(seen.skipped, [2, 4]);
    assert_eq!(model.valid().not_finite(), None);
    let (without_faults, _) = with(0, &[]).0.unwrap();
    assert_ne!(values(&without_faults.valid()), values(&model.valid()));

    let (outcome, seen) = with(1, &[2, 4]);
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), surgery_core::Kind::Diverged);
    assert!(error.to_string().contains("step 4"), "{error}");
    assert_eq!(seen.skipped, [2]);

    // A skipped step changes nothing.
    let all = with(5, &[1, 2, 3, 4, 5]).0.unwrap().0;
    assert_eq!(values(&all.valid()), values(&load("llama1-mha")));
}

/// Records the skipped steps.
#[derive(Default)]
struct Seen {
    skipped: Vec<usize>,
}

impl Observer for Seen {
    fn observe(&mut self, event: Event) {
        if let Event::Skipped { step, .. } = event {
            self.skipped.push(step);
        }
    }
}

#[test]
fn a_loaded_model_has_every_tensor_of_its_file() {
    let (folder, config, _) = open("tinyllama-gqa");
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let model: Llama<Infer> =
        Llama::load(&config, &checkpoint, Precision::F32, &Cpu::device(0).unwrap()).unwrap();
    let mut names: Vec<String> = model.tensors().into_keys().collect();
    let mut stored: Vec<String> = checkpoint.names().map(str::to_owned).collect();
    names.sort();
    stored.sort();
    assert_eq!(names, stored);
}
