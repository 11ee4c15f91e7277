//! Computes perplexities and accuracies from losses.

use super::{OptionLoss, TextLoss};
use crate::data::{EncodedQuestion, Split};
use crate::evaluation::{Accuracy, Halves, Perplexity};

/// The option that the paper's rule chooses: the lowest mean NLL, the first of equals. It compares means, because
/// perplexities overflow.
pub fn choose<'a>(options: impl IntoIterator<Item = &'a TextLoss>) -> usize {
    lowest(options.into_iter().map(|option| option.mean().unwrap_or(f64::INFINITY)))
}

/// The index of the lowest value, the first of equals.
fn lowest(values: impl Iterator<Item = f64>) -> usize {
    let best = values.enumerate().fold((0, f64::INFINITY), |best, (index, value)| match value < best.1 {
        true => (index, value),
        false => best,
    });
    best.0
}

/// Whether a question was answered correctly, for each rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choices {
    /// The rule of the lowest mean NLL of an option's tokens.
    pub paper: bool,
    /// The rule of the lowest NLL of an option as a whole.
    pub acc: bool,
    /// The rule of the lowest NLL per character of an option.
    pub acc_norm: bool,
}

impl Choices {
    /// Compares the choices by the losses of a question's options with the answer.
    pub fn of((question, losses): (&EncodedQuestion, &Vec<OptionLoss>)) -> Self {
        let right = |chosen: usize| chosen == question.answer;
        let harness = || losses.iter().map(|loss| loss.harness.sum).zip(&question.options);
        Self {
            paper: right(choose(losses.iter().map(|loss| &loss.paper))),
            acc: right(lowest(harness().map(|(sum, _)| sum))),
            acc_norm: right(lowest(harness().map(|(sum, option)| sum / option.characters as f64))),
        }
    }
}

pub(super) fn perplexity(losses: &[TextLoss]) -> Perplexity {
    let mut each: Vec<f64> = losses.iter().filter_map(TextLoss::mean).map(f64::exp).collect();
    each.sort_by(f64::total_cmp);
    let (sum, tokens) = losses.iter().fold((0.0, 0), |(sum, tokens), l| (sum + l.sum, tokens + l.tokens));
    let middle = match each.len() {
        0 => f64::NAN,
        n if n.is_multiple_of(2) => (each[n / 2 - 1] + each[n / 2]) / 2.0,
        n => each[n / 2],
    };
    Perplexity { mean: mean(&each), corpus: (sum / tokens as f64).exp(), median: middle }
}

pub(super) fn accuracy(questions: &[EncodedQuestion], choices: &[Choices]) -> Accuracy {
    let of = |split| {
        let both = questions.iter().zip(choices);
        both.filter(move |(question, _)| question.split == split).map(|(_, choice)| choice)
    };
    let percent = |split, rule: fn(&Choices) -> bool| {
        let right: Vec<f64> = of(split).map(|choice| if rule(choice) { 100.0 } else { 0.0 }).collect();
        (!right.is_empty()).then(|| mean(&right))
    };
    let halves =
        |rule| Halves { validation: percent(Split::Validation, rule), test: percent(Split::Test, rule) };
    let count = |split| Some(of(split).count()).filter(|&count| count > 0);
    let paper = halves(|choice| choice.paper);
    Accuracy {
        validation: paper.validation,
        test: paper.test,
        acc: halves(|choice| choice.acc),
        acc_norm: halves(|choice| choice.acc_norm),
        questions: Halves { validation: count(Split::Validation), test: count(Split::Test) },
    }
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::EncodedOption;

    fn loss(mean: f64, tokens: usize) -> TextLoss {
        TextLoss { sum: mean * tokens as f64, tokens }
    }

    #[test]
    fn mean_corpus_and_median_perplexity_follow_their_definitions() {
        let p = perplexity(&[loss(0.0, 1), loss(1.0, 3), loss(2.0, 1), loss(4.0, 5)]);
        let e = std::f64::consts::E;
        assert!((p.mean - (1.0 + e + e.powi(2) + e.powi(4)) / 4.0).abs() < 1e-9);
        assert!((p.median - (e + e.powi(2)) / 2.0).abs() < 1e-9);
        assert!((p.corpus - (25.0f64 / 10.0).exp()).abs() < 1e-9);
    }

    #[test]
    fn the_lowest_mean_is_chosen_and_the_first_of_equals() {
        assert_eq!(choose(&[loss(2.0, 3), loss(1.0, 9), loss(1.0, 2)]), 1);
        // exp of both overflows f32; their order does not.
        assert_eq!(choose(&[loss(200.0, 1), loss(100.0, 1)]), 1);
        assert_eq!(choose(&[TextLoss::default(), loss(3.0, 1)]), 1);
    }

    #[test]
    fn the_rules_choose_differently_for_options_of_different_lengths() {
        let option = |characters| EncodedOption::of_tokens(Vec::new(), 0..0, characters);
        let options = [30, 4, 9].map(option);
        let question = |answer| EncodedQuestion { options: options.to_vec(), answer, split: Split::Test };
        // Means 1, 2, 1.5; sums 6, 2, 3; per character 0.2, 0.5, 0.33.
        let both = |loss| OptionLoss { paper: loss, harness: loss };
        let losses = [loss(1.0, 6), loss(2.0, 1), loss(1.5, 2)].map(both).to_vec();
        let chosen = |answer| Choices::of((&question(answer), &losses));
        assert_eq!(chosen(0), Choices { paper: true, acc: false, acc_norm: true });
        assert_eq!(chosen(1), Choices { paper: false, acc: true, acc_norm: false });
        let accuracy = accuracy(&[question(0), question(1)], &[chosen(0), chosen(1)]);
        let tests = (accuracy.test, accuracy.acc.test, accuracy.acc_norm.test);
        assert_eq!(tests, (Some(50.0), Some(50.0), Some(50.0)));
        assert_eq!((accuracy.questions.test, accuracy.questions.validation), (Some(2), None));
        assert_eq!(accuracy.headline(), Some((50.0, 2)));
    }
}
