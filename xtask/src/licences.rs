//! Every package this is built of may be used under licences that ask for little more than attribution.

use serde_json::Value;

/// SPDX identifiers. MPL-2.0 asks for the source of its own files only, which are not changed here;
/// CDLA-Permissive-2.0 is that of data, such as root certificates.
const ALLOWED: [&str; 15] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Names the packages in `cargo metadata` whose licence is not allowed.
pub(crate) fn check(metadata: &Value) -> Result<(), String> {
    let packages = metadata["packages"].as_array().ok_or("cargo metadata has no packages")?;
    let refused = packages.iter().filter_map(|package| {
        let problem = match package["license"].as_str() {
            None => "none".to_owned(),
            Some(licence) if is_allowed(licence) => return None,
            Some(licence) => licence.to_owned(),
        };
        Some(format!("  {} {}: {problem}", package["name"].as_str()?, package["version"].as_str()?))
    });
    let refused: Vec<String> = refused.collect();
    if refused.is_empty() {
        return Ok(());
    }
    Err(format!("licences not allowed by xtask/src/licences.rs:\n{}", refused.join("\n")))
}

/// Whether one of the choices that an SPDX expression leaves asks for allowed licences only. A slash is an OR in
/// old packages. What cannot be read is not allowed.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    either(&mut rest).is_some_and(|allowed| allowed && rest.is_empty())
}

/// `both (OR both)*`
fn either(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = both(rest)?;
    while next_is(rest, "OR") {
        allowed |= both(rest)?;
    }
    Some(allowed)
}

/// `one (AND one)*`
fn both(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = one(rest)?;
    while next_is(rest, "AND") {
        allowed &= one(rest)?;
    }
    Some(allowed)
}

/// `( either )`, or a licence and perhaps `WITH` an exception.
fn one(rest: &mut &[&str]) -> Option<bool> {
    if next_is(rest, "(") {
        let allowed = either(rest)?;
        return next_is(rest, ")").then_some(allowed);
    }
    let mut licence = next(rest)?.to_owned();
    if next_is(rest, "WITH") {
        licence = format!("{licence} WITH {}", next(rest)?);
    }
    Some(ALLOWED.contains(&licence.as_str()))
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

    #[test]
    fn expressions_are_read_as_spdx_means_them() {
        for allowed in [
            "MIT",
            "MIT/Apache-2.0",
            "MIT OR LGPL-2.1-or-later",
            "GPL-3.0 AND MIT OR ISC",
            "(GPL-3.0 OR MIT) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ] {
            assert!(is_allowed(allowed), "{allowed}");
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
            assert!(!is_allowed(refused), "{refused}");
        }
    }
}
