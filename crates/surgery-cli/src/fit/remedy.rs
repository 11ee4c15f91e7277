//! Changes of a recipe that reduce its memory, for the message of a refusal.

use surgery_core::data::DocumentsPerStep;
use surgery_core::memory::shown;
use surgery_core::platform::Platform;
use surgery_core::recipe::{Precision, Recipe};

use super::FEWEST;

/// Minimum length of a proposed window in tokens.
const SHORTEST: usize = 64;

/// A change of a recipe; its name is the key and the value.
pub(super) struct Change<R> {
    pub(super) name: String,
    pub(super) change: Box<dyn Fn(&mut R)>,
}

/// The precisions of a platform.
pub(super) fn precisions<P: Platform>() -> impl Iterator<Item = (String, Precision)> {
    P::precisions().iter().map(|&precision| (format!("model.precision = {:?}", precision.name()), precision))
}

/// Half of `count`, a quarter, and so on down to `least`.
pub(super) fn halves(count: usize, least: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(count / 2), |count| Some(count / 2)).take_while(move |&count| count >= least)
}

/// Changes to shorter windows.
pub(super) fn windows<R>(context: usize, set: impl Fn(&mut R, usize) + Copy + 'static) -> Vec<Change<R>> {
    let change = |length| Change {
        name: format!("train.max_tokens = {length}"),
        change: Box::new(move |recipe: &mut R| set(recipe, length)),
    };
    halves(context, SHORTEST).map(change).collect()
}

/// Changes to fewer documents of each set in a step.
pub(super) fn fewer(documents: DocumentsPerStep) -> Vec<Change<Recipe>> {
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

/// Changes to fewer tokens in a forward pass than `whole`.
pub(super) fn smaller_batches<R>(
    whole: usize,
    longest: usize,
    set: impl Fn(&mut R, usize) + Copy + 'static,
) -> Vec<Change<R>> {
    let change = |tokens| Change {
        name: format!("train.batch_tokens = {tokens}"),
        change: Box::new(move |recipe: &mut R| set(recipe, tokens)),
    };
    halves(whole, FEWEST.max(longest)).map(change).collect()
}

/// The options with each of which the recipe fits into `room`, or those with which it fits together.
pub(super) fn remedies<R: Clone>(
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
