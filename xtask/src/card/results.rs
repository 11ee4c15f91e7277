//! Files what the script of the card has recorded: one readable JSON file for each run of it.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

/// What the script writes: a line about the machine, and one for each part.
const RECORD: &str = "card.jsonl";

/// Below the repository's root.
const RESULTS: &str = "crates/surgery-bench/results";

/// The most lines that are kept of what a part said.
const MOST_LINES: usize = 200;

/// Files the record in `folder` in the repository, and prints the rows of the benchmark's table.
pub(crate) fn file(root: &Path, folder: &Path) -> Result<(), String> {
    let result = read(folder)?;
    let text = |key: &str| result[key].as_str().unwrap_or_default();
    let place = root.join(RESULTS);
    let path = place.join(format!("{}-{}.json", text("date").replace(':', ""), slug(text("device"))));
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => {
            format!("{} is there already, and no result is overwritten; remove it first", path.display())
        }
        _ => format!("{}: {error}", path.display()),
    };
    fs::create_dir_all(&place).map_err(failed)?;
    let mut written = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
    writeln!(written, "{result:#}").map_err(failed)?;
    println!("filed as {}", path.strip_prefix(root).unwrap_or(&path).display());
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

/// What is filed of a record.
pub(super) fn read(folder: &Path) -> Result<Value, String> {
    let path = folder.join(RECORD);
    let bytes = fs::read(&path).map_err(|error| {
        format!("{}: {error}; expected the record that run.sh leaves in its folder", path.display())
    })?;
    // An output that was cut may be cut within a character.
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
            // The machine may have gone away in the middle of a line; all lines before it count.
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

/// A part as it is filed: how it ended, and its output as JSON or as lines.
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
    let said = |key: &str| said(part[key].as_str().unwrap_or_default(), folders);
    json!({
        "part": name,
        "ended": ended,
        "seconds": part["seconds"],
        "limit": part["limit"],
        "exit_code": part["exit_code"],
        "command": without(part["command"].as_str().unwrap_or_default(), folders),
        "stdout": said("stdout"),
        "stderr": said("stderr"),
    })
}

/// What a program printed: the JSON that it is, or its last lines.
fn said(text: &str, folders: &Value) -> Value {
    let text = without(text, folders);
    if let Ok(mut value @ Value::Object(_)) = serde_json::from_str(&text) {
        // Where models are downloaded from is no business of a measurement.
        value.as_object_mut().map(|value| value.shift_remove("hub"));
        return value;
    }
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(MOST_LINES)..].into()
}

/// A text without the places where the folders lay on that machine.
fn without(text: &str, folders: &Value) -> String {
    let folders = folders.as_object().into_iter().flatten();
    let mut folders: Vec<(&str, &str)> =
        folders.filter_map(|(name, folder)| Some((folder.as_str()?, name.as_str()))).collect();
    // One may lie in another.
    folders.sort_by_key(|(folder, _)| std::cmp::Reverse(folder.len()));
    folders
        .iter()
        .filter(|(folder, _)| !folder.is_empty())
        .fold(text.to_owned(), |text, (folder, name)| text.replace(folder, name))
}

/// The parts that were running when the script itself was ended: their output lies beside the record.
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
            "stdout": said(&stdout, folders),
            "stderr": said(&stderr, folders),
        }));
    }
    Ok(parts)
}

/// The device's name: as the doctor tells it; of the CPU, as the kernel does.
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

/// Letters and digits in lower case, with a dash for whatever lies between them.
fn slug(name: &str) -> String {
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_lowercase()
}

/// Rows of the benchmark's table: what was measured, here, in PyTorch, and PyTorch's by ours. Where a shape was measured
/// alone and beside PyTorch, the latter counts.
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
