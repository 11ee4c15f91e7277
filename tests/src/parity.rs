//! The parity suite for every backend: compares results of PyTorch, of transformers and of the CPU's oracle with
//! those of a platform. Each item is the worst error of its kind.

use surgery_core::Result;
use surgery_core::batch::{Rows, Window};
use surgery_core::burn::module::AutodiffModule;
use surgery_core::burn::tensor::FloatDType;
use surgery_core::data::{Benchmark, Corpus, Example, QuestionSet, Set};
use surgery_core::evaluate::{Against, evaluate, score};
use surgery_core::event::Silent;
use surgery_core::generate::{Sampling, generate};
use surgery_core::kernels::HeadKernels;
use surgery_core::model::Llama;
use surgery_core::objective::{Objective, TokenMean};
use surgery_core::oracle;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::pretrain::pretrain;
use surgery_core::recipe::{PretrainRecipe, Recipe, parse};
use surgery_core::reference::Live;
use surgery_core::step::{StepDocuments, gradients};
use surgery_core::surgery::{Comparison, TrainingDocuments, beginning, operate};
use surgery_core::token_nll::NllTable;
use surgery_core::training::{Cost, NoCheckpoints};

use crate::growth::{self, growth};
use crate::{
    Cpu, Records, VARIANTS, choices, golden, golden_folder, golden_json, half, ids, load_on, number,
    objectives, open, operations, random, read_tensors, relative_distance, values_of,
};

/// The worst error of one kind.
#[derive(Debug)]
pub struct Item {
    /// The compared quantity.
    pub what: String,
    /// The worst error.
    pub error: f64,
    /// The tolerance.
    pub tolerance: f64,
}

impl Item {
    /// An item that is printed as soon as it is measured, since the suite may not complete on a new device.
    pub fn shown(what: String, error: f64, tolerance: f64) -> Self {
        println!("{what:<70}{error:>10.1e}{tolerance:>10.0e}");
        Self { what, error, tolerance }
    }

    /// Whether the error is within the tolerance. NaN is not.
    pub fn holds(&self) -> bool {
        self.error <= self.tolerance
    }
}

/// Tolerances by kind of value, for a dtype.
#[derive(Debug, Clone, Copy)]
pub struct Tolerances {
    /// Results of an operation and their gradients: norm of the difference divided by the norm.
    pub operations: f64,
    /// NLL and option scores, relative; logits, relative to their size plus 2.5.
    pub nll: f64,
    /// Perplexity and KL, relative; the values of a step, relative to their size plus 0.01.
    pub figures: f64,
    /// A parameter's gradient: norm of the difference divided by its norm.
    pub gradients: f64,
    /// A parameter's change over a whole operation, in the same measure. Adam divides small numbers by small numbers.
    pub changes: f64,
}

impl Tolerances {
    /// For f32 throughout.
    pub const F32: Self = Self { operations: 2e-6, nll: 2e-5, figures: 1e-4, gradients: 1e-4, changes: 2e-3 };
}

/// Numbers of steps of the items over many steps.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    /// Steps in half precision and in f32, whose losses are compared.
    pub losses: usize,
    /// Steps over which memory must not grow.
    pub memory: usize,
}

impl Steps {
    /// For every device that computes in hardware.
    pub const ALL: Self = Self { losses: 100, memory: 300 };
    /// For a GPU in software, where a step takes seconds.
    pub const FEW: Self = Self { losses: 20, memory: 60 };
}

/// Collects the worst error of each item.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) items: Vec<Item>,
    /// Prefix of each item's name.
    pub(crate) prefix: &'static str,
}

impl Found {
    pub(crate) fn add(&mut self, what: String, tolerance: f64, errors: impl IntoIterator<Item = f64>) {
        // f64::max would ignore NaN.
        let worst = |worst: f64, error: f64| {
            if error.is_nan() || worst.is_nan() { f64::NAN } else { worst.max(error) }
        };
        let error = errors.into_iter().fold(0.0, worst);
        self.items.push(Item::shown(format!("{}{what}", self.prefix), error, tolerance));
    }
}

/// `|found - expected| / (|expected| + floor)`.
pub(crate) fn relative(found: f64, expected: f64, floor: f64) -> f64 {
    (found - expected).abs() / (expected.abs() + floor)
}

