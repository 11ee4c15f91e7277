//! The subjects that changed most and least.

use std::collections::BTreeMap;

use surgery_core::data::Set;
use surgery_core::folders::DataFolder;
use surgery_core::inspect::Inspection;

/// Number of subjects shown at either end.
const ENDS: usize = 3;

/// The change of one subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// The subject.
    pub subject: String,
    /// Mean NLL of the subject's texts before and after, in nats a token.
    pub nll: [f64; 2],
    /// Questions about it: answered correctly before, answered correctly after, all.
    pub right: [usize; 3],
}

#[derive(Default)]
struct Sums {
    nll: [f64; 2],
    texts: usize,
    right: [usize; 3],
}

/// For each set, the subjects whose texts' NLL changed most and those whose changed least, in descending order.
pub fn changed(
    data: &DataFolder,
    before: &Inspection,
    after: &Inspection,
) -> Vec<(Set, Vec<Changed>, Vec<Changed>)> {
    let mut tables = Vec::new();
    for (set, documents) in data.corpus.sets() {
        let mut subjects: BTreeMap<&str, Sums> = BTreeMap::new();
        let both = |inspection: &'_ Inspection| {
            inspection.details.documents.get(set.name()).cloned().unwrap_or_default()
        };
        for ((document, before), after) in documents.iter().zip(both(before)).zip(both(after)) {
            let sums = subjects.entry(document.subject.as_deref().unwrap_or(&document.id)).or_default();
            sums.nll = [sums.nll[0] + before, sums.nll[1] + after];
            sums.texts += 1;
        }
        let answers = |inspection: &'_ Inspection| {
            inspection.details.answers.get(set.name()).cloned().unwrap_or_default()
        };
        let questions = data.questions.iter().filter(|questions| questions.name == set.name());
        let questions = questions.flat_map(|questions| &questions.questions);
        for ((question, before), after) in questions.zip(answers(before)).zip(answers(after)) {
            let subject = question.subject.as_deref().and_then(|subject| subjects.get_mut(subject));
            if let Some(Sums { right, .. }) = subject {
                *right = [right[0] + usize::from(before), right[1] + usize::from(after), right[2] + 1];
            }
        }
        let mean = |(subject, sums): (&str, Sums)| Changed {
            subject: subject.to_owned(),
            nll: sums.nll.map(|sum| sum / sums.texts as f64),
            right: sums.right,
        };
        let mut all: Vec<Changed> = subjects.into_iter().map(mean).collect();
        let change = |changed: &Changed| (changed.nll[1] - changed.nll[0]).abs();
        all.sort_by(|a, b| change(b).total_cmp(&change(a)));
        let least = all.split_off(all.len() - ENDS.min(all.len() / 2));
        all.truncate(ENDS);
        tables.push((set, all, least));
    }
    tables
}
