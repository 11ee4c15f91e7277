//! What is asked of the hub, and what its answers mean.

use std::io::Read;
use std::time::Duration;

use indicatif::ProgressBar;
use surgery_core::{Error, Result};
use ureq::http::{HeaderMap, Method, Request, Response};
use ureq::{Agent, Body};

use super::{Hub, Name, Token, is_commit, is_plain};
use crate::terminal::Log;

/// How often in a row something may go wrong that may pass.
const ATTEMPTS: u32 = 5;
/// The wait before the second attempt; every further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// A hub that asks for a longer wait is not waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const REDIRECTS: usize = 10;
/// The most bytes read of a list of files.
const LISTING_LIMIT: u64 = 4 << 20;

/// Why an attempt failed.
pub enum Trouble {
    /// Something that may pass: what it is, how long the hub asks to wait, and whether the attempt got on.
    Passing { problem: String, wait: Option<Duration>, progress: bool },
    /// Something that will not.
    Lasting(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Lasting(error)
    }
}

type Attempt<T> = Result<T, Trouble>;

/// A file as the hub describes it.
pub struct Described {
    /// Its name.
    pub file: String,
    /// The commit it is of.
    pub commit: String,
    /// What names its content.
    pub etag: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, in hexadecimal digits, where the hub tells.
    pub sha256: Option<String>,
}

/// Asks the hub about one repository.
pub struct Client<'a> {
    hub: &'a Hub,
    name: &'a Name,
    token: Option<Token>,
    agent: Agent,
    log: Log,
}

impl<'a> Client<'a> {
    /// A client; nothing is asked yet.
    pub fn new(hub: &'a Hub, name: &'a Name, log: Log) -> Result<Self> {
        let secure = hub.endpoint.starts_with("https://");
        if origin(&hub.endpoint).is_none() {
            return Err(Error::Network {
                what: hub.endpoint.clone(),
                problem: "is no address of a hub".into(),
                remedy: "set HF_ENDPOINT to one that begins with https:// or http://, or unset it".into(),
            });
        }
        let silence = Some(hub.silence);
        let config = Agent::config_builder()
            .https_only(secure)
            .http_status_as_error(false)
            // Followed here, so that the token stays with the endpoint.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("surgery/", env!("CARGO_PKG_VERSION")))
            // What is counted and hashed are the file's own bytes.
            .accept_encoding("identity")
            .timeout_connect(silence)
            .timeout_per_read(silence)
            .timeout_per_write(silence);
        Ok(Self { hub, name, token: hub.token()?, agent: config.build().into(), log })
    }

    /// What the hub says of `file`; none where it has no such file.
    pub fn describe(&self, revision: &str, file: &str) -> Result<Option<Described>> {
        self.patiently(&ProgressBar::hidden(), file, || self.try_describe(revision, file))
    }

    /// The content of `file` from the byte `from` on, if the hub is willing, or else from its beginning: where it
    /// begins, and it.
    pub fn content(&self, file: &Described, from: u64) -> Attempt<(u64, impl Read + use<>)> {
        let mut url = self.url(&file.commit, &file.file);
        for _ in 0..REDIRECTS {
            let response = self.request(Method::GET, &url, from)?;
            match (response.status().as_u16(), redirect(&url, &response)) {
                (_, Some(next)) => url = next,
                (200, _) => return Ok((0, response.into_body().into_reader())),
                (206, _) if range_start(response.headers()) == Some(from) => {
                    return Ok((from, response.into_body().into_reader()));
                }
                (206 | 416, _) if from > 0 => return self.content(file, 0),
                _ => return Err(self.refusal(&url, &file.file, &response)),
            }
        }
        Err(self.lost(&file.file))
    }