/// Number of disagreements.
pub(crate) fn differing(agree: impl IntoIterator<Item = bool>) -> f64 {
    agree.into_iter().filter(|agree| !agree).count() as f64
}

/// All items on the first device, with the models of `variants`, also those in half precision and of memory.
pub fn measure_all<P: Platform>(variants: &[&str], steps: Steps) -> Result<Vec<Item>> {
    let device = P::device(0)?;
    let mut items = measure::<P>(&device, variants, Tolerances::F32);
    items.extend(half::measure::<P>(&device, steps.losses));
    if let Some(error) = growth::<P>(&device, steps.memory) {
        let what = format!("growth of memory from step 20 to {}", steps.memory);
        items.push(Item::shown(what, error, growth::TOLERANCE));
    }
    Ok(items)
}

/// The items in f32 on the models of `variants`; gradients and operations for those with golden values.
pub fn measure<P: Platform>(device: &DeviceOf<P>, variants: &[&str], tolerances: Tolerances) -> Vec<Item> {
    let mut found = Found::default();
    operations::measure::<P>(device, FloatDType::F32, tolerances.operations, &mut found);
    for variant in variants {
        inference::<P>(device, variant, tolerances, &mut found);
    }
    for case in golden_json("expected/choice.json").as_array().expect("a list") {
        if variants.contains(&text(&case["model"])) {
            choices::by_the_paper::<P>(device, case, tolerances, &mut found);
        }
    }
    for case in golden_json("expected/harness.json").as_array().expect("a list") {
        if variants.contains(&text(&case["model"])) {
            choices::by_the_harness::<P>(device, case, tolerances, &mut found);
        }
    }
    let has = |variant: &str| variants.contains(&variant);
    for variant in
        ["llama1-mha", "llama32-tied", "llama-bias", "qwen3"].into_iter().filter(|variant| has(variant))
    {
        gradients_of_pytorch::<P>(device, variant, tolerances, &mut found);
    }
    for case in ["paper", "schedule", "schedule-linear", "windows", "update-only"] {
        operation::<P>(device, case, has, tolerances, &mut found);
    }
    let is_thorough = variants.len() == VARIANTS.len();
    objectives::measure::<P>(device, is_thorough, tolerances, &mut found);
    if has("smollm2-tied") {
        pretraining::<P>(device, tolerances, &mut found);
    }
    if has("llama1-mha") {
        evaluation::<P>(device, tolerances, &mut found);
    }
    steps_of_the_oracle::<P>(device, tolerances, &mut found);
    again::<P>(device, &mut found);
    found.items
}

pub(crate) fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// NLL, logits and greedy generation of one variant.
fn inference<P: Platform>(device: &DeviceOf<P>, variant: &str, tolerances: Tolerances, found: &mut Found) {
    let expected = golden_json(&format!("expected/{variant}.json"));
    let model = load_on::<P>(variant, device);
    let texts = expected["ids"].as_array().expect("a list").iter();
    let examples: Vec<Example> = texts.map(ids).map(Example::of_text).collect();
    let losses = score::<P::Infer, P::Kernels>(&model, &examples, &mut Silent).expect("scores");
    let errors = losses.iter().enumerate().map(|(index, loss)| {
        assert_eq!(loss.tokens as u64, expected["tokens"][index].as_u64().expect("a count"), "{variant}");
        match loss.mean() {
            None => differing([expected["nll"][index].is_null()]),
            Some(mean) => relative(mean, number(&expected["nll"][index]), 0.0),
        }
    });
    found.add(format!("{variant}: NLL"), tolerances.nll, errors);

    let one = &examples[expected["logits"]["text"].as_u64().expect("an index") as usize];
    let rows = Rows::pack(&[Window { example: one, start: 0, end: one.len() }], false);
    let states = model.hidden::<P::Kernels>(&rows).expect("hidden states");
    let [_, length, hidden] = states.dims();
    let logits = values_of(P::Kernels::logits(states.reshape([length, hidden]), model.head()));
    let wanted = expected["logits"]["values"].as_array().expect("rows");
    let wanted: Vec<f64> = wanted.iter().flat_map(|row| row.as_array().expect("a row")).map(number).collect();
    assert_eq!(logits.len(), wanted.len(), "{variant}");
    let errors = logits.iter().zip(wanted).map(|(&logit, wanted)| relative(f64::from(logit), wanted, 2.5));
    found.add(format!("{variant}: logits"), tolerances.nll, errors);

    let wrong = expected["generate"].as_array().expect("a list").iter().map(|case| {
        let most = case["max_new_tokens"].as_u64().expect("a count") as usize;
        let greedy = Sampling { temperature: 0.0, seed: 0 };
        let new = generate::<P::Infer, P::Kernels>(&model, &ids(&case["prompt_ids"]), most, greedy);
        differing([new.expect("tokens") == ids(&case["new_ids"])])
    });
    found.add(format!("{variant}: greedy continuations that differ"), 0.0, wrong);
}

