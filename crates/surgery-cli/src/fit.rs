//! Whether there is the memory for what is to be done: told before anything is loaded, with what would fit.
//!
//! What will be held at the fullest moment is [counted](Account); it is asked for with a tenth more, for the count is
//! that exact, and refused where [less may still be filled](Platform::room). Where no one tells how much may be filled,
//! nothing is refused. Before the data is read, what needs none of it is counted: weights, gradients and moments.

use surgery_core::account::{Account, Plan};
use surgery_core::batch::BATCH_TOKENS;
use surgery_core::config::LlamaConfig;
use surgery_core::data::{DocumentsPerStep, Example, Set, StepSample};
use surgery_core::folders::{DataFolder, ModelFolder};
use surgery_core::kernels::Footprint;
use surgery_core::memory::shown;
use surgery_core::objective::Weighing;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::pretrain::most_tokens;
use surgery_core::recipe::{Precision, PretrainRecipe, PretrainSection, Recipe, ReferenceForm, TrainSection};
use surgery_core::replay::{stand_ins, tokens_at_once, tokens_in_cache};
use surgery_core::surgery::{TrainingDocuments, sampler};
use surgery_core::training::FORESEEN;
use surgery_core::{Error, Result};

/// The shortest window that is proposed, in tokens.
const SHORTEST: usize = 64;

/// What is to be asked for, of what was counted.
fn with_headroom(bytes: u64) -> u64 {
    bytes + bytes / 10
}

/// The models of an operation.
#[derive(Clone, Copy)]
pub struct Models<'a> {
    /// The one that is operated on.
    pub operated: &'a ModelFolder,
    /// The one that bounds the ascent, which is run before the first step.
    pub bounding: Option<&'a ModelFolder>,
}

/// Refuses an operation that does not fit, as far as can be told without the data where there is none. `prefix` stands
/// before the recipe's keys where they are named.
pub fn operation<P: Platform>(
    prefix: &str,
    recipe: &Recipe,
    models: Models,
    data: Option<&DataFolder>,
    device: &DeviceOf<P>,
) -> Result<()> {
    type Options = Vec<Vec<Change<Recipe>>>;
    let mut options: Options = Vec::new();
    let mut one =
        |name: String, change: Box<dyn Fn(&mut Recipe)>| options.push(vec![Change { name, change }]);
    one("train.recompute = true".into(), Box::new(|recipe| recipe.train.recompute = true));
    one(
        "train.reference = \"cached\"".into(),
        Box::new(|recipe| recipe.train.reference = ReferenceForm::Cached),
    );
    for (name, precision) in precisions::<P>() {
        one(name, Box::new(move |recipe| recipe.model.precision = precision));
    }
    if let Some(data) = data {
        let size = largest_step(recipe, &models.operated.config, data);
        let whole = size.batch(recipe.train.batch_tokens).tokens;
        options.push(smaller_batches(whole, size.longest, |recipe: &mut Recipe, tokens| {
            recipe.train.batch_tokens = tokens;
        }));
    }
    options.push(windows(
        models.operated.config.context(recipe.train.max_tokens),
        |recipe: &mut Recipe, length| {
            recipe.train.max_tokens = length;
        },
    ));
    options.push(fewer(recipe.train.documents_per_step));
    let nothing_written = Box::new(|recipe: &mut Recipe| recipe.replay.documents = 0);
    options.push(vec![Change { name: "replay.documents = 0".into(), change: nothing_written }]);
    let bytes = |recipe: &Recipe| operation_memory::<P>(recipe, models, data);
    refuse::<P, Recipe>("the operation", prefix, recipe, &options, bytes, device)
}

