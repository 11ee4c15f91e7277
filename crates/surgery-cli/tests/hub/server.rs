//! A server on this machine that plays the hub.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request to the server.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

impl Asked {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let first = lines.next()?;
        let mut words = first.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next()?, words.next()?);
        let header = |line: String| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_lowercase(), value.trim().to_owned()))
        };
        let headers = lines.take_while(|line| !line.is_empty()).filter_map(header).collect();
        Some(Self { method, path, headers })
    }

    /// The first byte asked for.
    pub fn from(&self) -> usize {
        let range = self.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
        range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap())
    }
}

/// An answer: a status, headers, and a body that may be shorter than its stated length.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub length: usize,
    pub body: Vec<u8>,
    /// The pause after each quarter of the body.
    pub pause: Duration,
}

impl Answer {
    pub fn new(status: u16, body: &[u8]) -> Self {
        let body = body.to_vec();
        Self { status, headers: Vec::new(), length: body.len(), body, pause: Duration::ZERO }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    fn write(&self, stream: &mut TcpStream, with_body: bool) -> std::io::Result<()> {
        write!(
            stream,
            "HTTP/1.1 {} x\r\nconnection: close\r\ncontent-length: {}\r\n",
            self.status, self.length
        )?;
        for (name, value) in &self.headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        stream.write_all(b"\r\n")?;
        if with_body {
            for quarter in self.body.chunks(self.body.len().div_ceil(4).max(1)) {
                stream.write_all(quarter)?;
                std::thread::sleep(self.pause);
            }
        }
        stream.flush()
    }
}

/// A server on a free port; it serves until the test ends.
pub struct Server {
    pub address: String,
    pub asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, record) = (Arc::new(answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, record) = (Arc::clone(&answer), Arc::clone(&record));
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let Some(asked) = Asked::read(&stream) else { return };
                    record.lock().unwrap().push(asked.clone());
                    // The client may have closed the connection; some tests do that.
                    let _ = answer(&asked).write(&mut stream, asked.method != "HEAD");
                });
            }
        });
        Self { address, asked }
    }

    pub fn asked(&self, method: &str, ending: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.method == method && asked.path.ends_with(ending)).cloned().collect()
    }
}

/// A hub with `files`, like the public one: weights are in a store, with a header for their SHA-256, and the files of a
/// folder are listed.
pub fn hub(files: &BTreeMap<String, Vec<u8>>, asked: &Asked) -> Answer {
    if let Some(rest) = asked.path.strip_prefix("/api/models/org/tiny/tree/") {
        let (_, folder) = rest.split_once('/').unwrap();
        let is_in = |file: &&String| file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        let entry = |file: &String| json!({ "type": "file", "size": files[file].len(), "path": file });
        return match files.keys().filter(is_in).map(entry).collect::<Vec<_>>() {
            none if none.is_empty() => Answer::new(404, b"").with("x-error-code", "EntryNotFound"),
            entries => Answer::new(200, json!(entries).to_string().as_bytes()),
        };
    }
    let Some(rest) = asked.path.strip_prefix("/org/tiny/resolve/") else {
        return Answer::new(404, b"").with("x-error-code", "RepoNotFound");
    };
    let (revision, file) = rest.split_once('/').unwrap();
    if ![COMMIT, "main", "refs%2Fpr%2F1"].contains(&revision) {
        return Answer::new(404, b"").with("x-error-code", "RevisionNotFound");
    }
    let Some(content) = files.get(file) else {
        return Answer::new(404, b"").with("x-error-code", "EntryNotFound").with("x-repo-commit", COMMIT);
    };
    let from = asked.from();
    let answer = match from {
        0 => Answer::new(200, content),
        _ => Answer::new(206, &content[from..])
            .with("content-range", format!("bytes {from}-{}/{}", content.len() - 1, content.len())),
    };
    let answer = answer.with("x-repo-commit", COMMIT);
    let hash = sha256(content);
    match file.ends_with(".safetensors") {
        true => answer.with("x-linked-etag", format!("\"{hash}\"")).with("x-linked-size", content.len()),
        false => answer.with("etag", format!("W/\"{}\"", &hash[..40])),
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files of a golden model.
pub fn model() -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/models/llama1-mha");
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
    };
    fs::read_dir(folder).unwrap().map(read).collect()
}

/// A hub with a model. `change` may replace its answers.
pub fn hub_where(change: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) -> Server {
    let files = model();
    Server::start(move |asked| change(asked).unwrap_or_else(|| hub(&files, asked)))
}
