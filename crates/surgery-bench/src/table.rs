//! The measurements as a table.

use crate::report::{Measured, PeerMeasured, Report};

/// Name, our value, a note, PyTorch's value, and the ratio of PyTorch's to ours.
type Row = [String; 5];

/// Prints one shape of `report`.
pub(crate) fn print(measured: &Measured, report: &Report) {
    let Measured { shape, parameters, lengths, documents, tokens, rounds, .. } = measured;
    let Report { backend, precision, threads, .. } = report;
    println!("{shape}: {parameters} parameters, {backend}, {precision}, {threads} threads");
    let lengths = format!("{lengths:?}").to_lowercase();
    println!("  {documents} documents of {lengths} lengths, {tokens} tokens a step; median of {rounds}");
    if let Some(peer) = &report.peer {
        println!("  PyTorch {}, transformers {}", peer.torch, peer.transformers);
    }
    println!();
    let rows = rows(measured);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    for [name, ours, note, theirs, ratio] in &rows {
        let line = format!(
            "  {name:<0$}  {ours:>1$}  {note:<2$}  {theirs:>3$}  {ratio:>4$}",
            widths[0], widths[1], widths[2], widths[3], widths[4]
        );
        println!("{}", line.trim_end());
    }
    println!();
}

fn rows(measured: &Measured) -> Vec<Row> {
    let mut rows = Rows(Vec::new());
    let peer = measured.peer.as_ref();
    if peer.is_some() {
        rows.0.push(["", "here", "", "PyTorch", "times"].map(String::from));
    }
    step_rows(&mut rows, measured, peer);
    floor_rows(&mut rows, measured, peer);
    evaluation_rows(&mut rows, measured, peer);
    if let Some(bytes) = measured.step.memory_bytes {
        let megabytes = |bytes: f64| format!("{:.0} MB", bytes / 1e6);
        let theirs = peer.and_then(|peer| peer.memory_bytes).map(|bytes| bytes as f64);
        rows.compared("memory of a step", bytes as f64, "", theirs, megabytes);
    }
    if let Some(job) = &measured.job {
        let seconds = |seconds: f64| format!("{seconds:.2} s");
        let batched = job.peer.as_ref().map(|peer| peer.batched_seconds);
        rows.compared(
            "job",
            job.seconds,
            &format!("{} steps, {} questions", job.steps, job.questions),
            batched,
            seconds,
        );
        if let Some(peer) = &job.peer {
            rows.theirs("  one by one", seconds(peer.single_seconds), peer.single_seconds / job.seconds);
        }
    }
    rows.0
}

fn step_rows(rows: &mut Rows, measured: &Measured, peer: Option<&PeerMeasured>) {
    let Measured { step, tokens, .. } = measured;
    let rate = |seconds: f64| format!("{:.0} tok/s", *tokens as f64 / seconds);
    let theirs = peer.map(|peer| peer.step_seconds);
    rows.compared("step", step.seconds, &rate(step.seconds), theirs, milliseconds);
    let (ours, theirs) = (&step.parts, peer.map(|peer| &peer.parts));
    for (name, seconds, theirs) in [
        ("  forward", ours.forward, theirs.map(|parts| parts.forward)),
        ("  head", ours.head, theirs.map(|parts| parts.loss)),
        ("  backward", ours.backward, theirs.map(|parts| parts.backward)),
        ("  clip", ours.clip, theirs.map(|parts| parts.clip)),
        ("  AdamW", ours.adamw, theirs.map(|parts| parts.adamw)),
    ] {
        rows.beside(name, milliseconds(seconds), &percent(seconds / step.seconds), theirs.map(milliseconds));
    }
    if let Some(parts) = theirs {
        rows.beside("  reference", String::new(), "known", Some(milliseconds(parts.reference)));
    }
    let run = step.reference_run_seconds;
    let theirs = peer.map(|peer| peer.step_seconds);
    rows.compared("step, reference run", run, &rate(run), theirs, milliseconds);
}

fn floor_rows(rows: &mut Rows, measured: &Measured, peer: Option<&PeerMeasured>) {
    let floor = &measured.floor;
    let best = &floor.products[floor.best];
    let gflops = |rate: f64| format!("{:.1} GFLOP/s", rate / 1e9);
    rows.beside("matrix products", format!("{:.1} GFLOP", floor.operations / 1e9), "a step", None);
    let theirs = peer.map(|peer| gflops(peer.product_rate));
    rows.beside("best rate", gflops(best.rate), &format!("{} {}", best.form, best.shape), theirs);
    rows.beside("floor", milliseconds(floor.seconds), "at that rate", None);
    let theirs = peer.map(|peer| percent(floor.seconds / peer.step_seconds));
    rows.beside("floor / step", percent(floor.share), "", theirs);
}

fn evaluation_rows(rows: &mut Rows, measured: &Measured, peer: Option<&PeerMeasured>) {
    let evaluation = &measured.evaluation;
    let rate = |seconds: f64| format!("{:.0} questions/s", evaluation.questions as f64 / seconds);
    let options = format!("{:.0} options/s", evaluation.options_per_second);
    let theirs = peer.map(|peer| peer.batched_evaluation_seconds);
    rows.compared("evaluation", evaluation.seconds, &options, theirs, rate);
    if let Some(peer) = peer {
        let single = peer.single_evaluation_seconds;
        rows.theirs("  one by one", rate(single), single / evaluation.seconds);
    }
}

struct Rows(Vec<Row>);

impl Rows {
    /// A row with our value, PyTorch's, and their ratio.
    fn compared(
        &mut self,
        name: &str,
        ours: f64,
        note: &str,
        theirs: Option<f64>,
        shown: impl Fn(f64) -> String,
    ) {
        let ratio = theirs.map(|theirs| format!("{:.2}", theirs / ours)).unwrap_or_default();
        let theirs = theirs.map(&shown).unwrap_or_default();
        self.0.push([name.into(), shown(ours), note.into(), theirs, ratio]);
    }

    /// A row with our value and PyTorch's, which are not directly comparable.
    fn beside(&mut self, name: &str, ours: String, note: &str, theirs: Option<String>) {
        self.0.push([name.into(), ours, note.into(), theirs.unwrap_or_default(), String::new()]);
    }

    /// A row with another arrangement of PyTorch's evaluation.
    fn theirs(&mut self, name: &str, theirs: String, ratio: f64) {
        self.0.push([name.into(), String::new(), String::new(), theirs, format!("{ratio:.2}")]);
    }
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