/// The loss of a text and its gradient.
fn gradients_of_pytorch<P: Platform>(
    device: &DeviceOf<P>,
    variant: &str,
    tolerances: Tolerances,
    found: &mut Found,
) {
    let expected = golden_json(&format!("expected/gradients/{variant}.json"));
    let (_, _, encoder) = open(variant);
    let example = Example::of_text(encoder.encode(text(&expected["text"])).expect("tokens"));
    let model = Llama::<P::Train>::trainable(load_on::<P>(variant, device));
    let step = StepDocuments::new([(Set::EditUpdate, &example)], 256);
    let graded = gradients::<P::Train, P::Kernels>(&model, &step, &TokenMean, None).expect("gradients");
    let error = relative(graded.record.loss, number(&expected["loss"]), 0.0);
    found.add(format!("{variant}: loss of a text"), tolerances.nll, [error]);
    let wanted = read_tensors(&golden(&format!("expected/gradients/{variant}.safetensors")));
    assert_eq!(graded.gradients.len(), wanted.len(), "{variant}");
    let errors = wanted
        .into_iter()
        .map(|(name, wanted)| relative_distance(&values_of(graded.gradients[&name].clone()), &wanted));
    found.add(format!("{variant}: gradients"), tolerances.gradients, errors);
}

impl Records {
    /// The errors of the values of every step.
    fn errors(&self, what: &str, expected: &serde_json::Value) -> Vec<f64> {
        let expected = expected["steps"].as_array().expect("a list");
        assert_eq!(self.0.len(), expected.len(), "{what}");
        let mut errors = Vec::new();
        for (found, expected) in self.0.iter().zip(expected) {
            let figures = [
                ("loss", Some(found.loss)),
                ("unlearn", found.terms.unlearn),
                ("edit_unlearn", found.terms.edit_unlearn),
                ("edit_update", found.terms.edit_update),
                ("retain_kl", found.terms.retain_kl),
                ("grad_norm", Some(found.grad_norm)),
                ("learning_rate", Some(found.learning_rate)),
                ("tokens", Some(found.tokens as f64)),
            ];
            for (key, figure) in figures {
                match (figure, expected.get(key)) {
                    (Some(figure), Some(wanted)) => errors.push(relative(figure, number(wanted), 0.01)),
                    (None, Some(wanted)) => assert!(wanted.is_null(), "{what}, {key}: missing"),
                    // Pretraining has no terms.
                    (_, None) => assert!(!["loss", "grad_norm", "learning_rate", "tokens"].contains(&key)),
                }
            }
        }
        errors
    }
}

/// The error of the change of every parameter.
pub(crate) fn changes<P: Platform>(
    what: &str,
    before: &Llama<P::Infer>,
    after: &Llama<P::Infer>,
    file: &str,
) -> Vec<f64> {
    let expected = read_tensors(&golden(file));
    let (before, after) = (before.tensors(), after.tensors());
    assert_eq!(after.len(), expected.len(), "{what}");
    let errors = expected.iter().map(|(name, expected)| {
        let [before, after] = [&before, &after].map(|all| values_of(all[name].clone()));
        let change: Vec<f32> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        relative_distance(&change, expected)
    });
    errors.collect()
}

