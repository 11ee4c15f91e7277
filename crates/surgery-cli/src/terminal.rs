//! What goes where: results to standard output, everything else to standard error.

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
        std::io::ErrorKind::BrokenPipe => Failure::NobodyReads,
        _ => Error::Write { path: "standard output".into(), source }.into(),
    })
}

/// Writes a result as JSON to standard output.
pub fn print_json(value: &impl Serialize) -> Outcome {
    print(&serde_json::to_string_pretty(value).expect("strings and numbers"))
}

/// The longest message, in characters: what a file holds, and messages quote, may be of any length.
const LONGEST: usize = 4000;

/// Writes a message to standard error. That nobody reads it is no reason to stop.
pub fn say(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", harmless(message));
}

/// A message that may quote a hostile file: no characters that a terminal obeys, and an end.
fn harmless(message: &str) -> String {
    let shown = |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c };
    let mut harmless: String = message.chars().take(LONGEST).map(shown).collect();
    if message.chars().nth(LONGEST).is_some() {
        harmless.push('…');
    }
    harmless
}

/// What to log, and how.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    quiet: bool,
    verbose: bool,
}

impl Log {
    /// As the command line asks.
    pub fn new(common: &Common) -> Self {
        Self { quiet: common.quiet, verbose: common.verbose }
    }

    /// Something worth knowing.
    pub fn info(&self, message: &str) {
        if !self.quiet {
            say(message);
        }
    }

    /// Something that may be wrong.
    pub fn warn(&self, message: &str) {
        if !self.quiet {
            say(&format!("warning: {message}"));
        }
    }

    /// What may be wrong with the data.
    pub fn findings(&self, findings: &[Finding]) {
        findings.iter().for_each(|finding| self.warn(&finding.to_string()));
    }

    /// Something only the curious want to know.
    pub fn detail(&self, message: &str) {
        if self.verbose {
            say(message);
        }
    }

    /// Whether a progress bar has somewhere to be drawn.
    pub fn draws(&self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }

    /// Whether progress should be told in lines.
    pub fn prints_lines(&self) -> bool {
        !self.quiet && !self.draws()
    }
}