/// As [`operation`], for a pretraining.
pub fn pretraining<P: Platform>(
    prefix: &str,
    recipe: &PretrainRecipe,
    config: &LlamaConfig,
    documents: &[Example],
    device: &DeviceOf<P>,
) -> Result<()> {
    let mut options: Vec<Vec<Change<PretrainRecipe>>> = vec![vec![Change {
        name: "train.recompute = true".into(),
        change: Box::new(|recipe| recipe.train.recompute = true),
    }]];
    for (name, precision) in precisions::<P>() {
        let change = Box::new(move |recipe: &mut PretrainRecipe| recipe.model.precision = precision);
        options.push(vec![Change { name, change }]);
    }
    let size = pretraining_step(recipe, config, documents);
    let whole = size.batch(recipe.train.batch_tokens).tokens;
    options.push(smaller_batches(whole, size.longest, |recipe: &mut PretrainRecipe, tokens| {
        recipe.train.batch_tokens = tokens;
    }));
    options.push(windows(config.context(recipe.train.max_tokens), |recipe: &mut PretrainRecipe, length| {
        recipe.train.max_tokens = length;
    }));
    let fewer = halves(recipe.train.documents_per_step, 1).map(|count| Change {
        name: format!("train.documents_per_step = {count}"),
        change: Box::new(move |recipe: &mut PretrainRecipe| recipe.train.documents_per_step = count),
    });
    options.push(fewer.collect());
    let bytes = |recipe: &PretrainRecipe| {
        pretraining_memory::<P>(recipe, config, pretraining_step(recipe, config, documents)).total()
    };
    refuse::<P, PretrainRecipe>("the training", prefix, recipe, &options, bytes, device)
}

/// Refuses to measure models on texts, of which `longest` says how many tokens a model of a shape runs over at once, where
/// that does not fit.
pub fn evaluation<P: Platform>(
    what: &str,
    models: &[&ModelFolder],
    longest: impl Fn(&LlamaConfig) -> usize,
    device: &DeviceOf<P>,
) -> Result<()> {
    let account = |config: &LlamaConfig| of_inference::<P>(config, longest(config), 0);
    inference::<P>(what, models, account, device)
}

/// Refuses to let a model go on from a prompt of `prompt` tokens, which it reads at once, to a text of `tokens` in all,
/// where that does not fit.
pub fn generation<P: Platform>(
    model: &ModelFolder,
    prompt: usize,
    tokens: usize,
    device: &DeviceOf<P>,
) -> Result<()> {
    let account = |config: &LlamaConfig| of_inference::<P>(config, prompt, tokens);
    inference::<P>("the generation", &[model], account, device)
}

/// Refuses to run models, of which `account` counts one, where that does not fit: all of their weights are held, and
/// one works at a time.
fn inference<P: Platform>(
    what: &str,
    models: &[&ModelFolder],
    account: impl Fn(&LlamaConfig) -> Account,
    device: &DeviceOf<P>,
) -> Result<()> {
    // Sizes that the weights belie are bad input, not a lack of memory.
    for files in models {
        files.config.check(&files.checkpoint()?)?;
    }
    let accounts = || models.iter().map(|files| account(&files.config));
    let weights: u64 = accounts().map(|account| account.weights).sum();
    let work = accounts().map(|account| account.total() - account.weights).max().unwrap_or(0);
    refuse::<P, ()>(what, "", &(), &[], |()| weights + work, device)
}

/// Refuses a model of this shape, on which a dry run measures its times by a step of about so many tokens, where it
/// does not fit.
pub fn stand_in<P: Platform>(
    recipe: &Recipe,
    config: &LlamaConfig,
    tokens: usize,
    device: &DeviceOf<P>,
) -> Result<()> {
    // A document more than was asked for, of that many tokens at most.
    let tokens = 2 * tokens;
    let live_reference = recipe.train.reference == ReferenceForm::Live;
    let plan = plan::<P>(config, recipe.model.precision, recipe.train.recompute, tokens);
    let account = Account::new(config, &Plan { tokens, retained: tokens, live_reference, ..plan });
    refuse::<P, ()>("measuring the time", "", &(), &[], |()| account.total(), device)
}

/// Bytes that an operation holds at its fullest moment: in a step, in an evaluation, where the model generates replay
/// documents, or where another model bounds the ascent.
pub fn operation_memory<P: Platform>(recipe: &Recipe, models: Models, data: Option<&DataFolder>) -> u64 {
    let config = &models.operated.config;
    let longest = |config: &LlamaConfig| data.map_or(0, |data| data.longest(config));
    let evaluation = of_inference::<P>(config, longest(config), 0);
    let writing = of_inference::<P>(config, tokens_at_once(&recipe.replay), tokens_in_cache(&recipe.replay));
    // The bounding model is there while the model writes, too, and measures what it has written.
    let bounding = models.bounding.map(|files| of_inference::<P>(&files.config, longest(&files.config), 0));
    let before = match bounding {
        Some(bounding) => (evaluation.weights + bounding.total()).max(writing.total() + bounding.weights),
        None => writing.total(),
    };
    let accounts = [step_memory::<P>(recipe, config, data), evaluation];
    accounts.map(|account| account.total()).into_iter().fold(before, u64::max)
}

