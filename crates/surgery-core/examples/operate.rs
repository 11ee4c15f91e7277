//! A whole operation by the library, on the embedded model and benchmark:
//! `cargo run --example operate -p surgery-core`. Its observer prints the loss of some steps.

use surgery_core::Result;
use surgery_core::event::{Event, Observer};
use surgery_core::files::Folder;
use surgery_core::folders::{DataFolder, ModelFolder};
use surgery_core::operation::Operation;
use surgery_core::platform::Platform;
use surgery_core::recipe::{Recipe, parse};
use surgery_ndarray::Cpu;

const RECIPE: &str = r#"
[objective]
forget = "npo"
unlearn = 1.0
edit_unlearn = 1.0

[train]
steps = 20
documents_per_step = 4
"#;

struct Printer;

impl Observer for Printer {
    fn observe(&mut self, event: Event) {
        match event {
            Event::Stage(stage) => println!("{stage:?}"),
            Event::Step { step, steps, record, .. } if step % 5 == 0 => {
                println!("step {step} of {steps}: loss {:.3}", record.loss);
            }
            _ => {}
        }
    }
}

fn main() -> Result<()> {
    let embedded = |name: &str, files| Folder::Embedded { name: name.into(), files };
    let recipe: Recipe = parse("operate", RECIPE, &[])?;
    let model = ModelFolder::open(embedded("model", surgery_datasets::model()))?;
    let data = embedded("benchmark", surgery_datasets::benchmark());
    let data = DataFolder::open(data, &recipe.objective.sets(), &model.encoder)?;
    let output = std::env::temp_dir().join(format!("surgery-operate-{}", std::process::id()));
    let operation = Operation::new(&recipe, &model, &data, &output);
    let performed = operation.perform::<Cpu>(&Cpu::device(0)?, &mut Printer)?;
    for (set, change) in &performed.report.difference.accuracy {
        println!("{set}: {:+.1} points of accuracy on test questions", change.test.unwrap_or(f64::NAN));
    }
    println!("written to {}", performed.folder.display());
    Ok(())
}
