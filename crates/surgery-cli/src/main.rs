//! `surgery`: make a language model forget, learn, and otherwise stay itself.

mod args;
mod backend;
mod commands;
mod example;
mod exit;
mod fit;
mod hub;
mod import;
mod inputs;
mod interrupt;
mod lock;
mod output;
mod plan;
mod prepare;
mod progress;
mod report;
mod resume;
mod terminal;
mod timing;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    // A panic is a bug, and must end in the code that says so.
    std::panic::set_hook(Box::new(|panic| {
        if surgery_core::text::is_guarded() {
            return;
        }
        terminal::say(&format!("internal error (a bug in surgery, please report it): {panic}"));
    }));
    match std::panic::catch_unwind(|| commands::run(args)) {
        Ok(Ok(())) => exit::Exit::Done.into(),
        Ok(Err(failure)) => {
            if let Some(message) = failure.message() {
                terminal::say(&format!("error: {message}"));
            }
            failure.exit().into()
        }
        Err(_) => exit::Exit::Internal.into(),
    }
}
