//! `surgery score`: the mean NLL of each text.

use serde_json::json;
use surgery_core::Error;
use surgery_core::data::lint::control_tokens;
use surgery_core::data::{Content, Document, Example, encode, read_texts};
use surgery_core::evaluate::{context, score};
use surgery_core::files::file_in_folder;
use surgery_core::platform::Platform;
use surgery_core::recipe::Precision;

use crate::args::{Common, Score};
use crate::exit::Outcome;
use crate::fit;
use crate::inputs::open_model;
use crate::progress::Progress;
use crate::terminal::{Log, print};

/// The command on a backend.
pub struct Job {
    pub score: Score,
    pub common: Common,
}

impl crate::backend::Job for Job {
    type Output = ();

    fn run<P: Platform>(self) -> Outcome {
        let Self { score: args, common } = self;
        let device = P::device(common.device)?;
        let (folder, file) = file_in_folder(&args.input);
        let texts = read_texts(&folder, &file)?;
        let log = Log::new(&common);
        let files = open_model(&args.model, log)?;
        log.findings(&control_tokens(&file, &texts, &files.encoder));
        let path = folder.label(&file);
        let encode = |document: &Document| match &document.content {
            // A text without a predicted token has no NLL; that is not an error.
            Content::Text(text) => Ok(Example::of_text(files.encoder.encode(text)?)),
            _ => encode(&path, document, &files.encoder),
        };
        let examples = texts.iter().map(encode).collect::<surgery_core::Result<Vec<_>>>()?;
        let longest = examples.iter().map(Example::len).max().unwrap_or(0);
        fit::evaluation::<P>("scoring", &[&files], |config| longest.min(context(config)), &device)?;
        let model = files.load::<P>(Precision::F32, &device)?;
        let mut progress = Progress::new(log);
        progress.stage("scoring");
        let losses = score::<P::Infer, P::Kernels>(&model, &examples, &mut progress)?;
        progress.finish();
        let unusable = texts.iter().zip(&losses).find(|(_, loss)| !loss.sum.is_finite());
        if let Some((document, loss)) = unusable {
            return Err(Error::not_computable(&format!("the NLL of text {:?}", document.id), loss.sum).into());
        }
        for (document, loss) in texts.iter().zip(losses) {
            print(&json!({ "id": document.id, "tokens": loss.tokens, "nll": loss.mean() }).to_string())?;
        }
        Ok(())
    }
}
