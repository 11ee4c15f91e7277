//! `surgery reproduce`: the paper's table (section 4), with the cost of each model, and an attempt to relearn.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use surgery_core::burn::module::AutodiffModule;
use surgery_core::data::{Benchmark, Document, Example, Set, Split};
use surgery_core::evaluate::{Against, Evaluation, evaluate, evaluate_in_detail};
use surgery_core::event::{Observer, Silent};
use surgery_core::files::{Folder, write_text};
use surgery_core::folders::{DataFolder, ModelFolder};
use surgery_core::model::Llama;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::pretrain::{beginning, pretrain};
use surgery_core::recipe::{Check, Precision, PretrainRecipe, Recipe};
use surgery_core::replay;
use surgery_core::training::{Cost, MidRunEvaluation, NoCheckpoints};
use surgery_core::{Error, Result};

use super::run::{operation, perform};
use crate::args::{Common, Reproduce};
use crate::exit::{Failure, Outcome};
use crate::fit;
use crate::inputs::{self, open_data, open_model};
use crate::output::{Output, check_output};
use crate::prepare::bounding_model;
use crate::progress::{EVALUATIONS, METRICS, Metrics, Progress, read_lines};
use crate::report::{Priced, table_of_models};
use crate::terminal::{Log, print, print_json};

/// Percentage points below the baseline's final accuracy that count as having reached it.
const WITHIN: f64 = 5.0;
/// One in this many unlearn documents is learnt again.
const RELEARNT: usize = 10;
/// Number of mid-run evaluations of the baseline.
const POINTS: usize = 60;
/// The recipes that may be overridden.
const NAMES: [&str; 4] = ["default", "paper", "baseline", "relearn"];

/// The command on a backend.
pub struct Job {
    pub reproduce: Reproduce,
    pub common: Common,
}

/// The results.
#[derive(Debug, Serialize)]
struct Outcomes {
    /// The rows of the table.
    models: Vec<Priced>,
    /// The cost of θ_surgery compared with that of θ_baseline.
    cost: CostOfUpdate,
    /// The accuracies after relearning.
    relearning: Vec<Relearnt>,
    /// The folder of the models and of the reports of the runs.
    output: String,
}

/// The tokens with which θ_baseline and θ_surgery learn the update documents. Accuracies are on the validation half of
/// edit_update's questions.
#[derive(Debug, Serialize)]
struct CostOfUpdate {
    baseline_accuracy: f64,
    surgery_accuracy: f64,
    /// Tokens after which θ_baseline first was within 5 points of its final accuracy.
    baseline_tokens: usize,
    surgery_tokens: usize,
    /// θ_surgery's tokens over θ_baseline's.
    ratio: f64,
}

/// Accuracy on the test questions of unlearn, in percent, after a tenth of its texts were learnt again.
#[derive(Debug, Serialize)]
struct Relearnt {
    model: String,
    before: f64,
    /// Accuracy on all subjects.
    after: f64,
    /// Accuracy on the subjects whose texts were not learnt again.
    after_of_others: f64,
    steps: usize,
}

/// The inputs from which the models are made.
struct Bench<'a, P: Platform> {
    data: &'a DataFolder,
    output: &'a Path,
    device: &'a DeviceOf<P>,
    log: Log,
}

impl crate::backend::Job for Job {
    type Output = ();

