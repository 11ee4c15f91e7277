//! Memory checks before anything is loaded. A refusal names settings that would fit.
//!
//! The peak memory is [counted](Account), and a tenth is added, because the count is that exact. A command is refused if
//! that exceeds [the room](Platform::room). If the room is unknown, nothing is refused. Before the data is read, only
//! weights, gradients and moments are counted.

mod remedy;
mod step;

use surgery_core::account::{Account, Plan};
use surgery_core::batch::BATCH_TOKENS;
use surgery_core::config::LlamaConfig;
use surgery_core::data::Example;
use surgery_core::folders::{DataFolder, ModelFolder};
use surgery_core::kernels::Footprint;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::recipe::{Precision, PretrainRecipe, PretrainSection, Recipe, ReferenceForm, TrainSection};
use surgery_core::replay::{tokens_at_once, tokens_in_cache};
use surgery_core::{Error, Result};

use self::remedy::{Change, fewer, halves, precisions, remedies, smaller_batches, windows};
use self::step::{StepSize, largest_step, longest_window, pretraining_step};

/// The memory to require for a count of `bytes`.
fn with_headroom(bytes: u64) -> u64 {
    bytes + bytes / 10
}

/// The models of an operation.
#[derive(Clone, Copy)]
pub struct Models<'a> {
    /// The model to train.
    pub operated: &'a ModelFolder,
    /// The model that bounds the ascent, which runs before the first step.
    pub bounding: Option<&'a ModelFolder>,
}

/// Refuses an operation that does not fit. Without `data`, it counts only the memory that does not depend on the data.
/// Messages put `prefix` before the recipe's keys.
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
    let no_replay = Box::new(|recipe: &mut Recipe| recipe.replay.documents = 0);
    options.push(vec![Change { name: "replay.documents = 0".into(), change: no_replay }]);
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

/// Refuses to measure models on texts if that does not fit. `longest` gives the maximum number of tokens of a forward pass
/// of a model of some shape.
pub fn evaluation<P: Platform>(
    what: &str,
    models: &[&ModelFolder],
    longest: impl Fn(&LlamaConfig) -> usize,
    device: &DeviceOf<P>,
) -> Result<()> {
    let account = |config: &LlamaConfig| of_inference::<P>(config, longest(config), 0);
    inference::<P>(what, models, account, device)
}

/// Refuses to continue a prompt of `prompt` tokens, read in one forward pass, to a text of `tokens` tokens if that does not
/// fit.
pub fn generation<P: Platform>(
    model: &ModelFolder,
    prompt: usize,
    tokens: usize,
    device: &DeviceOf<P>,
) -> Result<()> {
    let account = |config: &LlamaConfig| of_inference::<P>(config, prompt, tokens);
    inference::<P>("the generation", &[model], account, device)
}

/// Refuses to run models if they do not fit. `account` counts one model. The weights of all are in memory, and one model
/// runs at a time.
fn inference<P: Platform>(
    what: &str,
    models: &[&ModelFolder],
    account: impl Fn(&LlamaConfig) -> Account,
    device: &DeviceOf<P>,
) -> Result<()> {
    // A configuration that contradicts the weights is an input error, not a lack of memory.
    for files in models {
        files.config.check(&files.checkpoint()?)?;
    }
    let accounts = || models.iter().map(|files| account(&files.config));
    let weights: u64 = accounts().map(|account| account.weights).sum();
    let work = accounts().map(|account| account.total() - account.weights).max().unwrap_or(0);
    refuse::<P, ()>(what, "", &(), &[], |()| weights + work, device)
}

/// Refuses the stand-in of a dry run, a model of this shape with steps of about `tokens` tokens, if it does not fit.
pub fn stand_in<P: Platform>(
    recipe: &Recipe,
    config: &LlamaConfig,
    tokens: usize,
    device: &DeviceOf<P>,
) -> Result<()> {
    // The step may have one document more, of at most `tokens` tokens.
    let tokens = 2 * tokens;
    let live_reference = recipe.train.reference == ReferenceForm::Live;
    let plan = plan::<P>(config, recipe.model.precision, recipe.train.recompute, tokens);
    let account = Account::new(config, &Plan { tokens, retained: tokens, live_reference, ..plan });
    refuse::<P, ()>("measuring the time", "", &(), &[], |()| account.total(), device)
}

