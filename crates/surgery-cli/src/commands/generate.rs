//! `surgery generate`: continues a prompt.

use serde_json::json;
use surgery_core::generate::{Sampling, generate};
use surgery_core::platform::Platform;
use surgery_core::recipe::Precision;

use crate::args::{Common, Generate};
use crate::exit::{Failure, Outcome};
use crate::fit;
use crate::inputs::open_model;
use crate::terminal::{Log, print, print_json};

/// Checks the temperature, which clap cannot, and runs the command.
pub fn run(generate: Generate, common: Common) -> Outcome {
    let temperature = generate.temperature;
    if !temperature.is_finite() || temperature < 0.0 {
        let message = format!("--temperature is {temperature}; expected 0 or a positive number");
        return Err(Failure::Usage(message));
    }
    crate::backend::run(common.backend, Job { generate, common })
}

struct Job {
    generate: Generate,
    common: Common,
}

impl crate::backend::Job for Job {
    type Output = ();

    fn run<P: Platform>(self) -> Outcome {
        let Self { generate: args, common } = self;
        let device = P::device(common.device)?;
        let log = Log::new(&common);
        let files = open_model(&args.model, log)?;
        for setting in &files.config.not_applied {
            log.warn(&format!("generation_config.json asks for `{setting}`, which is not applied"));
        }
        let prompt = files.encoder.encode(&args.prompt)?;
        let context = |tokens: usize| files.config.context(tokens);
        let tokens = context(prompt.len().saturating_add(args.max_new_tokens));
        fit::generation::<P>(&files, context(prompt.len()), tokens, &device)?;
        let model = files.load::<P>(Precision::F32, &device)?;
        let sampling = Sampling { temperature: args.temperature, seed: args.seed };
        let tokens = generate::<P::Infer, P::Kernels>(&model, &prompt, args.max_new_tokens, sampling)?;
        let text = files.encoder.decode_continuation(&prompt, &tokens)?;
        match common.json {
            true => print_json(&json!({ "text": text, "tokens": tokens })),
            false => print(&format!("{}{text}", args.prompt)),
        }
    }
}
