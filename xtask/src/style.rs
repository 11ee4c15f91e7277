//! Rules of this repository that no lint checks. `cargo xtask check` prints all violations; each rule is also a test.

use std::fs;
use std::path::{Path, PathBuf};

/// Maximum number of lines in a source file.
const MOST_LINES: usize = 500;

/// Phrases that comments, docs and READMEs must not use, each with the words to write instead.
const BANNED: &[(&str, &str)] = &[
    ("way back", "backward pass"),
    ("the way there", "the forward pass"),
    ("on the way", "during the run, mid-run"),
    ("what is to stay", "retain documents"),
    ("what should stay", "retain documents"),
    ("what is to be kept", "retain documents"),
    ("what must go", "documents to unlearn"),
    ("to be forgotten", "to unlearn"),
    ("to forget", "to unlearn"),
    ("who stands where", "positions, RoPE tables and the attention mask"),
    ("stands where", "is where"),
    ("stands beside", "is beside"),
    ("stands in", "is in, occurs in"),
    ("stand in", "are in, occur in"),
    ("stands on", "depends on"),
    ("stand on", "depend on"),
    ("held to", "compared with, trained to match, checked by"),
    ("held against", "compared with"),
    ("is told", "is reported"),
    ("are told", "are reported"),
    ("be told", "be reported, be known"),
    ("told apart", "distinguished"),
    ("as it stands", "unchanged, verbatim"),
    ("as they stand", "unchanged, verbatim"),
    ("none where", "`None` if"),
    ("nothing where", "`None` if"),
    ("where it is missing", "if it is missing"),
    ("in the place of", "instead of"),
    ("anew", "again"),
    ("as it was", "before the operation, the reference"),
    ("as they were", "before the operation"),
    ("other people's data", "published datasets"),
    ("texts that the model writes", "replay documents"),
    ("writes itself", "generates (replay)"),
    ("wrote itself", "generated (replay)"),
    ("lean on", "depend on"),
    ("go on with", "resume, continue"),
    ("goes on with", "resumes, continues"),
    ("gone on with", "resumed, continued"),
    ("worked in", "working memory"),
];

/// First words of a doc comment that hide what the item is.
const HIDING: [&str; 2] = ["What", "Of"];

type Rule = fn() -> Vec<String>;

/// Every rule.
const RULES: [Rule; 8] = [
    files_are_short,
    prose_is_plain,
    docs_begin_with_the_thing,
    backends_are_chosen_in_one_file,
    core_names_no_backend_and_prints_nothing,
    modules_import_in_one_direction,
    unsafe_code_is_in_kernels_and_drivers,
    continuous_integration_runs_tasks_only,
];

/// Fails with all violations of all rules.
pub(crate) fn check() -> Result<(), String> {
    let violations: Vec<String> = RULES.iter().flat_map(|rule| rule()).collect();
    match violations.is_empty() {
        true => Ok(()),
        false => {
            Err(format!("{} violations of the style rules:\n{}", violations.len(), violations.join("\n")))
        }
    }
}

/// A file of the repository: its path from the root, with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

/// Every file in `folder` of the repository with this extension.
fn files(folder: &str, extension: &str) -> Vec<Source> {
    let root = crate::root();
    let mut pending = vec![root.join(folder)];
    let mut files = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a readable folder");
            pending.extend(entries.map(|entry| entry.expect("a readable folder").path()));
        } else if path.extension().is_some_and(|other| other == extension) {
            files.push(source(&root, path));
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn source(root: &Path, path: PathBuf) -> Source {
    let text = fs::read_to_string(&path).expect("text");
    let path = path.strip_prefix(root).expect("in the repository").to_string_lossy().replace('\\', "/");
    Source { path, text }
}

/// The folders with sources. They exclude build folders.
const FOLDERS: [&str; 6] = ["crates", "datasets", "fuzz/src", "fuzz/targets", "tests", "xtask"];

fn sources() -> Vec<Source> {
    FOLDERS.into_iter().flat_map(|folder| files(folder, "rs")).collect()
}

/// Files whose prose is checked: sources, READMEs, recipes and manifests.
fn prose() -> Vec<Source> {
    let root = crate::root();
    let at_root = ["README.md", "ARCHITECTURE.md", "Cargo.toml", "deny.toml", "fuzz/Cargo.toml"];
    let mut all: Vec<Source> = at_root.into_iter().map(|name| source(&root, root.join(name))).collect();
    all.extend(sources());
    for extension in ["md", "toml"] {
        all.extend(FOLDERS.into_iter().flat_map(|folder| files(folder, extension)));
    }
    all
}

/// Consecutive lines of comment or prose, joined by spaces.
struct Block {
    /// The comment's marker; empty in Markdown.
    marker: &'static str,
    text: String,
    /// The number of each line, with its offset in `text`.
    lines: Vec<(usize, usize)>,
}

impl Block {
    /// The number of the line that an offset is in.
    fn line(&self, offset: usize) -> usize {
        self.lines.iter().rev().find(|(_, start)| *start <= offset).map_or(1, |(number, _)| *number)
    }
}

/// The comments of a source file or manifest, and the paragraphs of a Markdown file outside code.
fn blocks(source: &Source) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut is_open, mut is_code) = (false, false);
    for (index, line) in source.text.lines().enumerate() {
        let extension = source.path.rsplit('.').next().unwrap_or_default();
        let found = match extension {
            "md" => {
                let fence = line.trim_start().starts_with("```");
                is_code ^= fence;
                (!is_code && !fence).then(|| ("", line.trim()))
            }
            "toml" => line.trim_start().strip_prefix('#').map(|text| ("#", text.trim())),
            _ => comment(line),
        };
        let Some((marker, text)) = found.filter(|(_, text)| !text.is_empty()) else {
            is_open = false;
            continue;
        };
        // Each row of a table is a block of its own.
        let continues = is_open && !text.starts_with('|');
        match blocks.last_mut().filter(|block| continues && block.marker == marker) {
            Some(block) => {
                block.lines.push((index + 1, block.text.len() + 1));
                block.text = format!("{} {text}", block.text);
            }
            None => blocks.push(Block { marker, text: text.into(), lines: vec![(index + 1, 0)] }),
        }
        is_open = true;
    }
    blocks
}