/// The peak memory of an operation in bytes: in a step, in an evaluation, while the model generates replay documents, or
/// while another model computes bounds.
pub fn operation_memory<P: Platform>(recipe: &Recipe, models: Models, data: Option<&DataFolder>) -> u64 {
    let config = &models.operated.config;
    // The NLL of documents to unlearn is measured in the windows of training.
    let longest = |config: &LlamaConfig| {
        data.map_or(0, |data| data.longest(config).max(longest_window(recipe, config, data)))
    };
    let evaluation = of_inference::<P>(config, longest(config), 0);
    let generation =
        of_inference::<P>(config, tokens_at_once(&recipe.replay), tokens_in_cache(&recipe.replay));
    // The bounding model is in memory during the generation, too, and scores the generated documents.
    let bounding = models.bounding.map(|files| of_inference::<P>(&files.config, longest(&files.config), 0));
    let before = match bounding {
        Some(bounding) => (evaluation.weights + bounding.total()).max(generation.total() + bounding.weights),
        None => generation.total(),
    };
    let accounts = [step_memory::<P>(recipe, config, data), evaluation];
    accounts.map(|account| account.total()).into_iter().fold(before, u64::max)
}

/// Number of values that an operation on a model of this shape trains.
pub fn trained_values(recipe: &Recipe, config: &LlamaConfig) -> u64 {
    let parameters = config.parameters();
    // Globs that match no parameter are refused elsewhere.
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

/// Chooses `train.batch_tokens` if it is 0: the tokens of the largest step if that fits in memory; otherwise half of them, a
/// quarter, and so on, down to [`FEWEST`] or the longest window.
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

/// Minimum number of tokens of a forward pass that is chosen or proposed, because products of fewer rows are slow.
const FEWEST: usize = 512;

/// The largest number of tokens of a forward pass with which a step fits.
fn chosen<P: Platform>(size: StepSize, device: &DeviceOf<P>, memory: impl Fn(usize) -> Account) -> usize {
    let whole = size.tokens.max(1);
    let Some(room) = P::room(device) else { return whole };
    let least = FEWEST.max(size.longest);
    let options = std::iter::once(whole).chain(halves(whole, least)).chain((least < whole).then_some(least));
    let fits = |tokens: &usize| with_headroom(memory(*tokens).total()) <= room.bytes;
    // If nothing fits, choose the whole step: the refusal then lists all remedies.
    options.into_iter().find(fits).unwrap_or(whole)
}

/// The memory of a pretraining step of this size.
fn pretraining_memory<P: Platform>(recipe: &PretrainRecipe, config: &LlamaConfig, size: StepSize) -> Account {
    let batch = size.batch(recipe.train.batch_tokens);
    let plan = plan::<P>(config, recipe.model.precision, recipe.train.recompute, batch.longest);
    let is_divided = batch.tokens < size.tokens;
    let account = Account::new(config, &Plan { tokens: batch.tokens, is_divided, ..plan });
    Account { reference: 0, ..account }
}

/// The memory of inference over `tokens` tokens at once, with the keys and values of `remembered` tokens in a cache.
fn of_inference<P: Platform>(config: &LlamaConfig, tokens: usize, remembered: usize) -> Account {
    let kept = <P::Kernels as Footprint<P::Train>>::kept_values(config, tokens);
    Account::of_inference(config, tokens.max(BATCH_TOKENS), remembered, kept)
}

/// The plan of a step without tokens, with windows of at most `longest` tokens.
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

/// Refuses `what` if the memory that `bytes` gives for `recipe` exceeds the room. Each of `options` is a series of changes,
/// the smallest first.
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
    let remedy = remedies(prefix, recipe, options, |recipe| with_headroom(bytes(recipe)), room.bytes);
    Err(Error::Memory { what: what.into(), needed, room, remedy })
}