/// A whole operation: the values of its steps and the change of the weights.
fn operation<P: Platform>(
    device: &DeviceOf<P>,
    case: &str,
    has: impl Fn(&str) -> bool,
    tolerances: Tolerances,
    found: &mut Found,
) {
    let expected = golden_json(&format!("steps/{case}/expected.json"));
    let variant = text(&expected["model"]);
    if !has(variant) {
        return;
    }
    let recipe = std::fs::read_to_string(golden(&format!("steps/{case}/recipe.toml"))).expect("a recipe");
    let recipe: Recipe = parse(case, &recipe, &[]).expect("a recipe");
    let (_, _, encoder) = open(variant);
    let folder = golden_folder("steps/data");
    let corpus = Corpus::load(&folder, &recipe.objective.sets()).expect("documents");
    let benchmark = Benchmark::encode(&folder, &corpus, &[], &encoder).expect("documents");
    let training_documents = TrainingDocuments { benchmark: &benchmark, replay: Vec::new() };
    let before = load_on::<P>(variant, device);
    let (after, cost, records) = operated::<P>(before.clone(), &corpus, &training_documents, &recipe, None);
    assert_eq!(cost.steps, recipe.train.steps);
    found.add(format!("{case}: figures of the steps"), tolerances.figures, records.errors(case, &expected));
    if let Some(kl) = records.0[0].terms.retain_kl {
        found.add(format!("{case}: KL at the first step"), tolerances.figures / 100.0, [kl.abs()]);
    }
    let file = format!("steps/{case}/delta.safetensors");
    let errors = changes::<P>(case, &before, &after.valid(), &file);
    found.add(format!("{case}: change of the weights"), tolerances.changes, errors);
}

/// `model` after a whole operation, the operation's cost, and the records of its steps.
pub(crate) fn operated<P: Platform>(
    model: Llama<P::Infer>,
    corpus: &Corpus,
    training_documents: &TrainingDocuments,
    recipe: &Recipe,
    bounds: Option<&NllTable>,
) -> (Llama<P::Train>, Cost, Records) {
    let mut reference = Live::<P::Infer, P::Kernels>::new(model.clone());
    let mut records = Records::default();
    let (after, cost) = operate::<P::Train, P::Kernels>(
        beginning(Llama::<P::Train>::trainable(model), corpus, recipe),
        training_documents,
        recipe,
        Comparison { reference: &mut reference, reference_nll: None, bounds },
        &mut NoCheckpoints,
        &mut records,
    )
    .expect("an operation");
    (after, cost, records)
}

/// A pretraining: the values of its steps and the change of the weights.
fn pretraining<P: Platform>(device: &DeviceOf<P>, tolerances: Tolerances, found: &mut Found) {
    let expected = golden_json("pretrain/expected.json");
    let variant = text(&expected["model"]);
    let recipe = std::fs::read_to_string(golden("pretrain/recipe.toml")).expect("a recipe");
    let overrides = ["model.source=unused".to_owned(), "data.files=[\"documents.jsonl\"]".to_owned()];
    let recipe: PretrainRecipe = parse("pretrain", &recipe, &overrides).expect("a recipe");
    let (_, _, encoder) = open(variant);
    let folder = golden_folder("pretrain");
    let documents = surgery_core::data::read_documents(&folder, "documents.jsonl").expect("documents");
    let documents = surgery_core::data::encode_documents(&folder, "documents.jsonl", &documents, &encoder)
        .expect("documents");
    let mut records = Records::default();
    let before = load_on::<P>(variant, device);
    let model = Llama::<P::Train>::trainable(before.clone());
    let state = surgery_core::pretrain::beginning(model, documents.len(), &recipe);
    let checkpointer = &mut NoCheckpoints;
    let (after, _) =
        pretrain::<P::Train, P::Kernels>(state, &documents, &recipe, None, checkpointer, &mut records)
            .expect("a training");
    let errors = records.errors("pretrain", &expected);
    found.add("pretrain: figures of the steps".into(), tolerances.figures, errors);
    let errors = changes::<P>("pretrain", &before, &after.valid(), "pretrain/delta.safetensors");
    found.add("pretrain: change of the weights".into(), tolerances.changes, errors);
}

