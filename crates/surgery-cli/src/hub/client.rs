//! Requests to the hub and the meaning of its responses.

use std::io::Read;
use std::time::Duration;

use indicatif::ProgressBar;
use surgery_core::{Error, Result};
use ureq::http::{HeaderMap, Method, Request, Response};
use ureq::{Agent, Body};

use super::{Hub, Name, Token, is_commit, is_plain};
use crate::terminal::Log;

/// Maximum number of consecutive transient failures.
const ATTEMPTS: u32 = 5;
/// The wait before the second attempt; each further wait is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// If the hub asks for a longer wait, the request fails.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const REDIRECTS: usize = 10;
/// Maximum size in bytes of a file listing.
const LISTING_LIMIT: u64 = 4 << 20;

/// A failed attempt.
pub enum Trouble {
    /// A transient failure: the problem, the wait that the hub asks for, and whether the attempt made progress.
    Transient { problem: String, wait: Option<Duration>, progress: bool },
    /// A permanent failure.
    Permanent(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Permanent(error)
    }
}

type Attempt<T> = Result<T, Trouble>;

/// A file as the hub describes it.
pub struct Described {
    /// Its name.
    pub file: String,
    /// Its commit.
    pub commit: String,
    /// Its ETag, which names its content.
    pub etag: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256 in hexadecimal digits, if the hub sends it.
    pub sha256: Option<String>,
}

/// Sends requests about one repository.
pub struct Client<'a> {
    hub: &'a Hub,
    name: &'a Name,
    token: Option<Token>,
    agent: Agent,
    log: Log,
}

impl<'a> Client<'a> {
    /// A client. Sends nothing yet.
    pub fn new(hub: &'a Hub, name: &'a Name, log: Log) -> Result<Self> {
        let secure = hub.endpoint.starts_with("https://");
        if origin(&hub.endpoint).is_none() {
            return Err(Error::Network {
                what: hub.endpoint.clone(),
                problem: "is not the address of a hub".into(),
                remedy: "set HF_ENDPOINT to one that begins with https:// or http://, or unset it".into(),
            });
        }
        let timeout = Some(hub.timeout);
        let config = Agent::config_builder()
            .https_only(secure)
            .http_status_as_error(false)
            // Redirects are followed here, so that the token is sent to the endpoint only.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("surgery/", env!("CARGO_PKG_VERSION")))
            // Sizes and hashes are those of the uncompressed file.
            .accept_encoding("identity")
            .timeout_connect(timeout)
            .timeout_per_read(timeout)
            .timeout_per_write(timeout);
        Ok(Self { hub, name, token: hub.token()?, agent: config.build().into(), log })
    }

    /// The hub's description of `file`, or `None` if it has no such file.
    pub fn describe(&self, revision: &str, file: &str) -> Result<Option<Described>> {
        self.with_retries(&ProgressBar::hidden(), file, || self.try_describe(revision, file))
    }

    /// The content of `file` from byte `from` on, or from its start if the hub does not support ranges. Returns the
    /// first byte's position and a reader.
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

