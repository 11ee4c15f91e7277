//! The report page: one HTML file that needs no network.

use minijinja::{Environment, Value, context};
use serde::Serialize;
use serde_json::json;
use surgery_core::data::Set;
use surgery_core::data::lint::Finding;
use surgery_core::evaluate::Evaluation;
use surgery_core::folders::{DataFolder, ModelFolder};
use surgery_core::inspect::{FIGURE, Inspection, Prompt};
use surgery_core::report::Report;

use super::chart::{Curve, svg};
use super::heat::{self, differences, magnitudes};
use super::subjects::{Changed, changed};
use super::table::{names, number};

/// Contents of the page besides the report.
pub struct Page<'a> {
    /// Recipe and curves of a run; `None` for a comparison of two models.
    pub run: Option<Curves<'a>>,
    /// The data, for its subjects and texts.
    pub data: &'a DataFolder,
    /// The model before.
    pub before: &'a Inspection,
    /// The model after.
    pub after: &'a Inspection,
    /// The prompts that both models continue.
    pub prompts: &'a [Prompt],
    /// Whose tokenizer the prompts were encoded by.
    pub files: &'a ModelFolder,
}

impl Page<'_> {
    /// The text of the tokens `new` after `before`.
    fn text(&self, before: &[u32], new: &[u32]) -> String {
        // Undecodable tokens are shown as replacement characters.
        self.files.encoder.decode_continuation(before, new).unwrap_or_else(|_| "�".into())
    }
}

/// Records of a run.
pub struct Curves<'a> {
    /// The resolved recipe.
    pub recipe: &'a str,
    /// The lines of `metrics.jsonl`.
    pub metrics: Vec<serde_json::Value>,
    /// The lines of `evaluations.jsonl`.
    pub evaluations: Vec<serde_json::Value>,
}

/// Renders the page.
pub fn html(report: &Report, page: &Page) -> String {
    let mut environment = Environment::new();
    let template = include_str!("page.html");
    environment.add_template("page.html", template).expect("the shipped template is well-formed");
    let (curves, recipe) = match &page.run {
        Some(run) => (curves(run), Some(run.recipe)),
        None => (Vec::new(), None),
    };
    let rendered = environment.get_template("page.html").expect("it was added").render(context! {
        report => Value::from_serialize(report),
        sentence => sentence(report, page),
        rows => Value::from_serialize(rows(report, page)),
        findings => report.findings.iter().map(Finding::to_string).collect::<Vec<_>>(),
        curves => Value::from_serialize(curves),
        figure => Value::from_serialize(figure(page)),
        subjects => Value::from_serialize(subjects(page)),
        continuations => Value::from_serialize(continuations(page)),
        recipe => recipe,
        version => env!("CARGO_PKG_VERSION"),
    });
    rendered.expect("the template uses what it is given")
}

/// Summarises the result in a sentence.
fn sentence(report: &Report, page: &Page) -> String {
    let headline =
        |e: &Evaluation, set: Set| e.accuracy.get(set.name()).and_then(|a| a.headline()).map(|(a, _)| a);
    let both = |set: Set| Some((headline(&report.before, set)?, headline(&report.after, set)?));
    let texts = |set: Set| page.data.corpus.documents(set).len();
    let mut parts = Vec::new();
    for (set, documents) in [
        (Set::Unlearn, "unlearn documents"),
        (Set::EditUnlearn, "outdated documents (edit_unlearn)"),
        (Set::EditUpdate, "new documents (edit_update)"),
        (Set::Retain, "retain documents"),
        (Set::RetainHeldout, "held-out documents"),
    ] {
        let part = match both(set) {
            Some((before, after)) => {
                format!(
                    "{after:.1}\u{a0}% of the questions on {} {documents} (before: {before:.1}\u{a0}%)",
                    texts(set)
                )
            }
            None => continue,
        };
        parts.push(part);
    }
    let model = match page.run {
        Some(_) => format!("After {} steps, the model", report.steps),
        None => "The second model".to_owned(),
    };
    let summary = match parts.split_last() {
        None => format!("{model} was measured on texts only: the data has no questions."),
        Some((last, [])) => format!("{model} answers these correctly: {last}."),
        Some((last, others)) => {
            format!("{model} answers these correctly: {}, and {last}.", others.join(", "))
        }
    };
    match report.texts_written {
        0 => summary,
        written => {
            format!(
                "{summary} Its training included {written} replay documents, which it generated itself before training."
            )
        }
    }
}

/// The 95 % confidence interval of a share (Wilson), in percent.
fn wilson(percent: f64, count: usize) -> [f64; 2] {
    let (z, n, share) = (1.96f64, count as f64, percent / 100.0);
    let middle = share + z * z / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    [(middle - half) / (1.0 + z * z / n), (middle + half) / (1.0 + z * z / n)].map(|end| 100.0 * end)
}

