//! A bar chart of the times, as SVG that adapts to a light or dark background.

use std::fmt::Write;

use crate::report::{Measured, Report};

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 20.0;
/// Left edge and maximum length of bars; the time is printed after the bar.
const BARS: f64 = 175.0;
const LONGEST: f64 = 490.0;
const BAR: f64 = 18.0;
const LINE: f64 = 26.0;

const STYLE: &str = "\
  text { font: 13px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600 } .back { fill: #ffffff }
  .forward { fill: #4c78a8 } .head { fill: #f2a541 } .backward { fill: #72a0c9 } .clip { fill: #8a8f98 }
  .adamw { fill: #59a37a } .reference { fill: #b07aa1 } .whole { fill: #4c78a8 } .floor { fill: #c9ced6 }
  @media (prefers-color-scheme: dark) {
    text { fill: #d6dae0 } .back { fill: #15191e } .floor { fill: #4a515b }
  }";

/// The parts of a step: colour class and label.
const LEGEND: [(&str, &str); 6] = [
    ("forward", "forward"),
    ("head", "head, loss"),
    ("backward", "backward"),
    ("clip", "clip"),
    ("adamw", "AdamW"),
    ("reference", "reference"),
];

/// Bars with a common scale.
struct Group {
    title: String,
    bars: Vec<Bar>,
}

/// A bar of consecutive segments: class and seconds.
struct Bar {
    label: &'static str,
    segments: Vec<(&'static str, f64)>,
}

impl Bar {
    fn whole(label: &'static str, seconds: f64) -> Self {
        Self { label, segments: vec![("whole", seconds)] }
    }

    fn seconds(&self) -> f64 {
        self.segments.iter().map(|(_, seconds)| seconds).sum()
    }
}

/// Draws the whole chart.
pub(crate) fn draw(report: &Report) -> String {
    let mut body = String::new();
    let mut y = MARGIN + 4.0;
    let mut x = MARGIN;
    for (class, name) in LEGEND {
        rectangle(&mut body, class, [x, y, 12.0, 12.0]);
        text(&mut body, "", [x + 17.0, y + 11.0], name);
        x += 118.0;
    }
    y += 38.0;
    for group in report.shapes.iter().flat_map(groups) {
        text(&mut body, "title", [MARGIN, y], &group.title);
        y += 10.0;
        let longest = group.bars.iter().map(Bar::seconds).fold(f64::MIN_POSITIVE, f64::max);
        for bar in &group.bars {
            text(&mut body, "", [MARGIN, y + 14.0], bar.label);
            let mut x = BARS;
            for &(class, seconds) in &bar.segments {
                // `backward` is a difference of measurements, so it may be below 0.
                let width = LONGEST * seconds.max(0.0) / longest;
                rectangle(&mut body, class, [x, y, width, BAR]);
                x += width;
            }
            text(&mut body, "", [x + 6.0, y + 14.0], &shown(bar.seconds()));
            y += LINE;
        }
        y += 24.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" height=\"{y}\" \
         role=\"img\">\n<title>Times of a step, an evaluation and a job</title>\n<style>\n{STYLE}\n</style>\n\
         <rect class=\"back\" width=\"100%\" height=\"100%\"/>\n{body}</svg>\n"
    )
}

fn groups(measured: &Measured) -> Vec<Group> {
    let Measured { shape, step, floor, evaluation, peer, job, .. } = measured;
    let parts = &step.parts;
    let ours = vec![
        ("forward", parts.forward),
        ("head", parts.head),
        ("backward", parts.backward),
        ("clip", parts.clip),
        ("adamw", parts.adamw),
    ];
    let mut steps = vec![Bar { label: "here", segments: ours }];
    let mut answers = vec![Bar::whole("here", evaluation.seconds)];
    if let Some(peer) = peer {
        let parts = &peer.parts;
        let theirs = vec![
            ("forward", parts.forward),
            ("head", parts.loss),
            ("backward", parts.backward),
            ("clip", parts.clip),
            ("adamw", parts.adamw),
            ("reference", parts.reference),
        ];
        steps.push(Bar { label: "PyTorch", segments: theirs });
        answers.push(Bar::whole("PyTorch, batched", peer.batched_evaluation_seconds));
        answers.push(Bar::whole("PyTorch, one by one", peer.single_evaluation_seconds));
    }
    steps.push(Bar { label: "floor", segments: vec![("floor", floor.seconds)] });
    let mut groups = vec![
        Group { title: format!("{shape}: a step of {} tokens", measured.tokens), bars: steps },
        Group { title: format!("{shape}: {} questions answered", evaluation.questions), bars: answers },
    ];
    if let Some(job) = job {
        let mut bars = vec![Bar::whole("here", job.seconds)];
        if let Some(peer) = &job.peer {
            bars.push(Bar::whole("PyTorch, batched", peer.batched_seconds));
            bars.push(Bar::whole("PyTorch, one by one", peer.single_seconds));
        }
        groups.push(Group {
            title: format!(
                "{shape}: {0} questions, {1} steps, {0} questions again",
                job.questions, job.steps
            ),
            bars,
        });
    }
    groups
}

fn shown(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

fn rectangle(body: &mut String, class: &str, [x, y, width, height]: [f64; 4]) {
    writeln!(
        body,
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
    )
    .expect("a string takes everything");
}

/// Writes `text`, which must not contain special characters of XML.
fn text(body: &mut String, class: &str, [x, y]: [f64; 2], text: &str) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    writeln!(body, "<text{class} x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>")
        .expect("a string takes everything");
}