    /// Attempts again what failed for a reason that may pass, a few times and with longer and longer waits.
    pub fn patiently<T>(
        &self,
        bar: &ProgressBar,
        file: &str,
        mut attempt: impl FnMut() -> Attempt<T>,
    ) -> Result<T> {
        let mut failures = 0;
        loop {
            let (problem, wait, progress) = match attempt() {
                Ok(value) => return Ok(value),
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing { problem, wait, progress }) => (problem, wait, progress),
            };
            failures = if progress { 1 } else { failures + 1 };
            let wait = wait.unwrap_or(FIRST_WAIT * 2u32.pow(failures - 1));
            if failures == ATTEMPTS || wait > LONGEST_WAIT {
                let asked = match wait > LONGEST_WAIT {
                    true => format!(" in {} s, as it asks", wait.as_secs()),
                    false => " later; what has arrived is kept".into(),
                };
                return Err(Error::Network {
                    what: format!("{} of {}", file, self.name),
                    problem,
                    remedy: format!("try again{asked}"),
                });
            }
            let seconds = wait.as_secs_f64();
            bar.suspend(|| self.log.warn(&format!("{file}: {problem}; trying again in {seconds} s")));
            std::thread::sleep(wait);
        }
    }

    fn try_describe(&self, revision: &str, file: &str) -> Attempt<Option<Described>> {
        let mut url = self.url(revision, file);
        let (mut commit, mut etag, mut size, mut sha256) = (None, None, None, None);
        for _ in 0..REDIRECTS {
            let response = self.request(Method::HEAD, &url, 0)?;
            let headers = response.headers();
            let unquoted = |name| header(headers, name).map(|tag| unquoted(tag).to_owned());
            commit = commit.or(header(headers, "x-repo-commit").map(str::to_owned));
            if let Some(linked) = unquoted("x-linked-etag") {
                // What is stored beside the repository is named by its SHA-256.
                sha256 = (linked.len() == 64).then(|| linked.to_ascii_lowercase());
                etag = Some(linked);
            }
            size = size.or(header(headers, "x-linked-size").and_then(|size| size.parse().ok()));
            match (response.status().as_u16(), redirect(&url, &response)) {
                (_, Some(_)) if etag.is_some() && size.is_some() => {}
                (_, Some(next)) => {
                    url = next;
                    continue;
                }
                (200, _) => {
                    etag = etag.or(unquoted("etag"));
                    size = size.or(header(headers, "content-length").and_then(|size| size.parse().ok()));
                }
                (404, _) if !is_repository_missing(headers) => return Ok(None),
                _ => return Err(self.refusal(&url, file, &response)),
            }
            let commit = commit.filter(|commit| is_commit(commit));
            let (Some(commit), Some(etag), Some(size)) = (commit, etag.filter(|tag| is_plain(tag)), size)
            else {
                return Err(Trouble::Lasting(Error::Network {
                    what: format!("{file} of {}", self.name),
                    problem: format!(
                        "{} does not tell its commit, ETag and size, as the hub does",
                        self.hub.endpoint
                    ),
                    remedy: "check HF_ENDPOINT, and whether a proxy answers in its place".into(),
                }));
            };
            return Ok(Some(Described { file: file.into(), commit, etag, size, sha256 }));
        }
        Err(self.lost(file))
    }

    fn url(&self, revision: &str, file: &str) -> String {
        let Name { repository, .. } = self.name;
        let file: Vec<String> = file.split('/').map(escaped).collect();
        format!("{}/{repository}/resolve/{}/{}", self.hub.endpoint, escaped(revision), file.join("/"))
    }

    /// The names of what lies directly in `folder`, with the folder's own; none where it is not there.
    pub fn list(&self, revision: &str, folder: &str) -> Result<Vec<String>> {
        self.patiently(&ProgressBar::hidden(), folder, || self.try_list(revision, folder))
    }

    fn try_list(&self, revision: &str, folder: &str) -> Attempt<Vec<String>> {
        let Hub { endpoint, .. } = self.hub;
        let Name { repository, .. } = self.name;
        let mut url = format!("{endpoint}/api/models/{repository}/tree/{}/{folder}", escaped(revision));
        for _ in 0..REDIRECTS {
            let response = self.request(Method::GET, &url, 0)?;
            match (response.status().as_u16(), redirect(&url, &response)) {
                (_, Some(next)) => url = next,
                (200, _) => return self.names(folder, response),
                // The repository is there: its config.json was asked for first.
                (404, _) => return Ok(Vec::new()),
                _ => return Err(self.refusal(&url, folder, &response)),
            }
        }
        Err(self.lost(folder))
    }

    /// The names in a listing of `folder`.
    fn names(&self, folder: &str, response: Response<Body>) -> Attempt<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Entry {
            path: String,
        }
        let mut text = Vec::new();
        response.into_body().into_reader().take(LISTING_LIMIT).read_to_end(&mut text).map_err(|error| {
            let problem = format!("the list of its files broke off ({error})");
            Trouble::Passing { problem, wait: None, progress: false }
        })?;
        let entries: Vec<Entry> = serde_json::from_slice(&text).map_err(|error| Error::Network {
            what: format!("{folder} of {}", self.name),
            problem: format!("{} does not list its files as the hub does ({error})", self.hub.endpoint),
            remedy: "check HF_ENDPOINT, and whether a proxy answers in its place".into(),
        })?;
        Ok(entries.into_iter().map(|entry| entry.path).collect())
    }

    /// One request and its answer, whatever it is. The token goes to the endpoint only.
    fn request(&self, method: Method, url: &str, from: u64) -> Attempt<Response<Body>> {
        let mut request = Request::builder().method(method).uri(url);
        if let Some(token) = &self.token
            && self.is_endpoint(url)
        {
            request = request.header("authorization", format!("Bearer {}", token.text));
        }
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        request.body(()).map_err(ureq::Error::from).and_then(|request| self.agent.run(request)).map_err(|error| {
            let problem = format!("{} does not answer ({error})", origin(url).unwrap_or(url));
            if may_pass(&error) {
                return Trouble::Passing { problem, wait: None, progress: false };
            }
            Trouble::Lasting(Error::Network {
                what: self.name.to_string(),
                problem,
                remedy: "check the network, HF_ENDPOINT and HTTPS_PROXY; what is in the cache needs no network".into(),
            })
        })
    }

    fn is_endpoint(&self, url: &str) -> bool {
        let (ours, theirs) = (origin(&self.hub.endpoint), origin(url));
        ours.zip(theirs).is_some_and(|(ours, theirs)| ours.eq_ignore_ascii_case(theirs))
    }

    /// What an answer that is no file means.
    fn refusal(&self, url: &str, file: &str, response: &Response<Body>) -> Trouble {
        let status = response.status().as_u16();
        let host = origin(url).unwrap_or(url);
        let Name { repository, revision } = self.name;
        let problem = format!("{host} answers {status}");
        let what = self.name.to_string();
        let error = match status {
            // The address of a file in a store beside the hub is valid for a while only.
            401 | 403 if !self.is_endpoint(url) => {
                return Trouble::Passing { problem, wait: None, progress: false };
            }
            408 | 429 | 500..=599 => {
                let wait = header(response.headers(), "retry-after").and_then(|wait| wait.parse().ok());
                return Trouble::Passing { problem, wait: wait.map(Duration::from_secs), progress: false };
            }
            401 | 403 => Error::Network {
                what,
                problem: format!("is gated or private, or is not there ({problem})"),
                remedy: format!(
                    "check the name, accept the licence at {}/{repository}, and set HF_TOKEN to a token that may read it{}",
                    self.hub.endpoint,
                    match &self.token {
                        Some(token) => format!(" (that of {} may not)", token.origin),
                        None if self.hub.sends_token => String::new(),
                        None => " (HF_HUB_DISABLE_IMPLICIT_TOKEN, which forbids sending one, must be unset)"
                            .into(),
                    }
                ),
            },
            404 => Error::Network {
                what,
                problem: match header(response.headers(), "x-error-code") {
                    Some("RevisionNotFound") => format!("the repository has no revision `{revision}`"),
                    Some("RepoNotFound") => format!("{} has no such repository", self.hub.endpoint),
                    _ => format!("{file} is not found at {host}"),
                },
                remedy: "check the name; a private repository needs HF_TOKEN".into(),
            },
            _ => Error::Network {
                what: format!("{file} of {what}"),
                problem,
                remedy: "check HF_ENDPOINT, and whether a proxy answers in its place".into(),
            },
        };
        Trouble::Lasting(error)
    }

    fn lost(&self, file: &str) -> Trouble {
        Trouble::Lasting(Error::Network {
            what: format!("{file} of {}", self.name),
            problem: format!("the hub sent on more than {REDIRECTS} times"),
            remedy: "check HF_ENDPOINT".into(),
        })
    }
}