    fn run<P: Platform>(self) -> Outcome {
        let Self { reproduce, common } = self;
        let log = Log::new(&common);
        let overrides = Overrides::of(&reproduce.overrides)?;
        let mut surgery: Recipe = overrides.recipe("default")?;
        let mut paper: Recipe = overrides.recipe("paper")?;
        let baseline: PretrainRecipe = overrides.recipe("baseline")?;
        let relearn: PretrainRecipe = overrides.recipe("relearn")?;
        P::check_precision(surgery.model.precision)?;
        let device = P::device(common.device)?;
        let base = open_model(&reproduce.base, log)?;
        let pre = open_model(&reproduce.model, log)?;
        pre.refuse_other_vocabulary(&base, "a comparison")?;
        for recipe in [&surgery, &paper] {
            pre.config.parameters().train_only(&recipe.train.trainable)?;
            replay::check(&recipe.replay, &pre.encoder, &pre.config)?;
        }
        let bounding = bounding_model(&mut surgery, &pre, log)?;
        let bounding_paper = bounding_model(&mut paper, &pre, log)?;
        let needed = [Set::Unlearn, Set::EditUnlearn, Set::EditUpdate, Set::Retain];
        let data = open_data(&reproduce.data, &needed, &pre.encoder)?;
        refuse_without_questions(&data)?;
        check_output(reproduce.output.as_deref(), &[&base.folder, &pre.folder, &data.folder])?;
        for (name, recipe, bounding) in
            [("default.", &surgery, &bounding), ("paper.", &paper, &bounding_paper)]
        {
            let models = fit::Models { operated: &pre, bounding: bounding.as_ref() };
            fit::operation::<P>(name, recipe, models, Some(&data), &device)?;
        }
        fit::pretraining::<P>("baseline.", &baseline, &base.config, &in_proportion(&data), &device)?;
        let texts = data.benchmark.documents(Set::Unlearn);
        fit::pretraining::<P>("relearn.", &relearn, &pre.config, texts, &device)?;
        let claimed = Output::claim(reproduce.output.as_deref())?;
        let output = claimed.path();
        let bench: Bench<P> = Bench { data: &data, output, device: &device, log };

        let mut models = vec![bench.measured("off-the-shelf", &base)?];
        let (row, cost_of_baseline) = bench.baseline(&base, &baseline)?;
        let theta_baseline = ModelFolder::open(Folder::Disk(output.join("baseline").join("model")))?;
        let operated = bench.surgery("surgery", &pre, (&surgery, bounding.as_ref()))?;
        let plain = bench.surgery("surgery-paper", &pre, (&paper, bounding_paper.as_ref()))?;
        models.push(Priced::unpaid("θ_pre", operated.0));
        models.push(row);
        let theta_surgery = ModelFolder::open(Folder::Disk(output.join("surgery").join("model")))?;
        let cost = cost_of_baseline.compare(&operated.1);
        models.extend([operated.1, Priced { name: "θ_surgery (paper)".into(), ..plain.1 }]);

        let mut relearning = Vec::new();
        for (name, files) in [("θ_surgery", &theta_surgery), ("θ_baseline", &theta_baseline)] {
            log.info(&format!("relearning: {name}"));
            relearning.push(bench.relearn(name, files, &relearn, surgery.train.steps)?);
        }
        let outcomes = Outcomes { models, cost, relearning, output: output.display().to_string() };
        let json = serde_json::to_string_pretty(&outcomes).expect("strings and numbers");
        write_text(&output.join("reproduce.json"), &format!("{json}\n"))?;
        if common.json { print_json(&outcomes) } else { print(&outcomes.summary()) }
    }
}

impl Outcomes {
    /// The results as text.
    fn summary(&self) -> String {
        let CostOfUpdate { baseline_accuracy, surgery_accuracy, baseline_tokens, surgery_tokens, ratio } =
            &self.cost;
        let mut text = format!(
            "{}\n\nedit_update, validation questions: θ_surgery {surgery_accuracy:.1} %, θ_baseline {baseline_accuracy:.1} \
             %, which first came within {WITHIN} points of that after {baseline_tokens} tokens; θ_surgery took \
             {surgery_tokens} ({ratio:.2} of these)\n\nunlearn, test questions, after relearning one text in {RELEARNT}:\n",
            table_of_models(&self.models)
        );
        for Relearnt { model, before, after, after_of_others, steps } in &self.relearning {
            text.push_str(&format!(
                "{model:<18}{before:>6.1} % → {after:>5.1} % ({after_of_others:.1} % on the subjects not relearnt), {steps} steps\n"
            ));
        }
        text.push_str(&format!("\nmodels and reports: {}", self.output));
        text
    }
}

/// The accuracy of θ_baseline on update questions during its training.
struct Learning {
    /// Tokens so far and accuracy, at each mid-run evaluation.
    points: Vec<(usize, f64)>,
}

impl Learning {
    fn compare(&self, surgery: &Priced) -> CostOfUpdate {
        let last = self.points.last().map_or(f64::NAN, |(_, accuracy)| *accuracy);
        let near = self.points.iter().find(|(_, accuracy)| *accuracy >= last - WITHIN);
        let baseline_tokens = near.map_or(0, |(tokens, _)| *tokens);
        let own = surgery.evaluation.accuracy.get(Set::EditUpdate.name());
        let surgery_tokens = surgery.tokens.unwrap_or(0);
        CostOfUpdate {
            baseline_accuracy: last,
            surgery_accuracy: own.and_then(|accuracy| accuracy.validation).unwrap_or(f64::NAN),
            baseline_tokens,
            surgery_tokens,
            ratio: surgery_tokens as f64 / baseline_tokens as f64,
        }
    }
}