/// Perplexity, accuracy and KL of one model on a data folder.
fn evaluation<P: Platform>(device: &DeviceOf<P>, tolerances: Tolerances, found: &mut Found) {
    let expected = golden_json("expected/eval.json");
    let variant = text(&expected["model"]);
    let (_, _, encoder) = open(variant);
    let folder = golden_folder(text(&expected["data"]));
    let corpus = Corpus::load(&folder, &[]).expect("documents");
    let questions = QuestionSet::load_all(&folder).expect("questions");
    let benchmark = Benchmark::encode(&folder, &corpus, &questions, &encoder).expect("documents");
    let mut reference = Live::<P::Infer, P::Kernels>::new(load_on::<P>(text(&expected["reference"]), device));
    let against = Against::Reference(&mut reference);
    let model = load_on::<P>(variant, device);
    let evaluation =
        evaluate::<P::Infer, P::Kernels>(&model, &benchmark, against, &mut Silent).expect("figures");

    let perplexities = expected["perplexity"].as_object().expect("sets");
    assert_eq!(evaluation.perplexity.len(), perplexities.len());
    let errors = perplexities.iter().flat_map(|(set, expected)| {
        let found = evaluation.perplexity[set];
        [("mean", found.mean), ("corpus", found.corpus), ("median", found.median)]
            .map(|(key, found)| relative(found, number(&expected[key]), 0.0))
    });
    found.add("evaluation: perplexity".into(), tolerances.figures, errors);
    let accuracies = expected["accuracy"].as_object().expect("sets");
    assert_eq!(evaluation.accuracy.len(), accuracies.len());
    let errors = accuracies.iter().flat_map(|(set, expected)| {
        let found = evaluation.accuracy[set];
        [("validation", found.validation), ("test", found.test)].map(|(key, found)| match found {
            Some(found) => relative(found, number(&expected[key]), 1.0),
            None => differing([expected[key].is_null()]),
        })
    });
    found.add("evaluation: accuracy".into(), 1e-6, errors);
    let error = relative(evaluation.kl["retain"], number(&expected["kl"]["retain"]), 0.0);
    found.add("evaluation: KL".into(), tolerances.figures, [error]);
}

/// A step on random weights and documents with every kind of term, compared with the CPU's oracle. One shape only,
/// since a GPU compiles kernels for each.
fn steps_of_the_oracle<P: Platform>(device: &DeviceOf<P>, tolerances: Tolerances, found: &mut Found) {
    let (name, config) = random::shapes().remove(1);
    let documents = random::documents(config.vocab_size, 3);
    let cpu = Cpu::device(0).expect("there is a CPU");
    let (model, reference_model) = random::models::<Cpu>(&config, &cpu);
    let (ours, our_reference) = random::models::<P>(&config, device);
    for ascent_cap in [None, Some(6.0)] {
        let objective = Objective { ascent_cap, ..Objective::default() }.for_model(&config, 0);
        let expected =
            oracle::gradients(&model, &random::step(&documents, false), &objective, &reference_model)
                .expect("gradients");
        for recompute in [false, true] {
            let step = random::step(&documents, recompute);
            let mut reference = Live::<P::Infer, P::Kernels>::new(our_reference.clone());
            let graded = gradients::<P::Train, P::Kernels>(&ours, &step, &objective, Some(&mut reference))
                .expect("gradients");
            let figures = [
                relative(graded.record.loss, expected.record.loss, 0.0),
                relative(graded.record.grad_norm, expected.record.grad_norm, 0.0),
            ];
            assert_eq!(graded.gradients.len(), expected.gradients.len(), "{name}");
            let of_parameters = expected.gradients.iter().map(|(parameter, expected)| {
                relative_distance(
                    &values_of(graded.gradients[parameter].clone()),
                    &values_of(expected.clone()),
                )
            });
            let what = format!("oracle: a step, cap {ascent_cap:?}, recompute {recompute}");
            found.add(what, tolerances.gradients, figures.into_iter().chain(of_parameters));
        }
    }
}

/// The same step several times: sums must not depend on the order in which threads add.
fn again<P: Platform>(device: &DeviceOf<P>, found: &mut Found) {
    let (_, config) = random::shapes().remove(1);
    let documents = random::documents(config.vocab_size, 3);
    let (model, reference_model) = random::models::<P>(&config, device);
    let mut reference = Live::<P::Infer, P::Kernels>::new(reference_model);
    let objective = Objective::default().for_model(&config, 0);
    let mut bits = || -> Vec<Vec<u32>> {
        let step = random::step(&documents, false);
        let graded = gradients::<P::Train, P::Kernels>(&model, &step, &objective, Some(&mut reference))
            .expect("gradients");
        let figures = [graded.record.loss as f32, graded.record.grad_norm as f32];
        let gradients = graded.gradients.into_values().map(values_of);
        let all = std::iter::once(figures.to_vec()).chain(gradients);
        all.map(|values| values.into_iter().map(f32::to_bits).collect()).collect()
    };
    let first = bits();
    found.add("a step again: results that differ".into(), 0.0, [differing((0..4).map(|_| bits() == first))]);
}
