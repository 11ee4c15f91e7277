//! The results of an evaluation: perplexities, accuracies, divergences.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The results of an evaluation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Perplexity by set.
    pub perplexity: BTreeMap<String, Perplexity>,
    /// Accuracy in percent, by set of questions.
    pub accuracy: BTreeMap<String, Accuracy>,
    /// KL(reference ‖ model) in nats, by set: the mean over documents of the mean over their tokens. Empty without a
    /// reference.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kl: BTreeMap<String, f64>,
}

/// Perplexity of a set's documents by three definitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// The paper's: the mean over documents of exp(mean NLL); outliers dominate it.
    pub mean: f64,
    /// exp of the mean NLL over all tokens.
    pub corpus: f64,
    /// The median over documents of exp(mean NLL).
    pub median: f64,
}

/// A value for each half of a set of questions; `None` if a half contains no question.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Halves<T> {
    /// The value for the validation half.
    pub validation: Option<T>,
    /// The value for the test half.
    pub test: Option<T>,
}

/// The share of questions answered correctly, in percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Validation questions, by the paper's rule: the lowest mean NLL of an option's tokens.
    pub validation: Option<f64>,
    /// Test questions, by the paper's rule.
    pub test: Option<f64>,
    /// `acc` of lm-evaluation-harness: the highest log-likelihood of an option as a whole.
    #[serde(default)]
    pub acc: Halves<f64>,
    /// `acc_norm` of lm-evaluation-harness: the highest log-likelihood per character of an option.
    #[serde(default)]
    pub acc_norm: Halves<f64>,
    /// Number of questions.
    #[serde(default)]
    pub questions: Halves<usize>,
}

impl Accuracy {
    /// The accuracy by the paper's rule on test questions, or on validation questions if there are no test questions,
    /// and the number of these questions.
    pub fn headline(&self) -> Option<(f64, usize)> {
        let test = self.test.zip(self.questions.test);
        test.or(self.validation.zip(self.questions.validation))
    }
}

impl Evaluation {
    /// The name and value of a measure that is not a finite number, if there is one: the model is unusable.
    pub fn not_finite(&self) -> Option<(String, f64)> {
        let perplexities =
            self.perplexity.iter().map(|(set, p)| (format!("the perplexity of {set}"), p.corpus));
        let kl = self.kl.iter().map(|(set, &kl)| (format!("the KL on {set}"), kl));
        perplexities.chain(kl).find(|(_, value)| !value.is_finite())
    }

    /// `self` minus `before`, for each entry that both have.
    pub fn minus(&self, before: &Self) -> Self {
        let perplexity = pairs(&self.perplexity, &before.perplexity, |a, b| Perplexity {
            mean: a.mean - b.mean,
            corpus: a.corpus - b.corpus,
            median: a.median - b.median,
        });
        let minus = |a: Option<f64>, b: Option<f64>| Some(a? - b?);
        let halves = |a: Halves<f64>, b: Halves<f64>| Halves {
            validation: minus(a.validation, b.validation),
            test: minus(a.test, b.test),
        };
        let accuracy = pairs(&self.accuracy, &before.accuracy, |a, b| Accuracy {
            validation: minus(a.validation, b.validation),
            test: minus(a.test, b.test),
            acc: halves(a.acc, b.acc),
            acc_norm: halves(a.acc_norm, b.acc_norm),
            questions: a.questions,
        });
        Self { perplexity, accuracy, kl: pairs(&self.kl, &before.kl, |a, b| a - b) }
    }
}

fn pairs<T>(
    after: &BTreeMap<String, T>,
    before: &BTreeMap<String, T>,
    minus: impl Fn(&T, &T) -> T,
) -> BTreeMap<String, T> {
    let both = after.iter().filter_map(|(name, a)| Some((name.clone(), minus(a, before.get(name)?))));
    both.collect()
}