/// The marker and the text of the comment on a line of Rust.
fn comment(line: &str) -> Option<(&'static str, &str)> {
    let trimmed = line.trim_start();
    for marker in ["///", "//!", "//"] {
        if let Some(text) = trimmed.strip_prefix(marker) {
            return Some((marker, text.trim()));
        }
    }
    // A comment after code; two slashes within a string are none.
    let (code, text) = line.split_once(" // ")?;
    code.matches('"').count().is_multiple_of(2).then_some(("//", text.trim()))
}

/// The offsets of `phrase` in `text` as whole words, in any case.
fn occurrences(text: &str, phrase: &str) -> Vec<usize> {
    let text = text.to_ascii_lowercase();
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let is_whole = |&(start, found): &(usize, &str)| {
        let before = text[..start].chars().next_back();
        let after = text[start + found.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    };
    text.match_indices(phrase).filter(is_whole).map(|(start, _)| start).collect()
}

fn files_are_short() -> Vec<String> {
    let violation = |Source { path, text }: Source| {
        let lines = text.lines().count();
        (lines > MOST_LINES).then(|| format!("{path}: {lines} lines, more than {MOST_LINES}; split the file"))
    };
    sources().into_iter().filter_map(violation).collect()
}

fn prose_is_plain() -> Vec<String> {
    let mut violations = Vec::new();
    for file in prose() {
        for block in blocks(&file) {
            for (phrase, better) in BANNED {
                for start in occurrences(&block.text, phrase) {
                    let line = block.line(start);
                    violations.push(format!("{}, line {line}: \"{phrase}\"; write: {better}", file.path));
                }
            }
        }
    }
    violations
}

fn docs_begin_with_the_thing() -> Vec<String> {
    let mut violations = Vec::new();
    for file in sources() {
        for block in blocks(&file).iter().filter(|block| block.marker.len() == 3) {
            let first = block.text.split(' ').next().unwrap_or_default();
            if HIDING.contains(&first) {
                let line = block.line(0);
                let better = "begin with the noun or the verb that names the thing";
                violations.push(format!(
                    "{}, line {line}: a doc comment begins with \"{first}\"; {better}",
                    file.path
                ));
            }
        }
    }
    violations
}

fn backends_are_chosen_in_one_file() -> Vec<String> {
    let may = [
        "crates/surgery-cli/src/backend.rs",
        "crates/surgery-bench/src/backend.rs",
        "tests/src/bin/parity.rs",
    ];
    // Split, so that this file does not match.
    let needle = ["feature", " = \""].concat();
    let violation = |Source { path, text }: Source| {
        let chooses =
            ["ndarray", "wgpu", "cuda"].iter().any(|name| text.contains(&format!("{needle}{name}\"")));
        (chooses && !may.contains(&path.as_str()))
            .then(|| format!("{path}: depends on a backend's feature; use the program's backend file"))
    };
    sources().into_iter().filter_map(violation).collect()
}

fn core_names_no_backend_and_prints_nothing() -> Vec<String> {
    let backends =
        ["burn-ndarray", "burn-wgpu", "burn-cuda", "surgery-ndarray", "surgery-wgpu", "surgery-cuda"];
    let output = ["println!", "print!", "dbg!", "std::net"];
    let find = |files: Vec<Source>, words: &[&str]| -> Vec<String> {
        let violation =
            |path: &str, word: &str| format!("{path}: contains `{word}`, which core must not use");
        let of_file = |Source { path, text }: &Source| -> Vec<String> {
            words.iter().filter(|word| text.contains(**word)).map(|word| violation(path, word)).collect()
        };
        files.iter().flat_map(of_file).collect()
    };
    // Examples and tests run on a backend.
    let mut manifests = files("crates/surgery-core", "toml");
    for manifest in &mut manifests {
        let end = manifest.text.find("[dev-dependencies]").unwrap_or(manifest.text.len());
        manifest.text.truncate(end);
    }
    let mut violations = find(manifests, &backends);
    violations.extend(find(files("crates/surgery-core/src", "rs"), &output));
    violations
}

fn modules_import_in_one_direction() -> Vec<String> {
    let crates = fs::read_dir(crate::root().join("crates")).expect("a readable folder");
    let names = crates.map(|entry| entry.expect("a readable folder").file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names.iter().flat_map(|name| crate::layers::circles(name, &module_files(name))).collect()
}

/// The path of each source file within the crate's `src`, and its text.
fn module_files(name: &str) -> Vec<(String, String)> {
    let folder = format!("crates/{name}/src");
    let inner = |Source { path, text }: Source| (path[folder.len() + 1..].to_owned(), text);
    files(&folder, "rs").into_iter().map(inner).collect()
}

/// Clippy requires a safety comment for each unsafe block.
fn unsafe_code_is_in_kernels_and_drivers() -> Vec<String> {
    let may = [
        "crates/surgery-ndarray/src/attention.rs",
        // A setting of the allocator.
        "crates/surgery-ndarray/src/buffer.rs",
        "crates/surgery-ndarray/src/gemm/",
        "crates/surgery-ndarray/src/simd.rs",
        // Checks whether libraries can be loaded.
        "crates/surgery-cuda/src/lib.rs",
        // Kernels of another crate, for comparison.
        "crates/surgery-gemm/src/main.rs",
    ];
    // Split, so that this file does not match.
    let needle = ["unsafe", "_code"].concat();
    let violation = |Source { path, text }: Source| {
        let is_unsafe = text.lines().any(|line| line.trim_start().starts_with('#') && line.contains(&needle));
        let allowed = may.iter().any(|place| path.starts_with(place));
        (is_unsafe && !allowed).then(|| format!("{path}: allows unsafe code; only kernels and drivers may"))
    };
    sources().into_iter().filter_map(violation).collect()
}

fn continuous_integration_runs_tasks_only() -> Vec<String> {
    let mut violations = Vec::new();
    for Source { path, text } in files(".github/workflows", "yml") {
        let runs = text.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("run: "));
        let others =
            runs.filter(|command| !command.starts_with("cargo xtask ") && !command.starts_with("rustup "));
        violations.extend(others.map(|command| format!("{path}: runs {command:?}; make it a task of xtask")));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn holds(rule: Rule) {
        let violations = rule();
        assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
    }

    #[test]
    fn source_files_are_short() {
        holds(files_are_short);
    }

    #[test]
    fn no_modules_import_in_a_circle() {
        holds(modules_import_in_one_direction);
    }

    #[test]
    fn comments_docs_and_readmes_use_no_banned_phrase() {
        holds(prose_is_plain);
    }

    #[test]
    fn doc_comments_begin_with_the_thing() {
        holds(docs_begin_with_the_thing);
    }

    #[test]
    fn each_program_chooses_backends_in_one_file() {
        holds(backends_are_chosen_in_one_file);
    }

    #[test]
    fn core_is_independent_of_backends_and_prints_nothing() {
        holds(core_names_no_backend_and_prints_nothing);
    }

    #[test]
    fn only_kernels_and_drivers_are_unsafe() {
        holds(unsafe_code_is_in_kernels_and_drivers);
    }

    #[test]
    fn workflows_run_tasks_only() {
        holds(continuous_integration_runs_tasks_only);
    }

    #[test]
    fn phrases_are_found_across_lines_and_as_whole_words() {
        let text = "/// Values kept for the\n/// Way back.\nlet x = 1; // the way\n// backward\nlet y = \" // the way back\";\n";
        let file = Source { path: "a.rs".into(), text: text.into() };
        let blocks = blocks(&file);
        let found: Vec<(usize, &str)> =
            blocks.iter().map(|block| (block.lines.len(), block.text.as_str())).collect();
        assert_eq!(found, [(2, "Values kept for the Way back."), (2, "the way backward")]);
        let starts: Vec<Vec<usize>> =
            blocks.iter().map(|block| occurrences(&block.text, "way back")).collect();
        assert_eq!(starts, [vec![20], vec![]]);
        assert_eq!((blocks[0].line(0), blocks[0].line(20)), (1, 2));
    }

    #[test]
    fn code_in_markdown_is_not_prose() {
        let text = "One\ntwo.\n\n```sh\nthree\n```\n| four |\n| five |\n";
        let file = Source { path: "a.md".into(), text: text.into() };
        let found: Vec<String> = blocks(&file).into_iter().map(|block| block.text).collect();
        assert_eq!(found, ["One two.", "| four |", "| five |"]);
    }
}
