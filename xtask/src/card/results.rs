//! Stores the records of the card's script: one readable JSON file for each run.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

/// The script's record: a line about the machine and one for each part.
const RECORD: &str = "card.jsonl";

/// Folder of the results in the repository.
const RESULTS: &str = "crates/surgery-bench/results";

/// Maximum number of output lines kept of a part.
const MOST_LINES: usize = 200;

/// Stores the record in `folder` in the repository and prints the rows of the benchmark's table.
pub(crate) fn file(root: &Path, folder: &Path) -> Result<(), String> {
    let result = read(folder)?;
    let text = |key: &str| result[key].as_str().unwrap_or_default();
    let place = root.join(RESULTS);
    let path = place.join(format!("{}-{}.json", text("date").replace(':', ""), slug(text("device"))));
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => {
            format!("{} exists already, and results are never overwritten; remove it first", path.display())
        }
        _ => format!("{}: {error}", path.display()),
    };
    fs::create_dir_all(&place).map_err(failed)?;
    let mut written = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
    writeln!(written, "{result:#}").map_err(failed)?;
    println!("stored as {}", path.strip_prefix(root).unwrap_or(&path).display());
    for part in result["parts"].as_array().into_iter().flatten() {
        println!(
            "  {}: {}",
            part["part"].as_str().unwrap_or_default(),
            part["ended"].as_str().unwrap_or_default()
        );
    }
    let rows = result["table"].as_array().into_iter().flatten();
    let rows: Vec<&str> = rows.filter_map(Value::as_str).collect();
    if !rows.is_empty() {
        println!("\n{}", rows.join("\n"));
    }
    Ok(())
}

/// Converts a record into the stored form.
pub(super) fn read(folder: &Path) -> Result<Value, String> {
    let path = folder.join(RECORD);
    let bytes = fs::read(&path).map_err(|error| {
        format!("{}: {error}; expected the record that run.sh leaves in its folder", path.display())
    })?;
    // A truncated output may end within a character.
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().enumerate();
    let mut head = match lines.next().map(|(_, line)| serde_json::from_str(line)) {
        Some(Ok(Value::Object(head))) if head.get("card") == Some(&json!(1)) => head,
        _ => {
            return Err(format!("{} line 1: expected {{\"card\":1,…}}, as run.sh writes it", path.display()));
        }
    };
    let folders = head.remove("folders").unwrap_or_default();
    let mut parts = Vec::new();
    for (number, line) in lines {
        match serde_json::from_str::<Value>(line) {
            Ok(part) => parts.push(outcome(&part, &folders)),
            // The machine may have stopped in the middle of a line; all earlier lines count.
            Err(_) if number + 1 == text.lines().count() => {
                parts.push(json!({"part": "the record", "ended": "its last line is cut"}));
            }
            Err(error) => return Err(format!("{} line {}: {error}", path.display(), number + 1)),
        }
    }
    parts.extend(cut_off(folder, &folders)?);

    let head = |key: &str| match head.get(key) {
        Some(Value::String(text)) => without(text, &folders).into(),
        other => other.cloned().unwrap_or_default(),
    };
    let machine: Map<String, Value> = ["cpu", "cores", "memory_bytes", "kernel", "cuda_path", "library_path"]
        .into_iter()
        .map(|key| (key.to_owned(), head(key)))
        .collect();
    Ok(json!({
        "date": head("date"),
        "device": device(&head("backend"), &head("cpu"), &parts),
        "command": head("command"),
        "backend": head("backend"),
        "profile": head("profile"),
        "commit": head("commit"),
        "seconds": head("seconds"),
        "machine": machine,
        "table": table(&parts),
        "parts": parts,
    }))
}

/// A part in the stored form: how it ended, and its output as JSON or as lines.
fn outcome(part: &Value, folders: &Value) -> Value {
    let name = part["part"].clone();
    if let Some(reason) = part["skipped"].as_str() {
        return json!({"part": name, "ended": format!("skipped: {reason}")});
    }
    let ended = match (part["exit_code"].as_i64(), part["limit"].as_f64(), part["seconds"].as_f64()) {
        (Some(0), ..) => "done".to_owned(),
        (Some(124 | 137), Some(limit), Some(seconds)) if seconds >= limit => {
            format!("stopped at its limit of {limit} s")
        }
        (Some(code), ..) => format!("failed with exit code {code}"),
        _ => "unknown".to_owned(),
    };
    let program_output = |key: &str| program_output(part[key].as_str().unwrap_or_default(), folders);
    json!({
        "part": name,
        "ended": ended,
        "seconds": part["seconds"],
        "limit": part["limit"],
        "exit_code": part["exit_code"],
        "command": without(part["command"].as_str().unwrap_or_default(), folders),
        "stdout": program_output("stdout"),
        "stderr": program_output("stderr"),
    })
}

