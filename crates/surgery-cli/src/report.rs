//! What came out, before and after: as JSON, as a table, and as a page.

use std::fmt::Write;

use serde::Serialize;
use surgery_core::data::Set;
use surgery_core::evaluate::Evaluation;

/// The report of an operation; `report.json` holds it as it stands here.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The model as it came.
    pub before: Evaluation,
    /// The checkpoint that was written, read back.
    pub after: Evaluation,
    /// After minus before.
    pub difference: Evaluation,
    /// Updates applied.
    pub steps: usize,
    /// Time spent in steps.
    pub train_seconds: f64,
    /// Time spent in both evaluations.
    pub evaluate_seconds: f64,
    /// Input tokens a second, over all steps.
    pub tokens_per_second: f64,
    /// The most memory that the process held, in bytes; none where the system does not tell.
    pub peak_memory_bytes: Option<u64>,
    /// Documents that were longer than the context, and were split into windows.
    pub documents_split: usize,
    /// What was operated on.
    pub model: String,
    /// What with.
    pub data: String,
    /// Where the result is.
    pub output: String,
}

/// A row of the table: a set, and for each measure its values before and after.
struct Row {
    set: String,
    accuracy: [Option<f64>; 2],
    perplexity: [Option<f64>; 2],
    kl: Option<f64>,
}

impl Row {
    /// Accuracy and perplexity before, after and their change, and the KL, as they are shown.
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

/// One row for each set of either evaluation: those of the method first, others by name.
fn rows(before: Option<&Evaluation>, after: &Evaluation) -> Vec<Row> {
    let both = [before, Some(after)];
    let known = Set::ALL.iter().map(|set| set.name().to_owned());
    let mut names: Vec<String> = known.collect();
    names.extend(after.accuracy.keys().filter(|name| !names.contains(name)).cloned().collect::<Vec<_>>());
    let row = |set: String| {
        let accuracy = both.map(|e| {
            let accuracy = e?.accuracy.get(&set)?;
            accuracy.test.or(accuracy.validation)
        });
        let perplexity = both.map(|e| Some(e?.perplexity.get(&set)?.corpus));
        let kl = after.kl.get(&set).copied();
        Row { set, accuracy, perplexity, kl }
    };
    let told = |row: &Row| row.accuracy[1].is_some() || row.perplexity[1].is_some();
    names.into_iter().map(row).filter(told).collect()
}

fn number(value: Option<f64>, digits: usize) -> String {
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

fn line(table: &mut String, cells: &[String]) {
    let _ = write!(table, "{:<16}", cells[0]);
    for cell in &cells[1..] {
        let _ = write!(table, "{cell:>11}");
    }
    let trimmed = table.trim_end().len();
    table.truncate(trimmed);
    table.push('\n');
}

/// The page: one file, no network.
pub fn html(report: &Report, recipe: &str) -> String {
    let mut body = String::new();
    for row in rows(Some(&report.before), &report.after) {
        let cells: String = row.changes().iter().map(|cell| format!("<td>{cell}</td>")).collect();
        let _ = writeln!(body, "<tr><th scope=\"row\">{}</th>{cells}</tr>", escape(&row.set));
    }
    format!(
        r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Surgery report</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
div {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #8884; }}
th[scope=row] {{ text-align: left; font-weight: 500; }}
pre {{ overflow-x: auto; padding: 1rem; background: #8881; }}
</style>
<h1>Surgery report</h1>
<p>{model} after {steps} steps on {data}: {train:.1} s of training, {evaluate:.1} s of evaluation,
{rate:.0} tokens a second{memory}. Accuracy is on test questions (on validation questions where a set has no
others); perplexity is over all tokens of a set; KL is from the model as it was, in nats a token. Documents longer
than the context, split into windows: {split}.</p>
<div><table>
<thead>
<tr><th></th><th colspan="3">accuracy, %</th><th colspan="3">perplexity</th><th>KL</th></tr>
<tr><th></th><th>before</th><th>after</th><th>change</th><th>before</th><th>after</th><th>change</th><th></th></tr>
</thead>
<tbody>
{body}</tbody>
</table></div>
<h2>Recipe</h2>
<pre>{recipe}</pre>
</html>
"#,
        model = escape(&report.model),
        data = escape(&report.data),
        steps = report.steps,
        train = report.train_seconds,
        evaluate = report.evaluate_seconds,
        rate = report.tokens_per_second,
        split = report.documents_split,
        memory = match report.peak_memory_bytes {
            Some(bytes) => format!(", at most {} MiB of memory", bytes >> 20),
            None => String::new(),
        },
        recipe = escape(recipe),
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use surgery_core::evaluate::{Accuracy, Perplexity};

    fn evaluation(accuracy: f64, corpus: f64) -> Evaluation {
        let mut evaluation = Evaluation::default();
        for name in ["retain", "arc_easy", "unlearn"] {
            let accuracy = Accuracy { validation: None, test: Some(accuracy) };
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
