//! Models from the hub. A server on this machine plays the hub, with the behaviour that each test needs.

mod companions;
mod environment;
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;
use server::{Answer, Asked, COMMIT, Server, hub, hub_where, model, sha256};

const TOKEN: &str = "hf_secret";
const WEIGHTS: &str = "model.safetensors";

/// The environment of one test: its own cache, and a command without other environment variables.
struct Place {
    folder: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hub").join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        fs::create_dir_all(&folder).unwrap();
        Self { folder }
    }

    fn command(&self, endpoint: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_surgery"));
        command.args(arguments).current_dir(&self.folder).env_clear();
        command.env("HF_HOME", self.folder.join("home")).env("HF_ENDPOINT", endpoint);
        command
    }

    fn repository(&self) -> PathBuf {
        self.folder.join("home/hub/models--org--tiny")
    }

    fn snapshot(&self) -> PathBuf {
        self.repository().join("snapshots").join(COMMIT)
    }

    /// The unfinished downloads in `blobs/`.
    fn unfinished(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.repository().join("blobs")) else { return Vec::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "incomplete")).collect()
    }

    /// Checks that each file in the cache has its content.
    #[track_caller]
    fn assert_has_model(&self) {
        for (file, content) in model() {
            assert!(fs::read(self.snapshot().join(&file)).unwrap() == content, "{file} is another");
        }
        assert!(self.unfinished().is_empty());
    }
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail with this code, name all of `named`, print nothing, and not reveal the token.
#[track_caller]
fn fail(command: &mut Command, code: i32, named: &[&str]) {
    let output = command.output().unwrap();
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(!errors.contains("internal error") && !errors.contains(TOKEN), "{errors}");
    assert!(output.stdout.is_empty());
    for named in named {
        assert!(errors.contains(named), "{errors:?} does not name {named:?}");
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const FETCH: [&str; 2] = ["fetch", "org/tiny"];
const GENERATE: [&str; 6] = ["generate", "--model", "org/tiny", "--prompt", "a", "--max-new-tokens=1"];

#[test]
fn a_model_is_fetched_once_and_used_from_the_cache() {
    let (place, server) = (Place::new("fetch"), hub_where(|_| None));
    let printed = succeed(&mut place.command(&server.address, &FETCH));
    assert_eq!(Path::new(printed.trim_end()), place.snapshot());
    place.assert_has_model();
    assert_eq!(fs::read_to_string(place.repository().join("refs/main")).unwrap(), COMMIT);

    // The second time, the hub is asked for the list of files, and sends no file.
    let again = ["fetch", "org/tiny@refs/pr/1", "--json"];
    let printed: Value = serde_json::from_str(&succeed(&mut place.command(&server.address, &again))).unwrap();
    assert_eq!(printed["commit"], COMMIT);
    assert_eq!(printed["revision"], "refs/pr/1");
    assert_eq!(server.asked("GET", WEIGHTS).len(), 1);

    // A model in the cache needs no hub, whether the user sets offline mode or the hub is unreachable.
    let nobody = "http://127.0.0.1:1";
    succeed(&mut place.command(nobody, &GENERATE));
    succeed(place.command(nobody, &FETCH).env("HF_HUB_OFFLINE", "1"));
    succeed(place.command(nobody, &["fetch", &format!("org/tiny@{COMMIT}")]).env("HF_HUB_OFFLINE", "yes"));
    fail(&mut place.command(nobody, &FETCH), 7, &[nobody, "network"]);
}

#[test]
fn every_command_downloads_the_model_that_it_names() {
    let (place, server) = (Place::new("use"), hub_where(|_| None));
    let cache = place.folder.join("elsewhere");
    succeed(place.command(&server.address, &GENERATE).env("HF_HUB_CACHE", &cache));
    assert!(cache.join("models--org--tiny/refs/main").is_file());

    // The recipe of a run names the commit, so that it always means this model.
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/steps/data");
    let run = ["run", "paper", "--model", "org/tiny", "--set", "train.steps=0", "--output", "out", "--data"];
    succeed(&mut place.command(&server.address, &[&run[..], &[data.to_str().unwrap()]].concat()));
    let recipe = fs::read_to_string(place.folder.join("out/recipe.toml")).unwrap();
    assert!(recipe.contains(&format!("\"org/tiny@{COMMIT}\"")), "{recipe}");

    // A local folder takes precedence over the hub. Data folders are never searched on the hub.
    let asked = server.asked.lock().unwrap().len();
    fs::create_dir_all(place.folder.join("org/tiny")).unwrap();
    for (file, content) in model() {
        fs::write(place.folder.join("org/tiny").join(file), content).unwrap();
    }
    succeed(&mut place.command(&server.address, &GENERATE));
    fail(&mut place.command(&server.address, &["eval", "--data", "org/data"]), 3, &["org/data"]);
    assert_eq!(server.asked.lock().unwrap().len(), asked);
}

#[test]
fn the_shards_in_the_index_are_fetched() {
    let place = Place::new("shards");
    let files = |shard: &str| {
        let mut files = model();
        let weights = files.remove(WEIGHTS).unwrap();
        let header = u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&weights[8..8 + header]).unwrap();
        let tensors = header.as_object().unwrap().keys().filter(|name| *name != "__metadata__");
        let map: BTreeMap<&String, &str> = tensors.map(|name| (name, shard)).collect();
        let index = serde_json::json!({ "weight_map": map }).to_string();
        files.insert("model.safetensors.index.json".into(), index.into_bytes());
        files.insert(shard.trim_start_matches("../").into(), weights);
        files
    };
    let good = files("model-00001-of-00001.safetensors");
    let server = Server::start(move |asked| hub(&good, asked));
    succeed(&mut place.command(&server.address, &GENERATE));

    for (shard, at) in [("../evil.safetensors", "escape"), ("/evil.safetensors", "absolute")] {
        let place = Place::new(at);
        let bad = files(shard);
        let server = Server::start(move |asked| hub(&bad, asked));
        fail(&mut place.command(&server.address, &FETCH), 3, &["evil", "own folder"]);
        assert!(server.asked("HEAD", "evil.safetensors").is_empty());
        assert!(!place.snapshot().join("config.json").exists(), "a refused model is not whole");
    }
}

#[test]
fn an_interrupted_download_continues_where_it_stopped() {
    let place = Place::new("resume");
    // Each answer ends after ten thousand bytes; the next request gets the following bytes.
    let server = hub_where(|asked| {
        let broken = asked.method == "GET" && asked.path.ends_with(WEIGHTS) && asked.from() == 0;
        broken.then(|| {
            let mut answer = hub(&model(), asked);
            answer.body.truncate(10_000);
            answer
        })
    });
    succeed(&mut place.command(&server.address, &FETCH));
    place.assert_has_model();
    assert_eq!(server.asked("GET", WEIGHTS).last().unwrap().from(), 10_000);

    // A second command continues the download of the first.
    let place = Place::new("resume-later");
    let blobs = place.repository().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    let weights = &model()[WEIGHTS];
    fs::write(blobs.join(format!("{}.incomplete", sha256(weights))), &weights[..5000]).unwrap();
    let server = hub_where(|_| None);
    succeed(&mut place.command(&server.address, &FETCH));
    place.assert_has_model();
    assert_eq!(server.asked("GET", WEIGHTS)[0].from(), 5000);
}

#[test]
fn a_download_without_ranges_starts_from_the_beginning() {
    for (name, status) in [("no-ranges", 200), ("no-such-range", 416)] {
        let place = Place::new(name);
        let blobs = place.repository().join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        let weights = &model()[WEIGHTS];
        fs::write(blobs.join(format!("{}.incomplete", sha256(weights))), vec![7; 5000]).unwrap();
        let server = hub_where(move |asked| {
            let body = if status == 200 { model()[WEIGHTS].clone() } else { Vec::new() };
            (asked.from() > 0).then(|| Answer::new(status, &body))
        });
        succeed(&mut place.command(&server.address, &FETCH));
        place.assert_has_model();
    }
}

#[test]
fn an_incomplete_download_is_never_used() {
    let place = Place::new("truncated");
    let server = hub_where(|asked| {
        (asked.method == "GET" && asked.path.ends_with(WEIGHTS)).then(|| {
            let mut answer = Answer::new(200, &model()[WEIGHTS]);
            answer.body.truncate(10_000);
            answer
        })
    });
    fail(&mut place.command(&server.address, &FETCH), 7, &[WEIGHTS, "10000 of", "try again"]);
    assert!(!place.snapshot().join(WEIGHTS).exists() && !place.snapshot().join("config.json").exists());
    fail(
        place.command(&server.address, &GENERATE).env("HF_HUB_OFFLINE", "1"),
        7,
        &["HF_HUB_OFFLINE", "org/tiny"],
    );
}

#[test]
fn corrupted_content_is_refused_and_removed() {
    let corrupted = |asked: &Asked, length: usize| {
        (asked.method == "GET" && asked.path.ends_with(WEIGHTS)).then(|| {
            let mut body = model()[WEIGHTS].clone();
            body[20_000] ^= 1;
            body.resize(length, 0);
            Answer::new(200, &body)
        })
    };
    let size = model()[WEIGHTS].len();
    for (name, length, named) in [("corrupted", size, "SHA-256"), ("too-long", size + 1, "more bytes")] {
        let place = Place::new(name);
        let server = hub_where(move |asked| corrupted(asked, length));
        fail(&mut place.command(&server.address, &FETCH), 7, &[WEIGHTS, named, "removed"]);
        assert!(place.unfinished().is_empty());
        let blob = place.repository().join("blobs").join(sha256(&model()[WEIGHTS]));
        assert!(!blob.exists() && !place.snapshot().join(WEIGHTS).exists());
    }
}

/// A hub that pauses after each quarter of the weights that it sends, up to `until`.
fn hub_that_pauses(pause: Duration, until: usize) -> Server {
    hub_where(move |asked| {
        let pauses = asked.method == "GET" && asked.path.ends_with(WEIGHTS) && asked.from() < until;
        pauses.then(|| Answer { pause, ..hub(&model(), asked) })
    })
}

#[test]
fn a_silent_server_times_out() {
    let place = Place::new("silent");
    let server = hub_that_pauses(Duration::from_secs(30), 40_000);
    let started = Instant::now();
    succeed(place.command(&server.address, &FETCH).env("HF_HUB_DOWNLOAD_TIMEOUT", "1"));
    place.assert_has_model();
    assert!(started.elapsed() < Duration::from_secs(20));
    let asked: Vec<usize> = server.asked("GET", WEIGHTS).iter().map(Asked::from).collect();
    assert_eq!(asked.len(), 3, "{asked:?}");
}

#[test]
fn a_slow_server_is_waited_for() {
    let place = Place::new("slow");
    // The file takes longer than the timeout between two parts.
    let server = hub_that_pauses(Duration::from_millis(700), usize::MAX);
    succeed(place.command(&server.address, &FETCH).env("HF_HUB_DOWNLOAD_TIMEOUT", "2"));
    place.assert_has_model();
    assert_eq!(server.asked("GET", WEIGHTS).len(), 1);
}

#[test]
fn temporary_errors_are_retried() {
    let place = Place::new("busy");
    let left = Mutex::new(3);
    let server = hub_where(move |asked| {
        let mut left = left.lock().unwrap();
        let busy = asked.path.ends_with("tokenizer.json") && *left > 0;
        *left -= usize::from(busy);
        busy.then(|| Answer::new([500, 503, 429][*left], b"").with("retry-after", 0))
    });
    succeed(&mut place.command(&server.address, &FETCH));
    place.assert_has_model();

    for (name, status, wait, named, requests) in
        [("down", 503, "0", "503", 5), ("full", 429, "3600", "3600 s", 1)]
    {
        let place = Place::new(name);
        let server = Server::start(move |_| Answer::new(status, b"").with("retry-after", wait));
        fail(&mut place.command(&server.address, &FETCH), 7, &["config.json", named, "try again"]);
        assert_eq!(server.asked.lock().unwrap().len(), requests);
    }
}

#[test]
fn refusals_say_what_to_do() {
    let place = Place::new("refusals");
    for status in [401, 403] {
        let server = Server::start(move |_| Answer::new(status, b"").with("x-error-code", "GatedRepo"));
        let licence = format!("{}/org/tiny", server.address);
        let mut fetch = place.command(&server.address, &FETCH);
        fail(fetch.env("HF_TOKEN", TOKEN), 7, &["gated or private", "licence", &licence, "HF_TOKEN"]);
    }
    let server = hub_where(|_| None);
    let fetch = |name: &str| place.command(&server.address, &["fetch", name]);
    fail(&mut fetch("org/other"), 7, &["org/other", "no such repository"]);
    fail(&mut fetch("org/tiny@v9"), 7, &["org/tiny@v9", "no revision `v9`"]);
    for name in ["tiny", "../tiny", "org/tiny@", "org/tiny@../../x", "a/b/c"] {
        fail(&mut fetch(name), 3, &[name, "ORG/NAME"]);
    }
    let without = |files: &[&'static str]| {
        let mut left = model();
        left.retain(|file, _| !files.contains(&file.as_str()));
        Server::start(move |asked| hub(&left, asked))
    };
    for (absent, named) in
        [("config.json", "config.json"), ("tokenizer.json", "tokenizer.json"), (WEIGHTS, WEIGHTS)]
    {
        fail(&mut place.command(&without(&[absent]).address, &FETCH), 7, &["org/tiny", named]);
    }
    succeed(
        &mut place.command(&without(&["generation_config.json", "tokenizer_config.json"]).address, &FETCH),
    );

    // A cache that cannot be written is not a network error.
    fs::write(place.folder.join("file"), "").unwrap();
    fail(place.command(&server.address, &FETCH).env("HF_HUB_CACHE", "file/cache"), 8, &["file/cache"]);

    // A server that is not a hub.
    let server = Server::start(|_| Answer::new(200, b"<html>Welcome</html>"));
    fail(&mut place.command(&server.address, &FETCH), 7, &["config.json", "HF_ENDPOINT"]);
    fail(&mut place.command("hub.example", &FETCH), 7, &["hub.example", "HF_ENDPOINT"]);
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fail(&mut place.command(&format!("http://{away}"), &FETCH), 7, &[&away.to_string(), "network"]);
    fail(place.command("http://127.0.0.1:1", &FETCH).env("HF_TOKEN", "a\u{e9}"), 7, &["HF_TOKEN"]);
}

#[test]
fn file_names_from_the_hub_cannot_leave_the_cache() {
    for (name, header, value) in
        [("etag", "x-linked-etag", "../../../evil"), ("commit", "x-repo-commit", "../../../../evil")]
    {
        let place = Place::new(&format!("evil-{name}"));
        let server = Server::start(move |_| {
            let answer = Answer::new(200, b"{}").with(header, value).with("etag", "\"abc\"");
            if name == "commit" { answer } else { answer.with("x-repo-commit", COMMIT) }
        });
        fail(&mut place.command(&server.address, &FETCH), 7, &["config.json", "ETag"]);
        assert!(!place.folder.join("home").exists(), "nothing is written");
    }
}

#[test]
fn the_token_goes_to_the_endpoint_only() {
    let place = Place::new("token");
    fs::create_dir_all(place.folder.join("home")).unwrap();
    fs::write(place.folder.join("home/token"), format!("{TOKEN}\n")).unwrap();
    // The first URL of the file in the store has expired.
    let expired = Mutex::new(true);
    let store = Server::start(move |asked| {
        let content = &model()[WEIGHTS];
        match asked.path.as_str() {
            "/store/1" if std::mem::take(&mut *expired.lock().unwrap()) => Answer::new(403, b""),
            "/store/1" => Answer::new(307, b"").with("location", "2"),
            "/store/2" => Answer::new(200, content),
            _ => Answer::new(404, b""),
        }
    });
    let location = format!("{}/store/1", store.address);
    // Requests for weights are redirected to the store, for other files to another path of the hub.
    let server = hub_where(move |asked| match asked.path.strip_prefix("/moved") {
        Some(path) => Some(hub(&model(), &Asked { path: path.into(), ..asked.clone() })),
        None if asked.path.ends_with(WEIGHTS) => {
            let mut answer = hub(&model(), asked).with("location", &location);
            (answer.status, answer.length, answer.body) = (302, 0, Vec::new());
            Some(answer)
        }
        None => Some(Answer::new(307, b"").with("location", format!("/moved{}", asked.path))),
    });
    succeed(&mut place.command(&server.address, &FETCH));
    place.assert_has_model();
    let bearer = format!("Bearer {TOKEN}");
    let sent = |asked: &Asked| asked.headers.get("authorization").cloned();
    assert!(server.asked.lock().unwrap().iter().all(|asked| sent(asked).as_ref() == Some(&bearer)));
    let stored = store.asked.lock().unwrap();
    assert_eq!(stored.len(), 3);
    assert!(stored.iter().all(|asked| sent(asked).is_none()), "the token was sent to the store");
    drop(stored);

    // `doctor` must not show the token.
    let printed = succeed(place.command(&server.address, &["doctor"]).env("HF_HUB_OFFLINE", "1"));
    assert!(printed.contains(&server.address) && printed.contains("with a token, offline"), "{printed}");
    assert!(printed.contains("home/hub") && !printed.contains(TOKEN));
    let printed = succeed(&mut place.command(&server.address, &["doctor", "--json"]));
    let hub = &serde_json::from_str::<Value>(&printed).unwrap()["hub"];
    assert_eq!((&hub["token"], &hub["offline"]), (&Value::Bool(true), &Value::Bool(false)));
}

#[test]
fn two_at_once_download_once() {
    let place = Place::new("two");
    let server = hub_where(|asked| {
        if asked.method == "GET" {
            std::thread::sleep(Duration::from_millis(300));
        }
        None
    });
    let start = || place.command(&server.address, &FETCH).spawn().unwrap();
    for mut child in [start(), start()] {
        assert!(child.wait().unwrap().success());
    }
    place.assert_has_model();
    assert_eq!(server.asked("GET", WEIGHTS).len(), 1);
}