/// The largest step of a run, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct StepSize {
    /// All input tokens.
    tokens: usize,
    /// Those of documents that are compared with the reference's distribution or states.
    compared: usize,
    /// The longest window.
    longest: usize,
}

impl StepSize {
    /// The largest forward pass of the step, where no more than `batch_tokens` are in one; 0 for no limit.
    fn batch(self, batch_tokens: usize) -> Self {
        let most = if batch_tokens == 0 { self.tokens } else { batch_tokens.max(self.longest) };
        Self { tokens: self.tokens.min(most), compared: self.compared.min(most), ..self }
    }
}

/// The largest step of an operation. The seed says which documents the steps will draw: the step with the most tokens
/// decides, of as many as show it.
fn largest_step(recipe: &Recipe, config: &LlamaConfig, data: &DataFolder) -> StepSize {
    let context = config.context(recipe.train.max_tokens);
    let documents =
        TrainingDocuments { benchmark: &data.benchmark, replay: stand_ins(&recipe.replay, context) };
    let objective = recipe.objective.for_model(config, recipe.train.seed);
    let sets: Vec<(Set, bool, bool)> = recipe
        .objective
        .sets()
        .into_iter()
        .map(|set| (set, objective.usage(set).of_reference().is_some(), objective.needs(set).alternative))
        .collect();
    // A document's tokens and those of the alternative that it is compared with, the longest of them.
    let tokens = |example: &Example, has_alternative: bool| {
        let alternatives = example.alternatives.iter().filter(|_| has_alternative).map(Example::len);
        example.len() + alternatives.max().unwrap_or(0)
    };
    let longest = sets.iter().flat_map(|&(set, ..)| data.benchmark.documents(set)).chain(&documents.replay);
    let longest = longest
        .flat_map(|document| std::iter::once(document).chain(&document.alternatives))
        .map(Example::len);
    let longest = longest.max().unwrap_or(0).min(context);
    let mut sampler = sampler(&data.corpus, recipe);
    let size = |draw: StepSample| {
        let mut size = StepSize { longest, ..StepSize::default() };
        for &(set, is_compared, has_alternative) in &sets {
            let drawn = draw.get(&set).into_iter().flatten();
            let of_set: usize =
                drawn.map(|&index| tokens(documents.document(set, index), has_alternative)).sum();
            size.tokens += of_set;
            size.compared += if is_compared { of_set } else { 0 };
        }
        size
    };
    let steps = recipe.train.steps.min(FORESEEN);
    (0..steps).map(|_| size(sampler.draw())).max().unwrap_or(StepSize { longest, ..StepSize::default() })
}

/// The number of values that an operation on a model of this shape trains.
pub fn trained_values(recipe: &Recipe, config: &LlamaConfig) -> u64 {
    let parameters = config.parameters();
    // Globs that match nothing are refused elsewhere.
    parameters.train_only(&recipe.train.trainable).unwrap_or(parameters).trained_values()
}

/// The memory of a step of an operation.
pub fn step_memory<P: Platform>(recipe: &Recipe, config: &LlamaConfig, data: Option<&DataFolder>) -> Account {
    let size = data.map_or_else(StepSize::default, |data| largest_step(recipe, config, data));
    sized_step_memory::<P>(recipe, config, size)
}

/// The memory of a step of this size.
fn sized_step_memory<P: Platform>(recipe: &Recipe, config: &LlamaConfig, size: StepSize) -> Account {
    let batch = size.batch(recipe.train.batch_tokens);
    let plan = plan::<P>(config, recipe.model.precision, recipe.train.recompute, batch.longest);
    let is_divided = batch.tokens < size.tokens;
    let live_reference = recipe.train.reference == ReferenceForm::Live;
    let trained = trained_values(recipe, config);
    let retained = batch.compared;
    let plan = Plan { tokens: batch.tokens, retained, trained, live_reference, is_divided, ..plan };
    Account::new(config, &plan)
}

/// Chooses `train.batch_tokens` where it is 0: the tokens of the largest step where that fits in memory; else half of them,
/// a quarter, and so on, down to [`FEWEST`] or the longest window.
pub fn choose_batch_tokens<P: Platform>(
    recipe: &mut Recipe,
    models: Models,
    data: &DataFolder,
    device: &DeviceOf<P>,
) {
    if recipe.train.batch_tokens == 0 {
        let size = largest_step(recipe, &models.operated.config, data);
        recipe.train.batch_tokens = chosen::<P>(size, device, |batch_tokens| {
            let train = TrainSection { batch_tokens, ..recipe.train.clone() };
            sized_step_memory::<P>(&Recipe { train, ..recipe.clone() }, &models.operated.config, size)
        });
    }
}

