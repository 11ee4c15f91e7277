//! One file for each command.

mod compare;
mod doctor;
mod eval;
mod fetch;
mod generate;
mod import;
mod pretrain;
mod recipe;
mod reproduce;
mod run;
mod score;

use clap::CommandFactory;

use crate::args::{Args, Command, Run};
use crate::exit::{Failure, Outcome};

/// Runs the command of the command line.
pub fn run(args: Args) -> Outcome {
    let common = args.common;
    match args.command.unwrap_or_else(|| Command::Run(Run::default())) {
        Command::Run(run) => run::run(run, common),
        Command::Eval(eval) => crate::backend::run(common.backend, eval::Job { eval, common }),
        Command::Compare(compare) => crate::backend::run(common.backend, compare::Job { compare, common }),
        Command::Score(score) => crate::backend::run(common.backend, score::Job { score, common }),
        Command::Generate(generate) => generate::run(generate, common),
        Command::Pretrain(pretrain) => {
            crate::backend::run(common.backend, pretrain::Job { pretrain, common })
        }
        Command::Reproduce(reproduce) => {
            crate::backend::run(common.backend, reproduce::Job { reproduce, common })
        }
        Command::Import(format) => import::run(format, common),
        Command::Fetch(fetch) => fetch::run(fetch, common),
        Command::Recipe(recipe) => recipe::run(recipe, common.json),
        Command::Doctor => doctor::run(common.json),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "surgery", &mut script);
            crate::terminal::print(
                String::from_utf8(script).map_err(|e| Failure::Usage(e.to_string()))?.trim_end(),
            )
        }
    }
}
