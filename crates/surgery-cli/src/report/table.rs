//! Tables for the terminal.

use std::fmt::Write;

use serde::Serialize;
use surgery_core::data::Set;
use surgery_core::evaluate::Evaluation;

/// A row of the table: a set with its values before and after.
struct Row {
    set: String,
    accuracy: [Option<f64>; 2],
    perplexity: [Option<f64>; 2],
    kl: Option<f64>,
}

impl Row {
    /// The cells: accuracy and perplexity before, after and change, and the KL.
    fn changes(&self) -> [String; 7] {
        [
            number(self.accuracy[0], 1),
            number(self.accuracy[1], 1),
            change(self.accuracy, 1),
            number(self.perplexity[0], 2),
            number(self.perplexity[1], 2),
            change(self.perplexity, 2),
            number(self.kl, 4),
        ]
    }
}

/// The names of an evaluation's sets: the method's sets first, then others by name.
pub fn names(evaluation: &Evaluation) -> Vec<String> {
    let known = Set::ALL.iter().map(|set| set.name().to_owned());
    let mut names: Vec<String> = known.collect();
    names
        .extend(evaluation.accuracy.keys().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>());
    names
}

/// One row for each measured set: the method's sets first, then others by name.
fn rows(before: Option<&Evaluation>, after: &Evaluation) -> Vec<Row> {
    let both = [before, Some(after)];
    let row = |set: String| {
        let accuracy = both.map(|e| Some(e?.accuracy.get(&set)?.headline()?.0));
        let perplexity = both.map(|e| Some(e?.perplexity.get(&set)?.corpus));
        let kl = after.kl.get(&set).copied();
        Row { set, accuracy, perplexity, kl }
    };
    let is_measured = |row: &Row| row.accuracy[1].is_some() || row.perplexity[1].is_some();
    names(after).into_iter().map(row).filter(is_measured).collect()
}

/// A number with this many decimals; a dash for `None`.
pub fn number(value: Option<f64>, digits: usize) -> String {
    match value {
        None => "-".into(),
        Some(value) if value.abs() >= 1e6 => format!("{value:.1e}"),
        Some(value) => format!("{value:.digits$}"),
    }
}

fn change([before, after]: [Option<f64>; 2], digits: usize) -> String {
    match (before, after) {
        (Some(before), Some(after)) => {
            let difference = after - before;
            if difference.abs() >= 1e6 {
                format!("{difference:+.1e}")
            } else {
                format!("{difference:+.digits$}")
            }
        }
        _ => "-".into(),
    }
}

/// The table of an operation: accuracy on test questions, corpus perplexity, KL.
pub fn table_of_change(before: &Evaluation, after: &Evaluation) -> String {
    let mut table = String::new();
    let head = ["", "accuracy %", "", "", "perplexity", "", "", "KL"];
    let sub = ["", "before", "after", "change", "before", "after", "change", ""];
    line(&mut table, &head.map(str::to_owned));
    line(&mut table, &sub.map(str::to_owned));
    for row in rows(Some(before), after) {
        let cells: Vec<String> = std::iter::once(row.set.clone()).chain(row.changes()).collect();
        line(&mut table, &cells);
    }
    table.trim_end().to_owned()
}

/// The table of one evaluation.
pub fn table(evaluation: &Evaluation) -> String {
    let mut table = String::new();
    let head = ["", "accuracy %", "", "perplexity", "", "", "KL"];
    let sub = ["", "validation", "test", "corpus", "mean", "median", ""];
    line(&mut table, &head.map(str::to_owned));
    line(&mut table, &sub.map(str::to_owned));
    for row in rows(None, evaluation) {
        let accuracy = evaluation.accuracy.get(&row.set).copied().unwrap_or_default();
        let perplexity = evaluation.perplexity.get(&row.set);
        line(
            &mut table,
            &[
                row.set.clone(),
                number(accuracy.validation, 1),
                number(accuracy.test, 1),
                number(perplexity.map(|p| p.corpus), 2),
                number(perplexity.map(|p| p.mean), 2),
                number(perplexity.map(|p| p.median), 2),
                number(row.kl, 4),
            ],
        );
    }
    table.trim_end().to_owned()
}