impl<P: Platform> Bench<'_, P> {
    fn evaluated(&self, model: &Llama<P::Infer>) -> Result<Evaluation> {
        let mut progress = Progress::new(self.log);
        progress.stage("evaluating");
        let found =
            evaluate::<P::Infer, P::Kernels>(model, &self.data.benchmark, Against::Nothing, &mut progress)?;
        progress.finish();
        Ok(found)
    }

    /// Evaluates an input model.
    fn measured(&self, name: &str, files: &ModelFolder) -> Result<Priced> {
        self.log.info(name);
        Ok(Priced::unpaid(name, self.evaluated(&files.load::<P>(Precision::F32, self.device)?)?))
    }

    fn pretrained(
        &self,
        model: Llama<P::Train>,
        documents: &[Example],
        recipe: &PretrainRecipe,
        mid_run: Option<MidRunEvaluation>,
        observer: &mut dyn Observer,
    ) -> Result<(Llama<P::Train>, Cost)> {
        let state = beginning(model, documents.len(), recipe);
        let checkpointer = &mut NoCheckpoints;
        pretrain::<P::Train, P::Kernels>(state, documents, recipe, mid_run, checkpointer, observer)
    }

    /// Trains θ_baseline.
    fn baseline(&self, base: &ModelFolder, recipe: &PretrainRecipe) -> Result<(Priced, Learning)> {
        self.log.info("θ_baseline");
        let folder = self.folder("baseline")?;
        let mut progress = Progress::recording(self.log, &folder, Metrics::Pretraining)?;
        progress.stage("training the baseline");
        let documents = in_proportion(self.data);
        let checkpoint = base.checkpoint()?;
        let model: Llama<P::Train> =
            Llama::load(&base.config, &checkpoint, recipe.model.precision, self.device)?;
        let every = recipe.train.steps.div_ceil(POINTS).max(1);
        let questions = questions_of(&self.data.benchmark, Set::EditUpdate, Split::Validation);
        let mid_run = MidRunEvaluation::of(questions, every);
        let (model, cost) = self
            .pretrained(model, &documents, recipe, Some(mid_run), &mut progress)
            .map_err(|error| progress.explain(error))?;
        progress.finish();
        let dtype = recipe.model.save_dtype;
        model.valid().save(&folder.join("model"), &base.folder, Some(&checkpoint), dtype)?;

        let mut tokens = 0;
        let so_far: Vec<usize> = read_lines(&folder.join(METRICS))?
            .iter()
            .map(|line| {
                tokens += line["tokens"].as_u64().unwrap_or(0) as usize;
                tokens
            })
            .collect();
        let point = |line: &serde_json::Value| {
            let step = line["step"].as_u64()? as usize;
            let accuracy = line["accuracy"][Set::EditUpdate.name()]["validation"].as_f64()?;
            Some((*so_far.get(step.checked_sub(1)?)?, accuracy))
        };
        let points = read_lines(&folder.join(EVALUATIONS))?.iter().filter_map(point).collect();
        let evaluation = self.evaluated(&model.valid())?;
        let name = "θ_baseline".into();
        let row = Priced { name, evaluation, tokens: Some(cost.tokens), seconds: Some(cost.seconds) };
        Ok((row, Learning { points }))
    }

    /// Performs the operation of `recipe`, as `surgery run` does. Returns the evaluations before and after.
    fn surgery(
        &self,
        name: &str,
        pre: &ModelFolder,
        (recipe, bounding): (&Recipe, Option<&ModelFolder>),
    ) -> Result<(Evaluation, Priced)> {
        self.log.info(name);
        let started = Instant::now();
        let output = self.folder(name)?;
        let operation = operation(recipe, pre, bounding, self.data, &output, false);
        let report = perform::<P>(&operation, self.device, self.log)?;
        self.log.detail(&format!("{name}: {:.1} s in all", started.elapsed().as_secs_f64()));
        let priced = Priced {
            name: "θ_surgery".into(),
            evaluation: report.after,
            tokens: Some(report.tokens),
            seconds: Some(report.train_seconds),
        };
        Ok((report.before, priced))
    }

    /// Trains a model on a part of the unlearn documents, and evaluates it on questions about all of them.
    fn relearn(
        &self,
        name: &str,
        files: &ModelFolder,
        recipe: &PretrainRecipe,
        steps: usize,
    ) -> Result<Relearnt> {
        let model = Llama::<P::Train>::trainable(files.load::<P>(recipe.model.precision, self.device)?);
        let texts = self.data.benchmark.documents(Set::Unlearn);
        let (chosen, documents): (Vec<usize>, Vec<Example>) =
            texts.iter().cloned().enumerate().step_by(RELEARNT).unzip();
        let mut recipe = recipe.clone();
        recipe.train.steps = steps;
        let before = percent(self.unlearn_answers(&model.valid())?);
        let (model, _) = self.pretrained(model, &documents, &recipe, None, &mut Silent)?;
        let subjects = self.data.corpus.documents(Set::Unlearn);
        let subject = |index: &usize| subjects[*index].subject.as_deref();
        let relearnt: Vec<&str> = chosen.iter().filter_map(subject).collect();
        let after = self.unlearn_answers(&model.valid())?;
        let is_other = |(subject, _): &(Option<&str>, bool)| {
            subject.as_ref().is_none_or(|subject| !relearnt.contains(subject))
        };
        Ok(Relearnt {
            model: name.into(),
            before,
            after: percent(after.iter().copied()),
            after_of_others: percent(after.iter().copied().filter(is_other)),
            steps,
        })
    }

    /// The subject of each test question of unlearn, and whether it was answered correctly.
    fn unlearn_answers(&self, model: &Llama<P::Infer>) -> Result<Vec<(Option<&str>, bool)>> {
        let questions = questions_of(&self.data.benchmark, Set::Unlearn, Split::Test);
        let (_, details) =
            evaluate_in_detail::<P::Infer, P::Kernels>(model, &questions, Against::Nothing, &mut Silent)?;
        let name = Set::Unlearn.name();
        let asked = self.data.questions.iter().filter(|set| set.name == name).flat_map(|set| &set.questions);
        let asked = asked.filter(|question| question.split == Split::Test);
        let answers = details.answers.get(name).into_iter().flatten();
        Ok(asked.zip(answers).map(|(question, &right)| (question.subject.as_deref(), right)).collect())
    }

    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.output.join(name);
        std::fs::create_dir_all(&folder).map_err(Error::write(&folder))?;
        Ok(folder)
    }
}

