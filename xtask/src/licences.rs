//! Checks every dependency against `deny.toml`: its licence is permissive, it comes from crates.io, and it is not
//! banned.
//!
//! cargo-deny does this if it is installed. Since building it takes minutes, it is not required: otherwise, the code
//! below checks licences and sources against the same file.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::run;

/// The rules.
const RULES: &str = "deny.toml";

/// Fails with the packages that `deny.toml` does not allow.
pub(crate) fn check(root: &Path, metadata: &Value) -> Result<(), String> {
    let cargo_deny = || {
        let mut command = Command::new("cargo-deny");
        command.current_dir(root);
        command
    };
    let quiet = cargo_deny().arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if quiet.is_ok_and(|status| status.success()) {
        return run(cargo_deny().args(["--locked", "check", "licenses", "bans", "sources"]));
    }
    println!(
        "cargo-deny is not installed (`cargo install cargo-deny --locked` installs it): licences and sources are checked, \
        bans are not"
    );
    let path = root.join(RULES);
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let rules: toml::Table = toml::from_str(&text).map_err(|error| format!("{RULES}: {error}"))?;
    let allowed = rules.get("licenses").and_then(|licences| licences.get("allow")?.as_array());
    let allowed = allowed.ok_or_else(|| format!("{RULES} has no list `licenses.allow`"))?;
    let allowed: Vec<&str> = allowed.iter().filter_map(toml::Value::as_str).collect();
    own_check(metadata, &allowed)
}

fn own_check(metadata: &Value, allowed: &[&str]) -> Result<(), String> {
    const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";
    let packages = metadata["packages"].as_array().ok_or("cargo metadata has no packages")?;
    let refused = packages.iter().filter_map(|package| {
        let licence = package["license"].as_str().unwrap_or("none");
        // Packages of this repository have no source.
        let source = package["source"].as_str().unwrap_or(CRATES_IO);
        let problem = if !is_allowed(licence, allowed) {
            licence
        } else if source != CRATES_IO {
            source
        } else {
            return None;
        };
        Some(format!("  {} {}: {problem}", package["name"].as_str()?, package["version"].as_str()?))
    });
    let refused: Vec<String> = refused.collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(format!("licences or sources not allowed by {RULES}:\n{}", refused.join("\n")))
}

/// Whether an SPDX expression has an alternative with allowed licences only. A slash means OR in old packages. An
/// invalid expression is not allowed.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    either(&mut rest, allowed).is_some_and(|may| may && rest.is_empty())
}

/// `both (OR both)*`
fn either(rest: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    let mut may = both(rest, allowed)?;
    while next_is(rest, "OR") {
        may |= both(rest, allowed)?;
    }
    Some(may)
}

/// `one (AND one)*`
fn both(rest: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    let mut may = one(rest, allowed)?;
    while next_is(rest, "AND") {
        may &= one(rest, allowed)?;
    }
    Some(may)
}

/// `( either )`, or a licence, optionally `WITH` an exception.
fn one(rest: &mut &[&str], allowed: &[&str]) -> Option<bool> {
    if next_is(rest, "(") {
        let may = either(rest, allowed)?;
        return next_is(rest, ")").then_some(may);
    }
    let mut licence = next(rest)?.to_owned();
    if next_is(rest, "WITH") {
        licence = format!("{licence} WITH {}", next(rest)?);
    }
    Some(allowed.contains(&licence.as_str()))
}

fn next<'a>(rest: &mut &[&'a str]) -> Option<&'a str> {
    let (first, others) = rest.split_first()?;
    *rest = others;
    Some(first)
}

fn next_is(rest: &mut &[&str], word: &str) -> bool {
    let is = rest.first() == Some(&word);
    if is {
        *rest = &rest[1..];
    }
    is
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    const ALLOWED: [&str; 4] = ["MIT", "Apache-2.0 WITH LLVM-exception", "ISC", "Unicode-3.0"];

    #[test]
    fn spdx_expressions_are_evaluated() {
        for allowed in [
            "MIT",
            "MIT/Apache-2.0",
            "MIT OR LGPL-2.1-or-later",
            "GPL-3.0 AND MIT OR ISC",
            "(GPL-3.0 OR MIT) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ] {
            assert!(is_allowed(allowed, &ALLOWED), "{allowed}");
        }
        for refused in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "MIT AND (ISC OR MIT",
            "MIT MIT",
            "GPL-3.0 AND (MIT OR ISC)",
            "Apache-2.0 WITH Other-exception",
        ] {
            assert!(!is_allowed(refused, &ALLOWED), "{refused}");
        }
    }
}
