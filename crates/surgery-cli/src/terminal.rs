//! Output: results go to standard output, everything else to standard error.

use std::io::{IsTerminal, Write};

use serde::Serialize;
use surgery_core::Error;
use surgery_core::data::lint::Finding;

use crate::args::Common;
use crate::exit::{Failure, Outcome};

/// Writes a result and a newline to standard output.
pub fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|source| match source.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Error::Write { path: "standard output".into(), source }.into(),
    })
}

/// Writes a result as JSON to standard output.
pub fn print_json(value: &impl Serialize) -> Outcome {
    print(&serde_json::to_string_pretty(value).expect("strings and numbers"))
}

/// Longest message in characters; longer ones, which quote files, are cut.
const LONGEST: usize = 4000;

/// Writes a message to standard error. A closed standard error is ignored.
pub fn say(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", harmless(message));
}

/// Replaces control characters and cuts the message to [`LONGEST`] characters: it may quote a hostile file.
fn harmless(message: &str) -> String {
    let shown = |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c };
    let mut harmless: String = message.chars().take(LONGEST).map(shown).collect();
    if message.chars().nth(LONGEST).is_some() {
        harmless.push('…');
    }
    harmless
}

/// Log level.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    quiet: bool,
    verbose: bool,
}

impl Log {
    /// Takes the level from the command line.
    pub fn new(common: &Common) -> Self {
        Self { quiet: common.quiet, verbose: common.verbose }
    }

    /// Logs a message.
    pub fn info(&self, message: &str) {
        if !self.quiet {
            say(message);
        }
    }

    /// Logs a warning.
    pub fn warn(&self, message: &str) {
        if !self.quiet {
            say(&format!("warning: {message}"));
        }
    }

    /// Logs the lint's findings as warnings.
    pub fn findings(&self, findings: &[Finding]) {
        findings.iter().for_each(|finding| self.warn(&finding.to_string()));
    }

    /// Logs a message with `--verbose` only.
    pub fn detail(&self, message: &str) {
        if self.verbose {
            say(message);
        }
    }

    /// Whether details are printed.
    pub fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Whether to draw progress bars: standard error is a terminal.
    pub fn draws(&self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }

    /// Whether to print progress as lines.
    pub fn prints_lines(&self) -> bool {
        !self.quiet && !self.draws()
    }
}