/// Whether another attempt may succeed where this one failed: not where there is no network, host or trust.
fn may_pass(error: &ureq::Error) -> bool {
    use std::io::ErrorKind as Kind;
    match error {
        ureq::Error::Io(error) => matches!(
            error.kind(),
            Kind::ConnectionReset
                | Kind::ConnectionAborted
                | Kind::BrokenPipe
                | Kind::UnexpectedEof
                | Kind::TimedOut
        ),
        ureq::Error::Timeout(what) => *what != ureq::Timeout::Connect,
        ureq::Error::Protocol(_) => true,
        _ => false,
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn is_repository_missing(headers: &HeaderMap) -> bool {
    matches!(header(headers, "x-error-code"), Some("RepoNotFound" | "RevisionNotFound"))
}

/// An ETag without its quotes and its mark of weakness.
fn unquoted(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"')
}

/// The first byte of a `Content-Range`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    header(headers, "content-range")?.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// Where `response`, the answer of `url`, sends on to.
fn redirect(url: &str, response: &Response<Body>) -> Option<String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = header(response.headers(), "location")?;
    let (scheme, _) = url.split_once("://")?;
    Some(match location {
        _ if origin(location).is_some() => location.into(),
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{}{location}", origin(url)?),
        _ => format!("{}/{location}", url.rsplit_once('/')?.0),
    })
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> Option<&str> {
    let start = ["https://", "http://"].into_iter().find(|scheme| url.starts_with(scheme))?.len();
    let length = url[start..].find(['/', '?', '#']).unwrap_or(url.len() - start);
    (length > 0).then(|| &url[..start + length])
}

/// `text` as one part of a URL's path.
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
