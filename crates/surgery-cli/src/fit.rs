//! Whether there is the memory for what is to be done: told before anything is loaded, with what would fit.
//!
//! What will be held at the fullest moment is [counted](Account); it is asked for with a tenth more, for the count is
//! that exact, and refused where [less may still be filled](Platform::room). Where no one tells how much may be filled,
//! nothing is refused. Before the data is read, what needs none of it is counted: weights, gradients and moments.

use surgery_core::account::{Account, Plan};
use surgery_core::batch::BATCH_TOKENS;
use surgery_core::config::LlamaConfig;
use surgery_core::data::{DocumentsPerStep, Set, StepSample};
use surgery_core::kernels::Footprint;
use surgery_core::memory::shown;
use surgery_core::platform::{DeviceOf, Platform};
use surgery_core::pretrain::most_tokens;
use surgery_core::recipe::{Precision, PretrainRecipe, Recipe, ReferenceForm};
use surgery_core::replay::{stand_ins, tokens_at_once, tokens_in_cache};
use surgery_core::surgery::{TrainingDocuments, sampler};
use surgery_core::training::FORESEEN;
use surgery_core::{Error, Result};

use crate::inputs::{DataFiles, ModelFiles};

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
    pub operated: &'a ModelFiles,
    /// The one that bounds the ascent, which is run before the first step.
    pub bounding: Option<&'a ModelFiles>,
}

/// Refuses an operation that does not fit, as far as can be told without the data where there is none. `prefix` stands
/// before the recipe's keys where they are named.
pub fn operation<P: Platform>(
    prefix: &str,
    recipe: &Recipe,
    models: Models,
    data: Option<&DataFiles>,
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
    documents: &[Vec<u32>],
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
    options.push(windows(config.context(recipe.train.max_tokens), |recipe: &mut PretrainRecipe, length| {
        recipe.train.max_tokens = length;
    }));
    let fewer = halves(recipe.train.documents_per_step, 1).map(|count| Change {
        name: format!("train.documents_per_step = {count}"),
        change: Box::new(move |recipe: &mut PretrainRecipe| recipe.train.documents_per_step = count),
    });
    options.push(fewer.collect());
    let longest = documents.iter().map(Vec::len).max().unwrap_or(0);
    let bytes = |recipe: &PretrainRecipe| {
        let kept = longest.min(config.context(recipe.train.max_tokens));
        let plan = plan::<P>(config, recipe.model.precision, recipe.train.recompute, kept);
        let account = Account::new(config, &Plan { tokens: most_tokens(documents, recipe), ..plan });
        Account { reference: 0, ..account }.total()
    };
    refuse::<P, PretrainRecipe>("the training", prefix, recipe, &options, bytes, device)
}

/// Refuses to measure models on texts, of which `longest` says how many tokens a model of a shape runs over at once, where
/// that does not fit.
pub fn evaluation<P: Platform>(
    what: &str,
    models: &[&ModelFiles],
    longest: impl Fn(&LlamaConfig) -> usize,
    device: &DeviceOf<P>,
) -> Result<()> {
    let account = |config: &LlamaConfig| of_inference::<P>(config, longest(config), 0);
    inference::<P>(what, models, account, device)
}

/// Refuses to let a model go on from a prompt of `prompt` tokens, which it reads at once, to a text of `tokens` in all,
/// where that does not fit.
pub fn generation<P: Platform>(
    model: &ModelFiles,
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
    models: &[&ModelFiles],
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

/// What an operation holds at its fullest moment: in a step, in an evaluation, where the model writes, or where another
/// bounds the ascent.
pub fn operation_memory<P: Platform>(recipe: &Recipe, models: Models, data: Option<&DataFiles>) -> u64 {
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

/// The number of values that an operation on a model of this shape trains.
pub fn trained_values(recipe: &Recipe, config: &LlamaConfig) -> u64 {
    let parameters = config.parameters();
    // Globs that match nothing are refused elsewhere.
    parameters.train_only(&recipe.train.trainable).unwrap_or(parameters).trained_values()
}

/// What a step of an operation holds.
pub fn step_memory<P: Platform>(recipe: &Recipe, config: &LlamaConfig, data: Option<&DataFiles>) -> Account {
    let live_reference = recipe.train.reference == ReferenceForm::Live;
    let trained = trained_values(recipe, config);
    let of_tokens = |[tokens, retained]: [usize; 2], longest| {
        let plan = plan::<P>(config, recipe.model.precision, recipe.train.recompute, longest);
        Account::new(config, &Plan { tokens, retained, trained, live_reference, ..plan })
    };
    let Some(data) = data else { return of_tokens([0, 0], 0) };
    let lengths = |set: Set| data.benchmark.documents(set).iter().map(Vec::len);
    let sets = recipe.objective.sets();
    let context = config.context(recipe.train.max_tokens);
    let drawable =
        TrainingDocuments { benchmark: &data.benchmark, written: stand_ins(&recipe.replay, context) };
    let written = drawable.written.iter().map(|text| text.len());
    let longest = sets.iter().flat_map(|&set| lengths(set)).chain(written).max().unwrap_or(0);
    // The seed says which documents the steps will draw: the step with the most tokens decides, of as many as show it.
    let mut sampler = sampler(&data.corpus, recipe);
    let tokens_of = |set: Set, drawn: &[usize]| -> usize {
        drawn.iter().map(|&index| drawable.document(set, index).len()).sum()
    };
    let step_memory = |draw: StepSample| {
        let retained = draw.get(&Set::Retain).map_or(0, |drawn| tokens_of(Set::Retain, drawn));
        [draw.iter().map(|(&set, drawn)| tokens_of(set, drawn)).sum::<usize>(), retained]
    };
    let most =
        (0..recipe.train.steps.min(FORESEEN)).map(|_| step_memory(sampler.draw())).max().unwrap_or_default();
    of_tokens(most, longest.min(context))
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
