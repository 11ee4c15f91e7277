//! Models on the Hugging Face hub: names, cache and download.
//!
//! The cache is shared with other programs of the hub: `blobs/` holds files by content, `snapshots/COMMIT/` a link
//! for each file, `refs/` the commit of a branch or tag. A model in the cache is used without a request to the hub.

mod client;
mod download;
mod environment;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use surgery_core::checkpoint::weight_files;
use surgery_core::files::Folder;
use surgery_core::{Error, Result};

use self::environment::{cleaned, token_in};
use crate::terminal::Log;

const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";

/// A model's name on the hub, `ORG/NAME[@REVISION]`.
#[derive(Debug, Clone)]
pub struct Name {
    /// `ORG/NAME`.
    pub repository: String,
    /// A branch, tag or commit.
    pub revision: String,
}

impl Name {
    /// Parses `ORG/NAME[@REVISION]`.
    pub fn parse(text: &str) -> Option<Self> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (organisation, name) = repository.split_once('/')?;
        let is_name = |part: &str| is_plain(part) && !part.contains("--") && part.len() <= 96;
        let valid = is_name(organisation) && is_name(name) && revision.split('/').all(is_plain);
        valid.then(|| Self { repository: repository.into(), revision: revision.into() })
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.repository, self.revision)
    }
}

/// Whether `part` is safe as one part of a name, a URL and a path.
fn is_plain(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !part.is_empty() && part.bytes().all(allowed) && !part.starts_with(['.', '-']) && !part.contains("..")
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A model in the cache.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The folder that holds its files.
    pub folder: PathBuf,
    /// The commit of its revision.
    pub commit: String,
}

/// The hub and its cache, as the environment configures them.
pub struct Hub {
    /// The cache folder: `HF_HUB_CACHE`, `HF_HOME/hub`, or in the user's cache folder.
    pub cache: PathBuf,
    /// The hub's address: `HF_ENDPOINT`, or the public one.
    pub endpoint: String,
    /// The variable that forbids requests: `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`.
    pub offline: Option<&'static str>,
    /// The token variable that is set, `HF_TOKEN` or `HUGGING_FACE_HUB_TOKEN`, and its value.
    token: Option<(&'static str, String)>,
    /// The token file of a login: `HF_TOKEN_PATH`, or `HF_HOME/token`.
    pub token_path: PathBuf,
    /// Whether requests carry a token; false with `HF_HUB_DISABLE_IMPLICIT_TOKEN`.
    pub sends_token: bool,
    /// Time limit for connecting and for each read and write: `HF_HUB_DOWNLOAD_TIMEOUT`.
    timeout: Duration,
}

/// A token. It is sent to the endpoint only.
pub struct Token {
    /// The variable or file that holds it.
    pub origin: String,
    text: String,
}

impl Hub {
    /// The token to send with requests: from a variable, else from a login.
    pub fn token(&self) -> Result<Option<Token>> {
        if !self.sends_token {
            return Ok(None);
        }
        let variable =
            self.token.as_ref().and_then(|(name, value)| Some((name.to_string(), cleaned(value)?)));
        let found = match variable {
            Some(found) => Some(found),
            None => token_in(&self.token_path)?.map(|text| (self.token_path.display().to_string(), text)),
        };
        let Some((origin, text)) = found else { return Ok(None) };
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Network {
                what: format!("the hub's token in {origin}"),
                problem: "contains characters that are not allowed in a token".into(),
                remedy: "set HF_TOKEN to a token from the hub's settings".into(),
            });
        }
        Ok(Some(Token { origin, text }))
    }

    /// The model from the cache, or else from the hub.
    pub fn find(&self, name: &Name, log: Log) -> Result<Snapshot> {
        match self.cached(name)? {
            Ok(snapshot) => Ok(snapshot),
            Err(lacking) => match self.offline {
                Some(variable) => Err(Error::Network {
                    what: name.to_string(),
                    problem: format!(
                        "the cache {} does not have {lacking}, and {variable} forbids requests to the hub",
                        self.cache.display()
                    ),
                    remedy: format!("unset {variable}, or give a local folder"),
                }),
                None => self.download(name, log),
            },
        }
    }

    /// The model as the hub has it now, or offline, as the cache has it.
    pub fn fetch(&self, name: &Name, log: Log) -> Result<Snapshot> {
        match self.offline {
            Some(_) => self.find(name, log),
            None => self.download(name, log),
        }
    }

    /// The model in the cache, or the name of a file that is missing from it.
    fn cached(&self, name: &Name) -> Result<Result<Snapshot, String>> {
        let repository = self.repository(name);
        let commit = match is_commit(&name.revision) {
            true => name.revision.clone(),
            false => fs::read_to_string(repository.join("refs").join(&name.revision)).unwrap_or_default(),
        };
        let commit = commit.trim().to_owned();
        let folder = repository.join("snapshots").join(&commit);
        if !is_commit(&commit) || !folder.is_dir() {
            return Ok(Err("it".into()));
        }
        let files = Folder::Disk(folder.clone());
        let mut needed = vec![CONFIG.to_owned(), TOKENIZER.to_owned()];
        needed.extend(weight_files(&files)?);
        Ok(match needed.into_iter().find(|file| !files.has(file)) {
            Some(lacking) => Err(lacking),
            None => Ok(Snapshot { folder, commit }),
        })
    }

    fn download(&self, name: &Name, log: Log) -> Result<Snapshot> {
        log.info(&format!("{name}: from {} into {}", self.endpoint, self.cache.display()));
        download::Download::new(self, name, log)?.run()
    }

    /// The cache folder of a repository.
    fn repository(&self, name: &Name) -> PathBuf {
        self.cache.join(folder_name(name))
    }
}

fn folder_name(name: &Name) -> String {
    format!("models--{}", name.repository.replace('/', "--"))
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn names_are_two_parts_and_a_revision() {
        for (text, repository, revision) in [
            ("org/name", "org/name", "main"),
            ("a-b/N_1.5@v1.0", "a-b/N_1.5", "v1.0"),
            ("org/name@refs/pr/1", "org/name", "refs/pr/1"),
        ] {
            let name = Name::parse(text).unwrap();
            assert_eq!((name.repository.as_str(), name.revision.as_str()), (repository, revision));
        }
        for text in [
            "",
            "name",
            "/name",
            "org/",
            "./org",
            "../name",
            "org/..",
            "a/b/c",
            "org/name@",
            "org/na me",
            "org/a--b",
            "org/name@../x",
            "org/name@a//b",
            "-o/name",
            "org\\name",
            "C:/name",
            "org/name@x?y",
            "org/name@v@w",
        ] {
            assert!(Name::parse(text).is_none(), "{text}");
        }
    }
}
