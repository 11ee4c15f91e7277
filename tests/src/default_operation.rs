//! The default operation of `surgery run`, on the embedded model and benchmark.

use surgery_core::config::LlamaConfig;
use surgery_core::data::{Benchmark, Corpus, Example, QuestionSet, Set};
use surgery_core::event::Silent;
use surgery_core::files::Folder;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::{Precision, Recipe, parse};
use surgery_core::replay::{Likelihood, ReplayFilter, write_texts};
use surgery_core::step::StepRecord;
use surgery_core::surgery::TrainingDocuments;
use surgery_core::text::TextEncoder;
use surgery_core::token_nll::NllTable;

use crate::parity::operated;
use crate::{Cpu, Infer, Kernels, load_from};

const RECIPE: &str = include_str!("../../crates/surgery-cli/recipes/default.toml");

/// The embedded model, its data and its recipe. Replay documents and ascent bounds are computed on the CPU in f32 for
/// every platform.
pub struct DefaultOperation {
    /// The recipe.
    pub recipe: Recipe,
    model: Folder,
    corpus: Corpus,
    benchmark: Benchmark,
    replay: Vec<Example>,
    bounds: NllTable,
}

impl DefaultOperation {
    /// The operation with this number of steps.
    pub fn new(steps: usize) -> Self {
        let changes = ["evaluate_every=0", "checkpoint_every=0", &format!("steps={steps}")]
            .map(|it| format!("train.{it}"));
        let recipe: Recipe = parse("default", RECIPE, &changes).expect("a recipe");
        let [model, base, data] = [
            ("embedded", surgery_datasets::model()),
            ("embedded-base", surgery_datasets::base()),
            ("embedded benchmark", surgery_datasets::benchmark()),
        ]
        .map(|(name, files)| Folder::Embedded { name: name.into(), files });
        let config = LlamaConfig::load(&model).expect("a shape");
        let encoder = TextEncoder::load(&model, config.vocab_size).expect("a tokenizer");
        let corpus = Corpus::load(&data, &recipe.objective.sets()).expect("documents");
        let questions = QuestionSet::load_all(&data).expect("questions");
        let benchmark = Benchmark::encode(&data, &corpus, &questions, &encoder).expect("documents");
        let device = Cpu::device(0).expect("there is a CPU");
        let on_cpu = |folder: &Folder| load_from::<Cpu>(folder, Precision::F32, &device);
        let filter = ReplayFilter::new(&corpus, &questions);
        let (writer, base) = (on_cpu(&model), on_cpu(&base));
        let likelihood =
            Likelihood::new::<Kernels>(&writer, base.clone(), &benchmark).expect("what is not to be written");
        let (replay, seed) = (&recipe.replay, recipe.train.seed);
        let generated = write_texts::<Infer, Kernels>(
            &writer,
            &encoder,
            &filter,
            likelihood.as_ref(),
            replay,
            seed,
            &mut Silent,
        )
        .expect("texts");
        let forgotten = [Set::Unlearn, Set::EditUnlearn].into_iter().flat_map(|set| benchmark.documents(set));
        let context = config.context(recipe.train.max_tokens);
        let bounds = NllTable::of::<Infer, Kernels>(&base, forgotten, context).expect("bounds");
        Self { recipe, model, corpus, benchmark, replay: generated, bounds }
    }

    /// The records of all steps on `device`.
    pub fn records<P: Platform>(&self, precision: Precision, device: &DeviceOf<P>) -> Vec<StepRecord> {
        let model = load_from::<P>(&self.model, precision, device);
        let training_documents =
            TrainingDocuments { benchmark: &self.benchmark, replay: self.replay.clone() };
        operated::<P>(model, &self.corpus, &training_documents, &self.recipe, Some(&self.bounds)).2.0
    }
}