    /// Repeats an attempt that fails transiently, at most [`ATTEMPTS`] times in a row, with growing waits.
    pub fn with_retries<T>(
        &self,
        bar: &ProgressBar,
        file: &str,
        mut attempt: impl FnMut() -> Attempt<T>,
    ) -> Result<T> {
        let mut failures = 0;
        loop {
            let (problem, wait, progress) = match attempt() {
                Ok(value) => return Ok(value),
                Err(Trouble::Permanent(error)) => return Err(error),
                Err(Trouble::Transient { problem, wait, progress }) => (problem, wait, progress),
            };
            failures = if progress { 1 } else { failures + 1 };
            let wait = wait.unwrap_or(FIRST_WAIT * 2u32.pow(failures - 1));
            if failures == ATTEMPTS || wait > LONGEST_WAIT {
                let when = match wait > LONGEST_WAIT {
                    true => format!(" in {} s, as the hub requests", wait.as_secs()),
                    false => " later; the downloaded part is kept".into(),
                };
                return Err(Error::Network {
                    what: format!("{} of {}", file, self.name),
                    problem,
                    remedy: format!("try again{when}"),
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
                // A file in the store beside the repository (LFS) has its SHA-256 as ETag.
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
                return Err(Trouble::Permanent(Error::Network {
                    what: format!("{file} of {}", self.name),
                    problem: format!(
                        "{} does not send the commit, ETag and size that the hub sends",
                        self.hub.endpoint
                    ),
                    remedy: "check HF_ENDPOINT, and whether a proxy answers instead of the hub".into(),
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

    /// The paths of the files directly in `folder`; empty if the folder does not exist.
    pub fn list(&self, revision: &str, folder: &str) -> Result<Vec<String>> {
        self.with_retries(&ProgressBar::hidden(), folder, || self.try_list(revision, folder))
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
                // The repository exists, since its config.json was requested first.
                (404, _) => return Ok(Vec::new()),
                _ => return Err(self.refusal(&url, folder, &response)),
            }
        }
        Err(self.lost(folder))
    }

    /// Parses the listing of `folder`.
    fn names(&self, folder: &str, response: Response<Body>) -> Attempt<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Entry {
            path: String,
        }
        let mut text = Vec::new();
        response.into_body().into_reader().take(LISTING_LIMIT).read_to_end(&mut text).map_err(|error| {
            let problem = format!("the listing of its files was interrupted ({error})");
            Trouble::Transient { problem, wait: None, progress: false }
        })?;
        let entries: Vec<Entry> = serde_json::from_slice(&text).map_err(|error| Error::Network {
            what: format!("{folder} of {}", self.name),
            problem: format!("{} does not list files in the hub's format ({error})", self.hub.endpoint),
            remedy: "check HF_ENDPOINT, and whether a proxy answers instead of the hub".into(),
        })?;
        Ok(entries.into_iter().map(|entry| entry.path).collect())
    }

    /// Sends one request and returns the response of any status. The token is sent to the endpoint only.
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
        request.body(()).map_err(ureq::Error::from).and_then(|request| self.agent.run(request)).map_err(
            |error| {
                let problem = format!("{} does not answer ({error})", origin(url).unwrap_or(url));
                if is_transient(&error) {
                    return Trouble::Transient { problem, wait: None, progress: false };
                }
                Trouble::Permanent(Error::Network {
                    what: self.name.to_string(),
                    problem,
                    remedy: "check the network, HF_ENDPOINT and HTTPS_PROXY; cached models need no network"
                        .into(),
                })
            },
        )
    }

    fn is_endpoint(&self, url: &str) -> bool {
        let (ours, theirs) = (origin(&self.hub.endpoint), origin(url));
        ours.zip(theirs).is_some_and(|(ours, theirs)| ours.eq_ignore_ascii_case(theirs))
    }

    /// The failure that an unsuccessful response means.
    fn refusal(&self, url: &str, file: &str, response: &Response<Body>) -> Trouble {
        let status = response.status().as_u16();
        let host = origin(url).unwrap_or(url);
        let Name { repository, revision } = self.name;
        let problem = format!("{host} answers {status}");
        let what = self.name.to_string();
        let error = match status {
            // The URL of a file in the store beside the hub has expired.
            401 | 403 if !self.is_endpoint(url) => {
                return Trouble::Transient { problem, wait: None, progress: false };
            }
            408 | 429 | 500..=599 => {
                let wait = header(response.headers(), "retry-after").and_then(|wait| wait.parse().ok());
                return Trouble::Transient { problem, wait: wait.map(Duration::from_secs), progress: false };
            }
            401 | 403 => Error::Network {
                what,
                problem: format!("is gated or private, or does not exist ({problem})"),
                remedy: format!(
                    "check the name, accept the licence at {}/{repository}, and set HF_TOKEN to a token that may read it{}",
                    self.hub.endpoint,
                    match &self.token {
                        Some(token) => format!(" (the token from {} may not)", token.origin),
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
                remedy: "check HF_ENDPOINT, and whether a proxy answers instead of the hub".into(),
            },
        };
        Trouble::Permanent(error)
    }

    fn lost(&self, file: &str) -> Trouble {
        Trouble::Permanent(Error::Network {
            what: format!("{file} of {}", self.name),
            problem: format!("the hub redirected more than {REDIRECTS} times"),
            remedy: "check HF_ENDPOINT".into(),
        })
    }
}

/// Whether another attempt may succeed: not if there is no network, no such host or no valid certificate.
fn is_transient(error: &ureq::Error) -> bool {
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

/// An ETag without its quotes and weak prefix.
fn unquoted(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"')
}

/// The first byte of a `Content-Range` header.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    header(headers, "content-range")?.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// The target of a redirect that `response` to a request of `url` asks for.
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

/// `text`, percent-encoded as one part of a URL's path.
fn escaped(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}