/// As [`choose_batch_tokens`], for a pretraining.
pub fn choose_pretraining_batch_tokens<P: Platform>(
    recipe: &mut PretrainRecipe,
    config: &LlamaConfig,
    documents: &[Example],
    device: &DeviceOf<P>,
) {
    if recipe.train.batch_tokens == 0 {
        let size = pretraining_step(recipe, config, documents);
        recipe.train.batch_tokens = chosen::<P>(size, device, |batch_tokens| {
            let train = PretrainSection { batch_tokens, ..recipe.train.clone() };
            pretraining_memory::<P>(&PretrainRecipe { train, ..recipe.clone() }, config, size)
        });
    }
}

/// The fewest tokens of a forward pass that are chosen or proposed: products of fewer rows are slow.
const FEWEST: usize = 512;

/// The most tokens of a forward pass with which a step fits.
fn chosen<P: Platform>(size: StepSize, device: &DeviceOf<P>, memory: impl Fn(usize) -> Account) -> usize {
    let whole = size.tokens.max(1);
    let Some(room) = P::room(device) else { return whole };
    let least = FEWEST.max(size.longest);
    let options = std::iter::once(whole).chain(halves(whole, least)).chain((least < whole).then_some(least));
    let fits = |tokens: &usize| with_headroom(memory(*tokens).total()) <= room.bytes;
    // Where nothing fits, the whole step: what would fit is then told beside all else.
    options.into_iter().find(fits).unwrap_or(whole)
}

/// The largest step of a pretraining.
fn pretraining_step(recipe: &PretrainRecipe, config: &LlamaConfig, documents: &[Example]) -> StepSize {
    let longest = documents.iter().map(Example::len).max().unwrap_or(0);
    let longest = longest.min(config.context(recipe.train.max_tokens));
    StepSize { tokens: most_tokens(documents, recipe), compared: 0, longest }
}

/// The memory of a step of a pretraining of this size.
fn pretraining_memory<P: Platform>(recipe: &PretrainRecipe, config: &LlamaConfig, size: StepSize) -> Account {
    let batch = size.batch(recipe.train.batch_tokens);
    let plan = plan::<P>(config, recipe.model.precision, recipe.train.recompute, batch.longest);
    let is_divided = batch.tokens < size.tokens;
    let account = Account::new(config, &Plan { tokens: batch.tokens, is_divided, ..plan });
    Account { reference: 0, ..account }
}

/// Fewer tokens in a forward pass than `whole`.
fn smaller_batches<R>(
    whole: usize,
    longest: usize,
    set: impl Fn(&mut R, usize) + Copy + 'static,
) -> Vec<Change<R>> {
    let change = |tokens| Change {
        name: format!("train.batch_tokens = {tokens}"),
        change: Box::new(move |recipe: &mut R| set(recipe, tokens)),
    };
    halves(whole, FEWEST.min(longest.max(1))).map(change).collect()
}

/// What running a model over `tokens` at once holds, with the keys and values of `remembered` in a cache.
fn of_inference<P: Platform>(config: &LlamaConfig, tokens: usize, remembered: usize) -> Account {
    let kept = <P::Kernels as Footprint<P::Train>>::kept_values(config, tokens);
    Account::of_inference(config, tokens.max(BATCH_TOKENS), remembered, kept)
}

/// The plan of a step without a token, of windows of at most `longest`.
fn plan<P: Platform>(config: &LlamaConfig, precision: Precision, recompute: bool, longest: usize) -> Plan {
    Plan {
        precision,
        tokens: 0,
        retained: 0,
        trained: config.num_parameters(),
        is_divided: false,
        recompute,
        live_reference: false,
        kept_values: <P::Kernels as Footprint<P::Train>>::kept_values(config, longest),
        work_values: <P::Kernels as Footprint<P::Train>>::work_values(config),
        reserve: <P::Kernels as Footprint<P::Train>>::RESERVE,
    }
}

/// A change of a recipe, by the name that its key and value have there.
struct Change<R> {
    name: String,
    change: Box<dyn Fn(&mut R)>,
}

