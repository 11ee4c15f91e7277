//! The files that an interrupted, killed or diverging run leaves behind. A resumed run must end with the same results.

#[path = "../common/mod.rs"]
mod common;
mod resumed;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn golden(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(path).to_str().unwrap().to_owned()
}

/// An empty folder with this name for one test. Its commands run there.
fn scratch(name: &str) -> PathBuf {
    common::scratch("trust", name)
}

/// A short operation on golden files, with a checkpoint every 5 of its 40 steps.
fn operation(output: &str, more: &[&str]) -> Vec<String> {
    let (model, data) = (golden("models/llama1-mha"), golden("steps/data"));
    let arguments = ["run", "paper", "--model", &model, "--data", &data, "--output", output];
    let settings = [
        "--set",
        "train.steps=40",
        "--set",
        "train.documents_per_step=2",
        "--set",
        "train.checkpoint_every=5",
        "--set",
        "train.evaluate_every=4",
    ];
    let all = arguments.iter().chain(&settings).chain(more);
    all.map(|argument| argument.to_string()).collect()
}

fn resumption(output: &str) -> Vec<String> {
    ["run", "--resume", "--output", output].map(str::to_owned).to_vec()
}

fn command(folder: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_surgery"));
    command.args(arguments).current_dir(folder);
    command
}

fn run(folder: &Path, arguments: &[String]) -> Output {
    command(folder, arguments).output().unwrap()
}

