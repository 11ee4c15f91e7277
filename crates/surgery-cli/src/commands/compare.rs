//! `surgery compare`: evaluates two models, and reports them like the model before and after a run.

use std::time::Instant;

use surgery_core::Error;
use surgery_core::evaluate::{Against, context};
use surgery_core::inspect::{fluency, inspect, prompts};
use surgery_core::model::Llama;
use surgery_core::platform::Platform;
use surgery_core::recipe::Precision;
use surgery_core::reference::Live;
use surgery_core::report::{Fluency, Hashed, Report};

use crate::args::{Common, Compare};
use crate::exit::Outcome;
use crate::fit;
use crate::inputs::{open_data, open_model};
use crate::output::{Output, check_output};
use crate::progress::Progress;
use crate::report::{Page, table_of_change, write};
use crate::terminal::{Log, print, print_json};

/// The command on a backend.
pub struct Job {
    pub compare: Compare,
    pub common: Common,
}

impl crate::backend::Job for Job {
    type Output = ();

    fn run<P: Platform>(self) -> Outcome {
        let Self { compare, common } = self;
        let device = P::device(common.device)?;
        let log = Log::new(&common);
        let first = open_model(&compare.first, log)?;
        let second = open_model(&compare.second, log)?;
        second.refuse_other_vocabulary(&first, "a comparison")?;
        let data = open_data(&compare.data, &[], &first.encoder)?;
        let shorter = [&first, &second].into_iter().min_by_key(|files| files.config.max_position_embeddings);
        let findings = data.lint(shorter.unwrap_or(&first), None);
        log.findings(&findings);
        check_output(compare.output.as_deref(), &[&first.folder, &second.folder, &data.folder])?;
        fit::evaluation::<P>("the comparison", &[&first, &second], |config| data.longest(config), &device)?;
        let model: Llama<P::Infer> = first.load::<P>(Precision::F32, &device)?;
        let other: Llama<P::Infer> = second.load::<P>(Precision::F32, &device)?;
        let claimed = Output::claim(compare.output.as_deref())?;
        let output = claimed.path();

        let prompts = prompts(&data.benchmark, context(&first.config).min(context(&second.config)));
        let mut progress = Progress::new(log);
        let started = Instant::now();
        progress.stage("the first model");
        let before = inspect::<P>(&model, &data.benchmark, &prompts, Against::Nothing, &mut progress)?;
        progress.stage("the second model");
        let mut reference = Live::<P::Infer, P::Kernels>::new(model.clone());
        let against = Against::Reference(&mut reference);
        let after = inspect::<P>(&other, &data.benchmark, &prompts, against, &mut progress)?;
        for inspection in [&before, &after] {
            if let Some((what, value)) = inspection.evaluation.not_finite() {
                return Err(Error::not_computable(&what, value).into());
            }
        }
        let judged = |continuations| fluency::<P>(&model, &prompts, continuations);
        let fluency = Fluency::of(judged(&before.continuations)?, judged(&after.continuations)?);
        progress.finish();

        let mut files = Hashed::of_model(&first.folder)?;
        files.extend(Hashed::of_model(&second.folder)?);
        files.extend(Hashed::of_data(&data.folder)?);
        let report = Report {
            difference: after.evaluation.minus(&before.evaluation),
            before: before.evaluation.clone(),
            after: after.evaluation.clone(),
            steps: 0,
            steps_skipped: 0,
            rolled_back: 0,
            tokens: 0,
            train_seconds: 0.0,
            evaluate_seconds: started.elapsed().as_secs_f64(),
            tokens_per_second: 0.0,
            peak_memory_bytes: P::peak(&device),
            texts_written: 0,
            documents_split: 0,
            findings,
            fluency,
            model: format!("{} and {}", first.folder.label(""), second.folder.label("")),
            data: data.folder.label(""),
            output: output.display().to_string(),
            files,
        };
        let page =
            Page { run: None, data: &data, files: &first, before: &before, after: &after, prompts: &prompts };
        write(&report, &page, output)?;
        if common.json {
            return print_json(&report);
        }
        print(&table_of_change(&report.before, &report.after))?;
        print(&format!("\nreport: {}", output.join("report.html").display()))
    }
}
