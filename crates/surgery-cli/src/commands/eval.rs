//! `surgery eval`: evaluates a model on each set.

use surgery_core::Error;
use surgery_core::evaluate::{Against, evaluate};
use surgery_core::folders::ModelFolder;
use surgery_core::platform::Platform;
use surgery_core::recipe::Precision;
use surgery_core::reference::Live;

use crate::args::{Common, Eval};
use crate::exit::Outcome;
use crate::fit;
use crate::inputs::{open_data, open_model};
use crate::progress::Progress;
use crate::report::table;
use crate::terminal::{Log, print, print_json};

/// The command on a backend.
pub struct Job {
    pub eval: Eval,
    pub common: Common,
}

impl crate::backend::Job for Job {
    type Output = ();

    fn run<P: Platform>(self) -> Outcome {
        let Self { eval, common } = self;
        let device = P::device(common.device)?;
        let log = Log::new(&common);
        let files = open_model(&eval.model, log)?;
        let data = open_data(&eval.data, &[], &files.encoder)?;
        log.findings(&data.lint(&files, None));
        let reference = eval.reference.as_deref().map(|source| open_model(source, log)).transpose()?;
        if let Some(reference) = &reference {
            files.refuse_other_vocabulary(reference, "a KL")?;
        }
        let models: Vec<&ModelFolder> = [&files].into_iter().chain(&reference).collect();
        fit::evaluation::<P>("the evaluation", &models, |config| data.longest(config), &device)?;
        let mut reference = match reference {
            Some(reference) => {
                Some(Live::<P::Infer, P::Kernels>::new(reference.load::<P>(Precision::F32, &device)?))
            }
            None => None,
        };
        let model = files.load::<P>(Precision::F32, &device)?;
        let mut progress = Progress::new(log);
        progress.stage("evaluating");
        let against = reference.as_mut().map_or(Against::Nothing, |live| Against::Reference(live));
        let evaluation = evaluate::<P::Infer, P::Kernels>(&model, &data.benchmark, against, &mut progress)?;
        progress.finish();
        if let Some((what, value)) = evaluation.not_finite() {
            return Err(Error::not_computable(&what, value).into());
        }
        if common.json { print_json(&evaluation) } else { print(&table(&evaluation)) }
    }
}