/// The mean of paired changes and half the width of its 95 % confidence interval, in percentage points.
fn paired(before: &[bool], after: &[bool]) -> Option<[f64; 2]> {
    let changes: Vec<f64> = before
        .iter()
        .zip(after)
        .map(|(&b, &a)| 100.0 * (f64::from(u8::from(a)) - f64::from(u8::from(b))))
        .collect();
    let n = changes.len() as f64;
    let mean = changes.iter().sum::<f64>() / n;
    let variance = changes.iter().map(|change| (change - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (changes.len() > 1).then(|| [mean, 1.96 * (variance / n).sqrt()])
}

#[derive(Serialize)]
struct Row {
    set: String,
    accuracy: Vec<String>,
    interval: Vec<String>,
    change: String,
    perplexity: Vec<String>,
    growth: String,
    kl: String,
}

fn rows(report: &Report, page: &Page) -> Vec<Row> {
    let both = [&report.before, &report.after];
    let row = |set: String| {
        let accuracy = both.map(|e| e.accuracy.get(&set).and_then(|a| a.headline()));
        let perplexity = both.map(|e| e.perplexity.get(&set).map(|p| p.corpus));
        let interval = |headline: Option<(f64, usize)>| match headline {
            Some((percent, count)) => {
                let [low, high] = wilson(percent, count);
                format!("{low:.1} to {high:.1}")
            }
            None => String::new(),
        };
        let change = headline_answers(page, &set).and_then(|[before, after]| paired(&before, &after));
        Row {
            accuracy: accuracy.iter().map(|headline| number(headline.map(|(a, _)| a), 1)).collect(),
            interval: accuracy.iter().map(|headline| interval(*headline)).collect(),
            change: match change {
                Some([mean, half]) => format!("{mean:+.1} ± {half:.1}"),
                None => "-".into(),
            },
            perplexity: perplexity.iter().map(|p| number(*p, 2)).collect(),
            growth: match perplexity {
                [Some(before), Some(after)] => format!("× {:.2}", after / before),
                _ => "-".into(),
            },
            kl: number(report.after.kl.get(&set).copied(), 4),
            set,
        }
    };
    let is_measured = |row: &Row| row.accuracy[1] != "-" || row.perplexity[1] != "-";
    names(&report.after).into_iter().map(row).filter(is_measured).collect()
}

/// Both models' answers to the questions behind the headline accuracy: test questions, or validation questions if
/// there are none.
fn headline_answers(page: &Page, set: &str) -> Option<[Vec<bool>; 2]> {
    use surgery_core::data::Split;
    let (_, questions) = page.data.benchmark.questions.iter().find(|(name, _)| name == set)?;
    let has_test = questions.iter().any(|question| question.split == Split::Test);
    let split = if has_test { Split::Test } else { Split::Validation };
    let of = |inspection: &Inspection| -> Option<Vec<bool>> {
        let answers = inspection.details.answers.get(set)?;
        let counted = questions.iter().zip(answers).filter(|(question, _)| question.split == split);
        Some(counted.map(|(_, &right)| right).collect())
    };
    Some([of(page.before)?, of(page.after)?])
}

/// The number of the colour of a set, or of the loss of a set.
fn colour(name: &str) -> usize {
    let set = match name {
        "forget" => Set::Unlearn.name(),
        "keep" => Set::Retain.name(),
        name => name,
    };
    Set::ALL.iter().position(|known| known.name() == set).unwrap_or(Set::ALL.len())
}

#[derive(Serialize)]
struct Picture {
    title: String,
    svg: String,
    legend: Vec<(String, usize)>,
}

fn curves(run: &Curves) -> Vec<Picture> {
    let of_metrics = |keys: &[&str]| -> Vec<Curve> {
        let curve = |key: &&str| Curve {
            name: key.trim_end_matches("_kl").to_owned(),
            colour: colour(key.trim_end_matches("_kl")),
            points: run
                .metrics
                .iter()
                .filter_map(|line| Some((line["step"].as_f64()?, line[*key].as_f64()?)))
                .collect(),
        };
        keys.iter().map(curve).filter(|curve| curve.points.len() > 1).collect()
    };
    let of_evaluations = |measure: &str, key: &str| -> Vec<Curve> {
        let curve = |set: &Set| Curve {
            name: set.name().to_owned(),
            colour: colour(set.name()),
            points: run
                .evaluations
                .iter()
                .filter_map(|line| Some((line["step"].as_f64()?, line[measure][set.name()][key].as_f64()?)))
                .collect(),
        };
        Set::ALL.iter().map(curve).filter(|curve| curve.points.len() > 1).collect()
    };
    // The plain ascent and the KL are those of the first two pictures: the recipe names another loss, or none.
    let recipe: toml::Table = toml::from_str(run.recipe).unwrap_or_default();
    let of_loss = |key: &str| match recipe.get("objective").and_then(|section| section.get(key)?.as_str()) {
        Some(loss) => (loss.to_owned(), of_metrics(&[key])),
        None => (String::new(), Vec::new()),
    };
    let [(forget, forget_curves), (keep, keep_curves)] = ["forget", "keep"].map(of_loss);
    let forget = format!("Forget loss ({forget}), weighted");
    let keep = format!("Keep loss ({keep}) of retain documents, unweighted");
    let pictures = [
        (
            "NLL of the step's documents, nats a token",
            of_metrics(&["unlearn", "edit_unlearn", "edit_update"]),
        ),
        ("KL from the model before, nats a token", of_metrics(&["retain_kl"])),
        (&forget, forget_curves),
        (&keep, keep_curves),
        ("Norm of the gradient, before clipping", of_metrics(&["grad_norm"])),
        ("Accuracy on validation questions, %", of_evaluations("accuracy", "validation")),
        ("Perplexity", of_evaluations("perplexity", "corpus")),
    ];
    let picture = |(title, curves): (&str, Vec<Curve>)| Picture {
        title: title.to_owned(),
        svg: svg(title, &curves),
        legend: curves.into_iter().map(|curve| (curve.name, curve.colour)).collect(),
    };
    pictures.into_iter().map(picture).filter(|picture| !picture.svg.is_empty()).collect()
}

/// The paper's figure: one row of heat maps for each set.
fn figure(page: &Page) -> serde_json::Value {
    let inspections = [page.before, page.after];
    let maps: Vec<&heat::Layers> =
        inspections.iter().flat_map(|inspection| inspection.activations.values()).collect();
    let span = heat::span(&maps);
    let row = |set: &Set| {
        let (before, after) = (page.before.activations.get(set)?, page.after.activations.get(set)?);
        let apart = before.iter().flatten().zip(after.iter().flatten());
        let moved = apart.map(|(b, a)| f64::from((a.max(1e-8) / b.max(1e-8)).ln().abs())).sum::<f64>()
            / before.iter().map(Vec::len).sum::<usize>() as f64;
        Some(json!({
            "set": set.name(),
            "before": magnitudes(before, span),
            "after": magnitudes(after, span),
            "difference": differences(before, after),
            "moved": format!("{:.0} %", 100.0 * (moved.exp() - 1.0)),
        }))
    };
    let layers = maps.first().map_or(0, |map| map.len());
    let units = maps.first().and_then(|map| map.first()).map_or(0, Vec::len);
    let end = |value: f64| format!("{:.1e}", 10f64.powf(value));
    json!({
        "rows": FIGURE.iter().filter_map(row).collect::<Vec<_>>(),
        "layers": layers,
        "units": units,
        "low": end(span[0]),
        "high": end(span[1]),
    })
}

fn subjects(page: &Page) -> serde_json::Value {
    let tables = changed(page.data, page.before, page.after);
    let rows = |subjects: Vec<Changed>| -> serde_json::Value {
        let one = |Changed { subject, nll, right }: Changed| {
            let right = match right {
                [_, _, 0] => "-".into(),
                [before, after, all] => format!("{before} → {after} of {all}"),
            };
            json!({ "subject": subject, "nll": format!("{:.2} → {:.2}", nll[0], nll[1]), "right": right })
        };
        subjects.into_iter().map(one).collect()
    };
    let table = |(set, most, least): (Set, _, _)| json!({ "set": set.name(), "most": rows(most), "least": rows(least) });
    tables.into_iter().map(table).collect()
}

fn continuations(page: &Page) -> serde_json::Value {
    let both = page.before.continuations.iter().zip(&page.after.continuations);
    let shown = page.prompts.iter().zip(both).filter(|(prompt, _)| prompt.shown);
    let one = |(prompt, (before, after)): (&Prompt, (&Vec<u32>, &Vec<u32>))| {
        let document = &page.data.corpus.documents(prompt.set)[prompt.document];
        let tokens = &page.data.benchmark.documents(prompt.set)[prompt.document];
        let text = |new: &[u32]| page.text(&prompt.tokens, new);
        json!({
            "set": prompt.set.name(),
            "subject": document.subject,
            "prompt": page.text(&[], &prompt.tokens),
            "text": text(&tokens.tokens[prompt.tokens.len()..]),
            "before": text(before),
            "after": text(after),
        })
    };
    shown.map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_equal_published_values() {
        // Wilson (1927): for 8 of 10, the interval is 49.0 to 94.3 %.
        let [low, high] = wilson(80.0, 10);
        assert!((low - 49.0).abs() < 0.1 && (high - 94.3).abs() < 0.1, "{low} {high}");
        let [mean, half] = paired(&[true, true, false, false], &[true, false, false, false]).unwrap();
        assert!((mean + 25.0).abs() < 1e-9 && (half - 49.0).abs() < 0.1, "{mean} {half}");
        assert_eq!(paired(&[true], &[true]), None);
    }
}