/// The share of correct answers in percent.
fn percent<'a>(answers: impl IntoIterator<Item = (Option<&'a str>, bool)>) -> f64 {
    let right: Vec<bool> = answers.into_iter().map(|(_, right)| right).collect();
    100.0 * right.iter().filter(|right| **right).count() as f64 / right.len() as f64
}

/// The questions of one half of one set, without documents.
fn questions_of(benchmark: &Benchmark, set: Set, half: Split) -> Benchmark {
    let of_set = benchmark.questions.iter().filter(|(name, _)| name == set.name());
    let of_half = of_set.map(|(name, all)| {
        let wanted = all.iter().filter(|question| question.split == half);
        (name.clone(), wanted.cloned().collect())
    });
    Benchmark { sets: Vec::new(), questions: of_half.collect() }
}

/// Update and retain documents in the paper's proportion: one text of every subject, and every retain text once. If a
/// subject has several wordings, the retain texts are repeated as often.
fn in_proportion(data: &DataFolder) -> Vec<Example> {
    let new = data.benchmark.documents(Set::EditUpdate);
    let name = |document: &'_ Document| document.subject.clone().unwrap_or_else(|| document.id.clone());
    let mut subjects: Vec<String> = data.corpus.documents(Set::EditUpdate).iter().map(name).collect();
    subjects.sort();
    subjects.dedup();
    let wordings = (new.len() as f64 / subjects.len().max(1) as f64).round().max(1.0) as usize;
    let kept = data.benchmark.documents(Set::Retain);
    let repeated = std::iter::repeat_n(kept, wordings).flatten();
    new.iter().chain(repeated).cloned().collect()
}

/// Refuses data without the questions that the table needs.
fn refuse_without_questions(data: &DataFolder) -> Result<()> {
    for set in [Set::Unlearn, Set::EditUpdate] {
        if !data.questions.iter().any(|questions| questions.name == set.name()) {
            return Err(Error::Data {
                path: data.folder.label(&format!("questions/{set}.jsonl")),
                problem: "is missing".into(),
                remedy: "the paper's table needs questions about unlearn and update documents".into(),
            });
        }
    }
    Ok(())
}

/// Overrides of the recipes, each by its recipe's name: `default.train.steps=10`.
struct Overrides(Vec<(&'static str, String)>);

impl Overrides {
    fn of(items: &[String]) -> Outcome<Self> {
        let mut all = Vec::new();
        for item in items {
            let found = NAMES
                .into_iter()
                .find_map(|name| Some((name, item.strip_prefix(name)?.strip_prefix('.')?.to_owned())));
            let Some(found) = found else {
                return Err(Failure::Usage(format!(
                    "--set {item}: expected RECIPE.SECTION.KEY=VALUE with a recipe of {}",
                    NAMES.join(", ")
                )));
            };
            all.push(found);
        }
        Ok(Self(all))
    }

    fn recipe<R: serde::de::DeserializeOwned + Check>(&self, name: &str) -> Result<R> {
        let own = self.0.iter().filter(|(recipe, _)| *recipe == name);
        inputs::recipe(name, &own.map(|(_, item)| item.clone()).collect::<Vec<_>>())
    }
}
