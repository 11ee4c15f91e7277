//! The operation against PyTorch: gradients, every step's figures, and what the weights became.

use surgery_core::burn::module::AutodiffModule;
use surgery_core::burn::tensor::Tensor;
use surgery_core::checkpoint::Checkpoint;
use surgery_core::data::{Benchmark, Corpus, Set, encode_documents, read_documents};
use surgery_core::event::{Event, Observer};
use surgery_core::model::Llama;
use surgery_core::objective::TokenMean;
use surgery_core::optimizer::AdamW;
use surgery_core::platform::Platform;
use surgery_core::pretrain::pretrain;
use surgery_core::recipe::{PretrainRecipe, Recipe, parse};
use surgery_core::reference::{Live, Reference};
use surgery_core::step::{StepDocuments, StepRecord, gradients, update};
use surgery_core::surgery::{Drawable, beginning, operate};
use surgery_core::training::{Cost, KeepNothing};
use surgery_tests::{
    Cpu, Infer, Kernels, Train, assert_close, golden, golden_folder, golden_json, load, number, open,
    read_tensors, relative_distance,
};

/// Keeps what every step measured.
#[derive(Default)]
struct Records(Vec<StepRecord>);

impl Observer for Records {
    fn observe(&mut self, event: Event) {
        if let Event::Step { record, .. } = event {
            self.0.push(*record);
        }
    }
}

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

/// Holds the change of every weight against the golden one.
fn assert_delta(what: &str, before: &Llama<Infer>, after: &Llama<Infer>, file: &str) {
    let expected = read_tensors(&golden(file));
    let (before, after) = (values(before), values(after));
    let names = |list: &[(String, Vec<f32>)]| list.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&after), names(&expected), "{what}");
    for ((name, expected), (before, after)) in expected.iter().zip(before.iter().zip(&after)) {
        let delta: Vec<f32> = after.1.iter().zip(&before.1).map(|(after, before)| after - before).collect();
        let distance = relative_distance(&delta, expected);
        assert!(distance < 2e-3, "{what}: the change of {name} is off by {distance:e}");
    }
}

fn assert_steps(what: &str, found: &[StepRecord], expected: &serde_json::Value) {
    let expected = expected["steps"].as_array().unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (number_of, (found, expected)) in found.iter().zip(expected).enumerate() {
        let terms = [
            ("loss", Some(found.loss)),
            ("unlearn", found.terms.unlearn),
            ("edit_unlearn", found.terms.edit_unlearn),
            ("edit_update", found.terms.edit_update),
            ("retain_kl", found.terms.retain_kl),
            ("grad_norm", Some(found.grad_norm)),
            ("learning_rate", Some(found.learning_rate)),
            ("tokens", Some(found.tokens as f64)),
        ];
        for (key, found) in terms {
            let what = format!("{what}, step {}, {key}", number_of + 1);
            match (found, expected.get(key)) {
                (Some(found), Some(value)) => assert_close(&what, found, number(value), 1e-4, 1e-6),
                (None, Some(value)) => assert!(value.is_null(), "{what}: nothing found, expected {value}"),
                // Pretraining has no terms.
                (_, None) => assert!(key.contains("un") || key.contains("edit") || key.contains("retain")),
            }
        }
    }
}

#[test]
fn gradients_agree_with_pytorch() {
    for variant in ["llama1-mha", "llama32-tied"] {
        let expected = golden_json(&format!("expected/gradients/{variant}.json"));
        let (_, _, encoder) = open(variant);
        let tokens = encoder.encode(expected["text"].as_str().unwrap()).unwrap();
        let model = train(variant);
        let documents = StepDocuments {
            documents: vec![(Set::EditUpdate, &tokens)],
            context: 256,
            recompute: false,
            bounds: None,
        };
        let graded = gradients::<Train, Kernels>(&model, &documents, &TokenMean, None).unwrap();
        assert_close(variant, graded.record.loss, number(&expected["loss"]), 1e-5, 0.0);

        let found = graded.gradients;
        let wanted = read_tensors(&golden(&format!("expected/gradients/{variant}.safetensors")));
        assert_eq!(found.len(), wanted.len(), "{variant}");
        for (name, wanted) in wanted {
            let gradient: Vec<f32> = found[&name].clone().into_data().to_vec().unwrap();
            let distance = relative_distance(&gradient, &wanted);
            assert!(distance < 1e-4, "{variant}: the gradient of {name} is off by {distance:e}");
        }
    }
}

fn drawable(benchmark: &Benchmark) -> Drawable<'_> {
    Drawable { benchmark, written: Vec::new() }
}

/// A golden model after an operation from beginning to end, what it cost, and what its steps measured.
fn operated(
    variant: &str,
    corpus: &Corpus,
    benchmark: &Benchmark,
    recipe: &Recipe,
) -> (Llama<Train>, Cost, Records) {
    let mut reference = Live::<Infer, Kernels>::new(load(variant));
    let mut records = Records::default();
    let state = beginning(train(variant), corpus, recipe);
    let keeper = &mut KeepNothing;
    let (after, cost) = operate::<Train, Kernels>(
        state,
        &drawable(benchmark),
        recipe,
        &mut reference,
        None,
        keeper,
        &mut records,
    )
    .unwrap();
    (after, cost, records)
}