/// Runs a command that must end with this code, and returns its standard error.
#[track_caller]
fn ends_in(code: i32, folder: &Path, arguments: &[String]) -> String {
    let output = run(folder, arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert!(!errors.contains("panic") && !errors.contains("internal error"), "{errors}");
    errors
}

fn start(folder: &Path, arguments: &[String]) -> Child {
    command(folder, arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until `file` has `lines` lines.
#[track_caller]
fn wait_for_lines(file: &Path, lines: usize) {
    let started = Instant::now();
    while fs::read_to_string(file).unwrap_or_default().lines().count() < lines {
        assert!(started.elapsed() < Duration::from_secs(120), "{} never had {lines} lines", file.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// The results of a run (weights, metrics, report), without times, memory and paths, which may differ between equal runs.
fn left(folder: &Path, output: &str) -> (Vec<u8>, Vec<Value>, Value) {
    let place = folder.join(output);
    let weights = fs::read(place.join("model/model.safetensors")).unwrap();
    let lines = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(place.join(name)).unwrap();
        text.lines()
            .map(|line| {
                let mut line: Value = serde_json::from_str(line).unwrap();
                line.as_object_mut().unwrap().remove("seconds");
                line
            })
            .collect()
    };
    let mut report: Value = serde_json::from_slice(&fs::read(place.join("report.json")).unwrap()).unwrap();
    let entries = report.as_object_mut().unwrap();
    for key in
        ["train_seconds", "evaluate_seconds", "tokens_per_second", "peak_memory_bytes", "output", "files"]
    {
        assert!(entries.remove(key).is_some(), "{key}");
    }
    (weights, [lines("metrics.jsonl"), lines("evaluations.jsonl")].concat(), report)
}

/// The names in a folder that do not begin with a dot, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

const FINISHED: [&str; 6] =
    ["evaluations.jsonl", "metrics.jsonl", "model", "recipe.toml", "report.html", "report.json"];

/// Kills runs `kills` times, at moments spread over their whole length. Each finished run must have the same results.
fn survives(kills: usize, name: &str) {
    let folder = scratch(name);
    let clock = Instant::now();
    // The run has replay documents, which a resumed run generates again.
    let begun = ["-q", "--set", "replay.documents=12", "--set", "replay.max_tokens=24"];
    ends_in(0, &folder, &operation("undisturbed", &begun));
    let length = clock.elapsed();
    let expected = left(&folder, "undisturbed");
    let (mut killed, mut started, mut round) = (0, 0, 0);
    while killed < kills {
        let output = format!("killed-{round}");
        round += 1;
        let mut arguments = operation(&output, &begun);
        loop {
            let mut child = start(&folder, &arguments);
            // A low-discrepancy sequence covers the length evenly.
            let moment = (f64::from(started) * 0.618_033_988_75).fract() * 1.1;
            started += 1;
            std::thread::sleep(length.mul_f64(moment));
            if child.try_wait().unwrap().is_none() {
                signal(&child, "KILL");
                killed += 1;
            }
            let ended = child.wait_with_output().unwrap();
            if ended.status.code() == Some(0) {
                break;
            }
            assert_eq!(ended.status.code(), None, "{}", String::from_utf8_lossy(&ended.stderr));
            if folder.join(&output).join("report.json").exists() {
                // It was killed after it had written its report.
                break;
            }
            // A run that was killed early may have no recipe yet, which `--resume` alone needs.
            arguments = operation(&output, &[&begun[..], &["--resume"]].concat());
        }
        assert_eq!(left(&folder, &output), expected, "after {killed} kills");
        fs::remove_dir_all(folder.join(output)).unwrap();
    }
}

#[test]
fn a_run_killed_again_and_again_ends_as_one_undisturbed() {
    survives(50, "kill");
}

#[test]
#[ignore = "takes long: `cargo xtask soak`"]
fn soak() {
    survives(1000, "soak");
}

#[test]
fn the_first_signal_saves_and_the_second_quits() {
    let folder = scratch("signals");
    ends_in(0, &folder, &operation("undisturbed", &["-q"]));
    for (name, at) in [("INT", 7), ("TERM", 13)] {
        let child = start(&folder, &operation(name, &[]));
        wait_for_lines(&folder.join(name).join("metrics.jsonl"), at);
        signal(&child, name);
        let ended = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(130), "{errors}");
        assert!(errors.contains(&format!("surgery run --output {name} --resume")), "{errors}");
        assert!(!folder.join(name).join("model").exists());

        // The resumed run names the step, and no step is lost.
        let steps = fs::read_to_string(folder.join(name).join("metrics.jsonl")).unwrap().lines().count();
        let errors = ends_in(0, &folder, &resumption(name));
        assert!(errors.contains(&format!("resuming after step {steps}")), "{errors}");
        assert_eq!(left(&folder, name), left(&folder, "undisturbed"));
        assert_eq!(names(&folder.join(name)), FINISHED);
    }

    let mut child = start(&folder, &operation("twice", &["--set", "train.steps=100000"]));
    wait_for_lines(&folder.join("twice/metrics.jsonl"), 3);
    signal(&child, "INT");
    std::thread::sleep(Duration::from_millis(1));
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// A change that damages a checkpoint's folder.
type Damage = fn(&Path);

#[test]
fn the_last_two_checkpoints_are_kept_and_a_damaged_one_is_passed_over() {
    let folder = scratch("damaged");
    ends_in(0, &folder, &operation("undisturbed", &["-q"]));
    let damages: [(&str, Damage); 3] = [
        ("no state", |at| fs::remove_file(at.join("state.json")).unwrap()),
        ("another byte", |at| {
            let path = at.join("optimizer.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("cut off", |at| {
            let path = at.join("model.safetensors");
            let bytes = fs::read(&path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let child = start(&folder, &operation(what, &[]));
        wait_for_lines(&folder.join(what).join("metrics.jsonl"), 17);
        signal(&child, "KILL");
        child.wait_with_output().unwrap();
        let checkpoints = folder.join(what).join("checkpoints");
        let kept = names(&checkpoints);
        assert_eq!(kept.len(), 2, "{kept:?}");
        damage(&checkpoints.join(&kept[1]));
        let errors = ends_in(0, &folder, &resumption(what));
        assert!(errors.contains("warning") && errors.contains(&kept[1]), "{what}: {errors}");
        assert!(errors.contains(&format!("from {what}/checkpoints/{}", kept[0])), "{what}: {errors}");
        assert_eq!(left(&folder, what), left(&folder, "undisturbed"), "{what}");
    }
}

#[test]
fn a_checkpoint_caught_between_two_names_is_gone_on_from() {
    let folder = scratch("renamed");
    // The model has a file in a subfolder, which a checkpoint contains and verifies like the others.
    let model = folder.join("model");
    fs::create_dir_all(model.join("additional_chat_templates")).unwrap();
    for entry in fs::read_dir(golden("models/llama1-mha")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
    }
    let template = "additional_chat_templates/tool.jinja";
    fs::write(model.join(template), "{{ tools }}").unwrap();
    let on_it = |output: &str| -> Vec<String> {
        let golden = golden("models/llama1-mha");
        let all = operation(output, &[]).into_iter();
        all.map(|argument| if argument == golden { "model".to_owned() } else { argument }).collect()
    };
    ends_in(0, &folder, &on_it("undisturbed"));
    let child = start(&folder, &on_it("out"));
    wait_for_lines(&folder.join("out/metrics.jsonl"), 17);
    signal(&child, "KILL");
    child.wait_with_output().unwrap();
    let checkpoints = folder.join("out/checkpoints");
    let kept = names(&checkpoints);
    // That file of the newest checkpoint is damaged. The previous checkpoint was being replaced, and an earlier one removed.
    fs::write(checkpoints.join(&kept[1]).join(template), "{{ tool }}").unwrap();
    let hidden = |name: &str, ending: &str| checkpoints.join(format!(".{name}.{ending}"));
    fs::rename(checkpoints.join(&kept[0]), hidden(&kept[0], "previous")).unwrap();
    for half in [hidden(&kept[0], "tmp"), hidden("step-000001", "old")] {
        fs::create_dir(&half).unwrap();
        fs::write(half.join("model.safetensors"), "half").unwrap();
    }
    let errors = ends_in(0, &folder, &resumption("out"));
    assert!(errors.contains(&format!("{}/{template}", kept[1])), "{errors}");
    assert!(errors.contains(&format!("from out/checkpoints/{}", kept[0])), "{errors}");
    assert_eq!(left(&folder, "out"), left(&folder, "undisturbed"));
    assert_eq!(fs::read_to_string(folder.join("out/model").join(template)).unwrap(), "{{ tools }}");
}

#[test]
fn only_its_own_unfinished_run_is_gone_on_with_and_by_one_process() {
    let folder = scratch("foreign");
    // Without a run in the folder, `--resume` starts one and says so.
    let mut fresh = operation("fresh", &["--resume"]);
    assert!(ends_in(0, &folder, &fresh).contains("starting with the first step"));
    assert!(ends_in(3, &folder, &resumption("fresh")).contains("finished run"));
    fresh.retain(|argument| argument != "--resume");
    assert!(ends_in(3, &folder, &fresh).contains("holds a run already"));

    fs::create_dir(folder.join("other")).unwrap();
    fs::write(folder.join("other/notes.txt"), "mine").unwrap();
    assert!(ends_in(3, &folder, &operation("other", &["--resume"])).contains("not the folder of a run"));
    assert_eq!(names(&folder.join("other")), ["notes.txt"]);

    let child = start(&folder, &operation("busy", &["--set", "train.steps=100000"]));
    wait_for_lines(&folder.join("busy/metrics.jsonl"), 6);
    assert!(ends_in(3, &folder, &resumption("busy")).contains("another process"));
    signal(&child, "KILL");
    child.wait_with_output().unwrap();
    // The lock of a dead process has no effect. A run is not resumed with another recipe.
    let errors = ends_in(3, &folder, &operation("busy", &["--resume"]));
    assert!(errors.contains("busy/recipe.toml") && errors.contains("steps = 40"), "{errors}");
    assert!(!run(&folder, &["run".into(), "--resume".into()]).status.success(), "--resume needs --output");
}

#[test]
fn a_step_that_is_not_finite_leaves_the_last_good_weights() {
    let folder = scratch("diverged");
    // The first step has rate 0, the second one spoils the weights, and the third one finds that.
    let settings = ["optimizer.learning_rate=1e18", "optimizer.warmup_steps=1", "train.checkpoint_every=1"];
    let more = settings.map(|setting| ["--set", setting]).concat();
    let errors = ends_in(5, &folder, &operation("out", &more));
    assert!(errors.contains("step 3") && errors.contains("last good weights"), "{errors}");
    assert!(!folder.join("out/model").exists());
    assert_eq!(names(&folder.join("out/checkpoints")), ["step-000001"]);
    // They are the weights of the input model, and can be used.
    let score = |model: &str| -> Vec<u8> {
        let input = golden("steps/data/retain.jsonl");
        let arguments = ["score", "--model", model, "--input", &input, "-q"].map(str::to_owned);
        let output = run(&folder, &arguments);
        assert!(output.status.success());
        output.stdout
    };
    assert_eq!(score("out/checkpoints/step-000001"), score(&golden("models/llama1-mha")));
}

#[test]
fn a_collapse_is_rolled_back_once_and_then_ends_the_run() {
    let folder = scratch("collapse");
    let limit = |limit: &str| format!("guard.retain_kl={limit}");
    // The KL of this operation grows to 0.17 over its 40 steps, and first passes 0.15 near their end.
    let errors = ends_in(0, &folder, &operation("once", &["--set", &limit("0.15")]));
    assert!(errors.contains("rolled back to its state after step"), "{errors}");
    let report: Value = serde_json::from_slice(&fs::read(folder.join("once/report.json")).unwrap()).unwrap();
    assert_eq!(report["rolled_back"], 1);
    assert_eq!(report["steps"], 40);

    let errors = ends_in(5, &folder, &operation("again", &["--set", &limit("0.03")]));
    assert!(errors.contains("rolled back") && errors.contains("guard.retain_kl"), "{errors}");
    assert!(!folder.join("again/model").exists());
    let kept = names(&folder.join("again/checkpoints"));
    assert!(!kept.is_empty());
}

/// Mounts a file system of `kib` KiB. Returns whether this process may do that.
fn small_disk(folder: &Path, kib: usize) -> bool {
    fs::create_dir_all(folder).unwrap();
    let size = format!("size={kib}k");
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).output();
    mount.is_ok_and(|output| output.status.success())
}

const NO_MOUNT: &str = "not run: this process may not mount a file system";

#[test]
fn the_error_of_a_disk_too_small_for_the_model_names_the_bytes_needed() {
    let folder = scratch("small");
    let disk = folder.join("disk");
    // There is room for the records of a run, but not for its model of 124 KB.
    if !small_disk(&disk, 96) {
        println!("{NO_MOUNT}");
        return;
    }
    let settings = ["train.checkpoint_every=0", "train.reference=live"];
    let more = settings.map(|setting| ["--set", setting]).concat();
    let ended = run(&folder, &operation("disk/out", &more));
    let has_model = disk.join("out/model").exists();
    assert!(Command::new("umount").arg(&disk).status().unwrap().success());
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(8), "{errors}");
    // 30,464 parameters in f32.
    assert!(errors.contains("disk/out/") && errors.contains("121856 bytes"), "{errors}");
    assert!(!has_model, "an incomplete model has the name of a complete one");
}

#[test]
fn a_full_disk_keeps_the_last_checkpoint_and_the_run_resumes_when_there_is_room() {
    let folder = scratch("full");
    ends_in(0, &folder, &operation("undisturbed", &["-q"]));
    let disk = folder.join("disk");
    if !small_disk(&disk, 1 << 14) {
        println!("{NO_MOUNT}");
        return;
    }
    let child = start(&folder, &operation("disk/out", &[]));
    wait_for_lines(&disk.join("out/metrics.jsonl"), 8);
    let mut filler = fs::File::create(disk.join("filler")).unwrap();
    let block = vec![0u8; 1 << 12];
    while std::io::Write::write_all(&mut filler, &block).is_ok() {}
    let ended = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
    let kept = names(&disk.join("out/checkpoints"));
    drop(filler);
    fs::remove_file(disk.join("filler")).unwrap();
    let outcome = std::panic::catch_unwind(|| {
        assert_eq!(ended.status.code(), Some(8), "{errors}");
        assert!(errors.contains("disk/out") && errors.contains("cannot be written"), "{errors}");
        assert!(!kept.is_empty());
        ends_in(0, &folder, &resumption("disk/out"));
        assert_eq!(left(&folder, "disk/out"), left(&folder, "undisturbed"));
    });
    assert!(Command::new("umount").arg(&disk).status().unwrap().success());
    outcome.unwrap();
}

/// A system call, with its files.
enum Call {
    Synced(PathBuf),
    Renamed(PathBuf, PathBuf),
}

/// The calls of fsync and rename by strace; `None` if strace does not work here.
fn calls(folder: &Path, arguments: &[String]) -> Option<Vec<Call>> {
    let program = ["-f", "-y", "-s", "4096", "-e", "trace=fsync,rename", "-o", "calls.txt"];
    let mut traced = Command::new("strace");
    traced.args(program).arg(env!("CARGO_BIN_EXE_surgery")).args(arguments).current_dir(folder);
    let output = traced.output().ok()?;
    let text = fs::read_to_string(folder.join("calls.txt")).unwrap_or_default();
    if text.is_empty() {
        // strace exists, but may not trace another process.
        return None;
    }
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = folder.canonicalize().unwrap();
    let call = |line: &str| {
        let between = |open: char, close: char| -> Option<&str> {
            let (_, rest) = line.split_once(open)?;
            rest.rsplit_once(close).map(|(inner, _)| inner)
        };
        if line.contains("fsync(") {
            return Some(Call::Synced(between('<', '>')?.into()));
        }
        let (from, to) = between('"', '"')?.split_once("\", \"")?;
        line.contains("rename(").then(|| Call::Renamed(folder.join(from), folder.join(to)))
    };
    Some(text.lines().filter_map(call).collect())
}

/// After a power failure, only synced files are left. So everything that is renamed to its final name is synced before, and
/// its folder is synced after.
#[test]
fn what_has_its_name_is_on_the_disk() {
    let folder = scratch("synced");
    let more = ["-q", "--set", "train.steps=6"];
    let Some(calls) = calls(&folder, &operation("out", &more)) else {
        println!("not run: strace is missing, or may not trace another process");
        return;
    };
    let mut named = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        let Call::Renamed(from, to) = call else { continue };
        // Damaged states of the reference are found by their checksums and computed again. A file that ends in `.old` is
        // about to be removed.
        if to.parent().unwrap().ends_with("reference") || to.extension().is_some_and(|end| end == "old") {
            continue;
        }
        let synced = |calls: &[Call], path: &Path| {
            calls.iter().any(|call| matches!(call, Call::Synced(synced) if synced == path))
        };
        assert!(synced(&calls[..at], from), "{} was not synced before it was renamed", from.display());
        let parent = to.parent().unwrap();
        assert!(synced(&calls[at..], parent), "{} was not synced after {}", parent.display(), to.display());
        named.push(to.strip_prefix(folder.canonicalize().unwrap()).unwrap().to_owned());
    }
    for name in ["out/recipe.toml", "out/checkpoints/step-000005", "out/model", "out/report.json"] {
        assert!(named.iter().any(|path| path == Path::new(name)), "{name} was never renamed: {named:?}");
    }
}