/// The precisions of a platform.
fn precisions<P: Platform>() -> impl Iterator<Item = (String, Precision)> {
    P::precisions().iter().map(|&precision| (format!("model.precision = {:?}", precision.name()), precision))
}

/// Half of `count`, half of that, and so on down to `least`.
fn halves(count: usize, least: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(count / 2), |count| Some(count / 2)).take_while(move |&count| count >= least)
}

/// Shorter windows.
fn windows<R>(context: usize, set: impl Fn(&mut R, usize) + Copy + 'static) -> Vec<Change<R>> {
    let change = |length| Change {
        name: format!("train.max_tokens = {length}"),
        change: Box::new(move |recipe: &mut R| set(recipe, length)),
    };
    halves(context, SHORTEST).map(change).collect()
}

/// Fewer documents of each set in a step.
fn fewer(documents: DocumentsPerStep) -> Vec<Change<Recipe>> {
    let DocumentsPerStep { unlearn, edit_unlearn, edit_update, retain } = documents;
    let most = unlearn.max(edit_unlearn).max(edit_update).max(retain);
    let rounds = halves(most, 1).count();
    let change = |round: usize| {
        let part = |count: usize| (count >> round).max(1);
        let [unlearn, edit_unlearn, edit_update, retain] =
            [unlearn, edit_unlearn, edit_update, retain].map(part);
        let fewer = DocumentsPerStep { unlearn, edit_unlearn, edit_update, retain };
        let value = match fewer == DocumentsPerStep::all(unlearn) {
            true => unlearn.to_string(),
            false => format!(
                "{{ unlearn = {unlearn}, edit_unlearn = {edit_unlearn}, edit_update = {edit_update}, retain = {retain} }}"
            ),
        };
        Change {
            name: format!("train.documents_per_step = {value}"),
            change: Box::new(move |recipe: &mut Recipe| recipe.train.documents_per_step = fewer),
        }
    };
    (1..=rounds).map(change).collect()
}

/// Refuses what takes `bytes` of `recipe` where there is not the room. Each of `options` is a series of changes, the
/// slightest first.
fn refuse<P: Platform, R: Clone>(
    what: &str,
    prefix: &str,
    recipe: &R,
    options: &[Vec<Change<R>>],
    bytes: impl Fn(&R) -> u64,
    device: &DeviceOf<P>,
) -> Result<()> {
    let Some(room) = P::room(device) else { return Ok(()) };
    let needed = with_headroom(bytes(recipe));
    if needed <= room.bytes {
        return Ok(());
    }
    let remedy = what_fits(prefix, recipe, options, |recipe| with_headroom(bytes(recipe)), room.bytes);
    Err(Error::Memory { what: what.into(), needed, room, remedy })
}

/// The options that alone bring what is needed within `room`, or those that do so together.
fn what_fits<R: Clone>(
    prefix: &str,
    recipe: &R,
    options: &[Vec<Change<R>>],
    needed: impl Fn(&R) -> u64,
    room: u64,
) -> String {
    const OTHERWISE: &str = "take a smaller model, or a machine with more memory";
    let changed = |recipe: &R, change: &Change<R>| {
        let mut recipe = recipe.clone();
        (change.change)(&mut recipe);
        recipe
    };
    let alone: Vec<String> = options
        .iter()
        .filter_map(|series| {
            let fitting = series.iter().map(|change| (change, needed(&changed(recipe, change))));
            let (change, needed) = fitting.into_iter().find(|(_, needed)| *needed <= room)?;
            Some(format!("`{prefix}{}` ({})", change.name, shown(needed)))
        })
        .collect();
    if !alone.is_empty() {
        return format!("it would fit with {}", alone.join(", or with "));
    }
    let (mut together, mut names) = (recipe.clone(), Vec::new());
    for series in options {
        let before = needed(&together);
        let mut best = None;
        for change in series {
            let next = changed(&together, change);
            let bytes = needed(&next);
            if bytes < before {
                best = Some((format!("`{prefix}{}`", change.name), next));
            }
            if bytes <= room {
                break;
            }
        }
        let Some((name, next)) = best else { continue };
        names.push(name);
        together = next;
        let bytes = needed(&together);
        if bytes <= room {
            return format!("it would fit with {} together ({})", names.join(", "), shown(bytes));
        }
    }
    match names.is_empty() {
        true => OTHERWISE.into(),
        false => {
            let least = shown(needed(&together));
            format!("with {} it would still be {least}: {OTHERWISE}", names.join(", "))
        }
    }
}