/// A program's output: its JSON, or its last lines.
fn program_output(text: &str, folders: &Value) -> Value {
    let text = without(text, folders);
    if let Ok(mut value @ Value::Object(_)) = serde_json::from_str(&text) {
        // The hub's settings are irrelevant for a measurement.
        value.as_object_mut().map(|value| value.shift_remove("hub"));
        return value;
    }
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(MOST_LINES)..].into()
}

/// Replaces the machine's folders by their names.
fn without(text: &str, folders: &Value) -> String {
    let folders = folders.as_object().into_iter().flatten();
    let mut folders: Vec<(&str, &str)> =
        folders.filter_map(|(name, folder)| Some((folder.as_str()?, name.as_str()))).collect();
    // Longest first, since one folder may contain another.
    folders.sort_by_key(|(folder, _)| std::cmp::Reverse(folder.len()));
    folders
        .iter()
        .filter(|(folder, _)| !folder.is_empty())
        .fold(text.to_owned(), |text, (folder, name)| text.replace(folder, name))
}

/// The parts that were running when the script was killed: their output files are beside the record.
fn cut_off(folder: &Path, folders: &Value) -> Result<Vec<Value>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut parts = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != "stdout") {
            continue;
        }
        let read = |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let stdout = read(&path).map_err(failed)?;
        let stderr = read(&path.with_extension("stderr")).unwrap_or_default();
        parts.push(json!({
            "part": path.file_stem().map(|name| name.to_string_lossy()),
            "ended": "cut off with the script",
            "stdout": program_output(&stdout, folders),
            "stderr": program_output(&stderr, folders),
        }));
    }
    Ok(parts)
}

/// The device's name from the doctor's output; for the CPU, from the kernel.
fn device(backend: &Value, cpu: &Value, parts: &[Value]) -> Value {
    if backend == "ndarray" {
        return cpu.clone();
    }
    let doctor = parts.iter().find(|part| part["part"] == "doctor");
    let backends = doctor.and_then(|doctor| doctor["stdout"]["backends"].as_array());
    let described = backends.into_iter().flatten().find(|described| described["name"] == *backend);
    let first = described.and_then(|described| described["devices"][0].as_str());
    let name = first.and_then(|device| device.strip_prefix("device 0: "));
    let name = name.and_then(|name| name.split(',').next());
    name.map_or_else(|| format!("unknown device of {}", backend.as_str().unwrap_or_default()), Into::into)
        .into()
}

/// Letters and digits in lower case, with a dash for everything in between.
fn slug(name: &str) -> String {
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_lowercase()
}

/// Rows of the benchmark's table: measurement, ours, PyTorch's, and PyTorch's divided by ours. If a shape was
/// measured with and without PyTorch, the former counts.
fn table(parts: &[Value]) -> Vec<String> {
    let mut measured: Vec<(String, &Value)> = Vec::new();
    for part in parts {
        let report = &part["stdout"];
        for shape in report["shapes"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let name = format!("{}, {}", text(&shape["shape"]), text(&report["precision"]));
            measured.retain(|(other, _)| *other != name);
            measured.push((name, shape));
        }
    }
    measured.iter().flat_map(|(name, shape)| rows(name, shape)).collect()
}

fn rows(name: &str, shape: &Value) -> Vec<String> {
    let (step, evaluation, peer) = (&shape["step"], &shape["evaluation"], &shape["peer"]);
    let row = |what: &str, ours: &Value, theirs: &Value, shown: &dyn Fn(f64) -> String| {
        let ours = ours.as_f64()?;
        let theirs = theirs.as_f64();
        let times = theirs.map(|theirs| format!("{:.2}", theirs / ours)).unwrap_or_default();
        let theirs = theirs.map(shown).unwrap_or_default();
        Some(format!("| {name}, {what} | {} | {theirs} | {times} |", shown(ours)))
    };
    let milliseconds = |seconds: f64| format!("{:.0} ms", 1e3 * seconds);
    let questions = evaluation["questions"].as_f64().unwrap_or_default();
    let answered = |seconds: f64| format!("{:.0} a second", questions / seconds);
    [
        row("a step", &step["seconds"], &peer["step_seconds"], &milliseconds),
        row(
            &format!("{questions} questions"),
            &evaluation["seconds"],
            &peer["batched_evaluation_seconds"],
            &answered,
        ),
        row("memory of a step", &step["memory_bytes"], &peer["memory_bytes"], &|bytes| {
            format!("{:.0} MB", bytes / 1e6)
        }),
        row("floor / step", &shape["floor"]["share"], &Value::Null, &|share| {
            format!("{:.0} %", 100.0 * share)
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}