/// A model with the cost of training it.
#[derive(Debug, Clone, Serialize)]
pub struct Priced {
    /// Its name in the paper.
    pub name: String,
    /// Its evaluation.
    pub evaluation: Evaluation,
    /// Input tokens of all steps; `None` for an untrained input model.
    pub tokens: Option<usize>,
    /// Seconds spent in steps; `None` for an untrained input model.
    pub seconds: Option<f64>,
}

impl Priced {
    /// An input model, which costs nothing.
    pub fn unpaid(name: &str, evaluation: Evaluation) -> Self {
        Self { name: name.into(), evaluation, tokens: None, seconds: None }
    }
}

/// The paper's table: accuracy on test questions, corpus perplexity, and the cost of each model.
pub fn table_of_models(models: &[Priced]) -> String {
    let mut table = String::new();
    let Some(first) = models.first() else { return table };
    type Measure = fn(&Evaluation, &str) -> Option<f64>;
    let accuracy: Measure = |e, set| Some(e.accuracy.get(set)?.headline()?.0);
    let perplexity: Measure = |e, set| Some(e.perplexity.get(set)?.corpus);
    for (title, measure, digits) in [("accuracy, %", accuracy, 1), ("perplexity", perplexity, 2)] {
        let is_measured = |set: &String| measure(&first.evaluation, set).is_some();
        let sets: Vec<String> = names(&first.evaluation).into_iter().filter(is_measured).collect();
        let _ = write!(table, "{title:<20}");
        for set in &sets {
            let _ = write!(table, "{set:>15}");
        }
        let _ = writeln!(table, "{:>12}{:>10}", "tokens", "seconds");
        for model in models {
            let _ = write!(table, "{:<20}", model.name);
            for set in &sets {
                let _ = write!(table, "{:>15}", number(measure(&model.evaluation, set), digits));
            }
            let tokens = model.tokens.map_or("-".into(), |tokens| tokens.to_string());
            let _ = writeln!(table, "{tokens:>12}{:>10}", number(model.seconds, 1));
        }
        table.push('\n');
    }
    table.trim_end().to_owned()
}

fn line(table: &mut String, cells: &[String]) {
    let _ = write!(table, "{:<16}", cells[0]);
    for cell in &cells[1..] {
        let _ = write!(table, "{cell:>11}");
    }
    let trimmed = table.trim_end().len();
    table.truncate(trimmed);
    table.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use surgery_core::evaluate::{Accuracy, Halves, Perplexity};

    fn evaluation(accuracy: f64, corpus: f64) -> Evaluation {
        let mut evaluation = Evaluation::default();
        for name in ["retain", "arc_easy", "unlearn"] {
            let questions = Halves { validation: None, test: Some(10) };
            let accuracy = Accuracy { test: Some(accuracy), questions, ..Accuracy::default() };
            evaluation.accuracy.insert(name.into(), accuracy);
        }
        evaluation.perplexity.insert("unlearn".into(), Perplexity { mean: 1.0, corpus, median: 1.0 });
        evaluation
    }

    #[test]
    fn the_table_shows_every_set_and_its_change() {
        let table = table_of_change(&evaluation(90.0, 3.0), &evaluation(33.3, 5e7));
        let lines: Vec<&str> = table.lines().collect();
        let starts: Vec<&str> = lines[2..].iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(starts, ["unlearn", "retain", "arc_easy"]);
        for cell in ["90.0", "33.3", "-56.7", "3.00", "5.0e7"] {
            assert!(lines[2].contains(cell), "{} lacks {cell}", lines[2]);
        }
    }
}