#[test]
fn operations_agree_with_pytorch() {
    for case in ["paper", "schedule", "schedule-linear", "windows", "update-only"] {
        let expected = golden_json(&format!("steps/{case}/expected.json"));
        let variant = expected["model"].as_str().unwrap();
        let text = std::fs::read_to_string(golden(&format!("steps/{case}/recipe.toml"))).unwrap();
        let recipe: Recipe = parse(case, &text, &[]).unwrap();
        let (_, _, encoder) = open(variant);
        let folder = golden_folder("steps/data");
        let corpus = Corpus::load(&folder, &recipe.objective.sets()).unwrap();
        let benchmark = Benchmark::encode(&folder, &corpus, &[], &encoder).unwrap();
        let before = load(variant);
        let (after, cost, records) = operated(variant, &corpus, &benchmark, &recipe);
        assert_steps(case, &records.0, &expected);
        assert_eq!(cost.steps, recipe.train.steps);
        if recipe.objective.retain > 0.0 {
            assert_close("KL at the first step", records.0[0].terms.retain_kl.unwrap(), 0.0, 0.0, 1e-6);
        }
        assert_delta(case, &before, &after.valid(), &format!("steps/{case}/delta.safetensors"));
    }
}

#[test]
fn pretraining_agrees_with_pytorch() {
    let expected = golden_json("pretrain/expected.json");
    let variant = expected["model"].as_str().unwrap();
    let text = std::fs::read_to_string(golden("pretrain/recipe.toml")).unwrap();
    let overrides = ["model.source=unused".to_owned(), "data.files=[\"documents.jsonl\"]".to_owned()];
    let recipe: PretrainRecipe = parse("pretrain", &text, &overrides).unwrap();
    let (_, _, encoder) = open(variant);
    let folder = golden_folder("pretrain");
    let documents = read_documents(&folder, "documents.jsonl").unwrap();
    let documents = encode_documents(&folder, "documents.jsonl", &documents, &encoder).unwrap();
    let mut records = Records::default();
    let state = surgery_core::pretrain::beginning(train(variant), documents.len(), &recipe);
    let (after, _) =
        pretrain::<Train, Kernels>(state, &documents, &recipe, None, &mut KeepNothing, &mut records).unwrap();
    assert_steps("pretrain", &records.0, &expected);
    assert_delta("pretrain", &load(variant), &after.valid(), "pretrain/delta.safetensors");
}

/// A short operation on the golden data, with draws that the seed decides.
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
    values(&operated("llama1-mha", &corpus, &benchmark, &recipe).0.valid())
}

#[test]
fn one_seed_one_result_bit_for_bit() {
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
    let tokens = [1, 5, 9, 7];
    let documents = StepDocuments {
        documents: vec![(Set::EditUpdate, &tokens)],
        context: 16,
        recompute: false,
        bounds: None,
    };
    let mut graded = gradients::<Train, Kernels>(&model, &documents, &TokenMean, None).unwrap();
    graded.record.grad_norm = f64::NAN;
    let mut optimizer = AdamW::new(Default::default());
    let error = update::<Train, Kernels>(model, graded, &mut optimizer, 1e-3, 7).unwrap_err();
    assert_eq!(error.kind(), surgery_core::Kind::Diverged);
    assert!(error.to_string().contains("step 7"), "{error}");
}

/// A reference whose states are no numbers in some of a run's steps.
struct Faulty {
    model: Live<Infer, Kernels>,
    asked: usize,
    faults: Vec<usize>,
}

impl Reference<Infer> for Faulty {
    fn hidden(&mut self, documents: &[&[u32]], context: usize) -> surgery_core::Result<Tensor<Infer, 2>> {
        self.asked += 1;
        let states = self.model.hidden(documents, context)?;
        Ok(if self.faults.contains(&self.asked) { states * f32::NAN } else { states })
    }

    fn head(&self) -> Tensor<Infer, 2> {
        Reference::<Infer>::head(&self.model)
    }
}

#[test]
fn steps_that_are_no_numbers_are_skipped_as_often_as_the_recipe_says() {
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
        let mut reference = Faulty { model, asked: 0, faults: faults.to_vec() };
        let mut seen = Seen::default();
        let state = beginning(train("llama1-mha"), &corpus, &recipe);
        let keeper = &mut KeepNothing;
        let outcome = operate::<Train, Kernels>(
            state,
            &drawable(&benchmark),
            &recipe,
            &mut reference,
            None,
            keeper,
            &mut seen,
        );
        (outcome, seen)
    };
    let (outcome, seen) = with(2, &[2, 4]);
    let (model, cost) = outcome.unwrap();
    assert_eq!((cost.steps, cost.skipped), (5, 2));
    assert_eq!(seen.skipped, [2, 4]);
    assert_eq!(model.valid().not_finite(), None);
    let (undisturbed, _) = with(0, &[]).0.unwrap();
    assert_ne!(values(&undisturbed.valid()), values(&model.valid()));

    let (outcome, seen) = with(1, &[2, 4]);
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), surgery_core::Kind::Diverged);
    assert!(error.to_string().contains("step 4"), "{error}");
    assert_eq!(seen.skipped, [2]);

    // A step that is skipped changes nothing.
    let all = with(5, &[1, 2, 3, 4, 5]).0.unwrap().0;
    assert_eq!(values(&all.valid()), values(&load("llama1-mha")));
}

/// The steps that were skipped.
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
    let model: Llama<Infer> = Llama::load(&config, &checkpoint, &Cpu::device(0).unwrap()).unwrap();
    let mut names: Vec<String> = model.tensors().into_keys().collect();
    let mut stored: Vec<String> = checkpoint.names().map(str::to_owned).collect();
    names.sort();
    stored.sort();
    assert_eq!(names, stored);
}
