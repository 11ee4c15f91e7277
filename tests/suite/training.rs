//! The seed determines the result, and steps with values that are not finite change nothing. The parity suite
//! compares the numbers with PyTorch.

use std::collections::BTreeMap;
use std::path::Path;
use surgery_core::batch::Window;
use surgery_core::burn::module::AutodiffModule;
use surgery_core::burn::tensor::Tensor;
use surgery_core::data::{Benchmark, Corpus, Example, Set};
use surgery_core::event::{Event, Observer, Silent};
use surgery_core::model::{At, Llama};

use surgery_core::checkpoint::{Checkpoint, SaveDtype};
use surgery_core::globs::Glob;
use surgery_core::kernels::{Kernels as Operations, Portable};
use surgery_core::objective::{Objective, TokenMean};
use surgery_core::optimizer::AdamW;
use surgery_core::platform::Platform;
use surgery_core::recipe::{Precision, Recipe, parse};
use surgery_core::reference::{Live, Reference};
use surgery_core::step::{StepDocuments, gradients, update};
use surgery_core::surgery::{Comparison, TrainingDocuments, beginning, operate};
use surgery_core::training::NoCheckpoints;
use surgery_tests::{Cpu, Infer, Kernels, Train, assert_close, golden, golden_folder, load, open};

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

fn training_documents(benchmark: &Benchmark) -> TrainingDocuments<'_> {
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
    let (training_documents, checkpointer) = (training_documents(&benchmark), &mut NoCheckpoints);
    let (after, _) = operate::<Train, Kernels>(
        state,
        &training_documents,
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
            &training_documents(&benchmark),
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

/// The part of `model` that `globs` match, to train.
fn train_only(variant: &str, globs: &[&str]) -> Llama<Train> {
    let globs: Vec<Glob> = globs.iter().map(|glob| Glob::parse(glob).unwrap()).collect();
    let model = load(variant);
    let parameters = model.config().parameters().train_only(&globs).unwrap();
    Llama::trainable_in(model, parameters)
}

/// The gradients of a step on the golden texts, by name.
fn gradients_of<K: Operations<Train> + Operations<Infer>>(
    variant: &str,
    model: &Llama<Train>,
    recompute: bool,
) -> (BTreeMap<String, Vec<f32>>, f64) {
    let texts = [
        (Set::Unlearn, vec![1, 5, 9, 7, 3, 8]),
        (Set::EditUnlearn, vec![1, 4, 6]),
        (Set::EditUpdate, vec![1, 4, 8, 2]),
        (Set::Retain, vec![1, 9, 9, 5, 2]),
    ]
    .map(|(set, tokens)| (set, Example::of_text(tokens)));
    let documents = texts.iter().map(|(set, example)| (*set, example));
    let step = StepDocuments { recompute, ..StepDocuments::new(documents, 16) };
    let mut reference = Live::<Infer, K>::new(load(variant));
    let objective = Objective::default().for_model(model.config(), 0);
    let graded = gradients::<Train, K>(model, &step, &objective, Some(&mut reference)).unwrap();
    let gradients = graded.gradients.into_iter();
    let values = gradients.map(|(name, gradient)| (name, gradient.into_data().to_vec().unwrap())).collect();
    (values, graded.record.grad_norm)
}

#[test]
fn untrained_parameters_have_no_gradient_and_the_gradients_of_the_others_do_not_change() {
    fn check<K: Operations<Train> + Operations<Infer>>(what: &str) {
        for variant in ["llama1-mha", "smollm2-tied"] {
            let (all, _) = gradients_of::<K>(variant, &train(variant), false);
            for globs in [
                &["model.layers.{0..0}.mlp.down_proj.weight"][..],
                &["model.layers.1.self_attn.{k,v}_proj.weight", "*layernorm*"],
                &["model.embed_tokens.weight"],
                &["model.norm.weight"],
                &["model.layers.1.*"],
                &["*"],
            ] {
                for recompute in [false, true] {
                    let what = format!("{what}, {variant}, {globs:?}, recompute {recompute}");
                    let model = train_only(variant, globs);
                    let (found, norm) = gradients_of::<K>(variant, &model, recompute);
                    let trained = model.parameters().iter().filter(|spec| spec.trainable);
                    let mut names: Vec<&str> = trained.map(|spec| spec.name.as_str()).collect();
                    names.sort_unstable();
                    assert!(found.keys().eq(names), "{what}: gradients of {:?}", found.keys());
                    assert!(found.iter().all(|(name, gradient)| all[name] == *gradient), "{what}");
                    let squares = found.values().flatten().map(|value| f64::from(*value).powi(2));
                    assert_close(&what, norm, squares.sum::<f64>().sqrt(), 1e-5, 0.0);
                }
            }
        }
        let (head, _) = gradients_of::<K>("llama1-mha", &train_only("llama1-mha", &["lm_head*"]), true);
        assert!(head.keys().eq(["lm_head.weight"]), "{what}");
    }
    check::<Kernels>("the CPU's");
    check::<Portable>("portable");
}

#[test]
fn an_operation_changes_the_trained_parameters_only() {
    const DOWN: &str = "model.layers.0.mlp.down_proj.weight";
    // In bf16, no update would leave a value unchanged.
    let (folder, config, encoder) = open("llama2-bf16");
    let text = r#"[train]
        steps = 3
        documents_per_step = 2
        trainable = ["model.layers.{0..0}.mlp.down_proj.weight"]
        [optimizer]
        learning_rate = 1e-2"#;
    let recipe: Recipe = parse("frozen", text, &[]).unwrap();
    let data = golden_folder("steps/data");
    let corpus = Corpus::load(&data, &recipe.objective.sets()).unwrap();
    let benchmark = Benchmark::encode(&data, &corpus, &[], &encoder).unwrap();
    let mut reference = Live::<Infer, Kernels>::new(load("llama2-bf16"));
    let parameters = config.parameters().train_only(&recipe.train.trainable).unwrap();
    let model = Llama::trainable_in(load("llama2-bf16"), parameters);
    let state = beginning(model, &corpus, &recipe);
    let (training_documents, none) = (training_documents(&benchmark), &mut NoCheckpoints);
    let (after, _) = operate::<Train, Kernels>(
        state,
        &training_documents,
        &recipe,
        against(&mut reference),
        none,
        &mut Silent,
    )
    .unwrap();

    let after = after.valid();
    let mut changed = values(&after).into_iter().zip(values(&load("llama2-bf16")));
    let changed: Vec<String> =
        changed.by_ref().filter(|(after, before)| after != before).map(|(after, _)| after.0).collect();
    assert_eq!(changed, [DOWN]);

    let output = std::env::temp_dir().join(format!("surgery-frozen-{}", std::process::id()));
    let checkpoint = Checkpoint::open(&folder).unwrap();
    after.save(&output, &folder, Some(&checkpoint), SaveDtype::Input).unwrap();
    let tensors = |folder: &Path| {
        let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.tensors().into_iter();
        tensors.map(|(name, view)| (name, view.data().to_vec())).collect::<BTreeMap<_, _>>()
    };
    let (before, written) = (tensors(&golden("models/llama2-bf16")), tensors(&output));
    assert!(before.keys().eq(written.keys()));
    let changed: Vec<&String> = before.keys().filter(|name| before[*name] != written[*name]).collect();
    assert_eq!(changed, [DOWN]);
    std::fs::remove_dir_all(output).unwrap();
}
