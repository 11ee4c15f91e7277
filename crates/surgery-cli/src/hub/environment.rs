//! Environment variables of the hub, read as huggingface_hub does (2.4, `constants.py` and `utils/_auth.py`), so that
//! both use the same files.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use surgery_core::{Error, Result};

use super::Hub;

/// Default of `HF_HUB_DOWNLOAD_TIMEOUT`.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Access to variables and home folders.
pub struct Environment<'a> {
    /// The value of a variable.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The home folder of the named user, or of the current user.
    pub home: &'a dyn Fn(Option<&str>) -> Option<PathBuf>,
}

impl Hub {
    /// The hub that the environment of the process configures.
    pub fn from_env() -> Result<Self> {
        Environment { variable: &|name| env::var_os(name), home: &home }.hub()
    }
}

impl Environment<'_> {
    /// The hub that the variables configure.
    pub fn hub(&self) -> Result<Hub> {
        let home = match self.path("HF_HOME")? {
            Some(home) => home,
            None => match (self.variable)("XDG_CACHE_HOME") {
                Some(caches) => self.expanded("XDG_CACHE_HOME", Path::new(&caches).join("huggingface"))?,
                None => self.expanded("HF_HOME", "~/.cache/huggingface".into())?,
            },
        };
        let cache = match self.path("HF_HUB_CACHE")? {
            Some(cache) => cache,
            None => match self.path("HUGGINGFACE_HUB_CACHE")? {
                Some(cache) => cache,
                None => self.expanded("HF_HOME", home.join("hub"))?,
            },
        };
        let token_path = match self.path("HF_TOKEN_PATH")? {
            Some(path) => path,
            None => self.expanded("HF_HOME", home.join("token"))?,
        };
        let first = |names: [&'static str; 2]| {
            names
                .into_iter()
                .find_map(|name| Some((name, self.text(name).filter(|value| !value.is_empty())?)))
        };
        let endpoint = self.text("HF_ENDPOINT").map(|value| value.trim().to_owned());
        let endpoint = endpoint.filter(|value| !value.is_empty());
        Ok(Hub {
            cache,
            endpoint: endpoint.as_deref().unwrap_or("https://huggingface.co").trim_end_matches('/').into(),
            offline: first(["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
                .filter(|(_, value)| is_true(value))
                .map(|(name, _)| name),
            token: first(["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]),
            token_path,
            sends_token: !self.text("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some_and(|value| is_true(&value)),
            timeout: self.timeout()?,
        })
    }

    fn text(&self, name: &str) -> Option<String> {
        (self.variable)(name).map(|value| value.to_string_lossy().into_owned())
    }

    /// The expanded path that a variable holds.
    fn path(&self, name: &str) -> Result<Option<PathBuf>> {
        (self.variable)(name).map(|value| self.expanded(name, value.into())).transpose()
    }

    /// A path with `~` and variables replaced, like `os.path.expandvars(os.path.expanduser(path))`. A path that is
    /// not UTF-8 stays as it is.
    fn expanded(&self, name: &str, path: PathBuf) -> Result<PathBuf> {
        match path.to_str() {
            Some(text) => Ok(self.with_variables(&self.with_home(name, text)?).into()),
            None => Ok(path),
        }
    }

    /// Replaces a leading `~` or `~USER`.
    fn with_home(&self, name: &str, path: &str) -> Result<String> {
        let Some(rest) = path.strip_prefix('~') else { return Ok(path.into()) };
        let (user, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let found = match user {
            "" => (self.variable)("HOME").map(PathBuf::from).or_else(|| (self.home)(None)),
            user => (self.home)(Some(user)),
        };
        let found = found.ok_or_else(|| Error::Network {
            what: name.into(),
            problem: format!("is `{path}`, and the home folder of `~{user}` is unknown"),
            remedy: format!("set {name} to a path that does not begin with `~`"),
        })?;
        let whole = format!("{}{rest}", found.to_string_lossy().trim_end_matches('/'));
        Ok(if whole.is_empty() { "/".into() } else { whole })
    }

    /// Replaces `$NAME` and `${NAME}` for existing variables.
    fn with_variables(&self, text: &str) -> String {
        let mut whole = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('$') {
            whole.push_str(&rest[..start]);
            rest = &rest[start..];
            let (name, length) = match rest[1..].strip_prefix('{') {
                Some(inner) => match inner.find('}') {
                    Some(end) => (&inner[..end], end + 3),
                    None => ("", 1),
                },
                None => {
                    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    let end = rest[1..].find(|c| !is_part(c)).unwrap_or(rest.len() - 1);
                    (&rest[1..1 + end], 1 + end)
                }
            };
            match self.text(name).filter(|_| !name.is_empty()) {
                Some(value) => whole.push_str(&value),
                None => whole.push_str(&rest[..length]),
            }
            rest = &rest[length..];
        }
        whole + rest
    }

    /// `HF_HUB_DOWNLOAD_TIMEOUT`, a whole number of seconds; 0 means the default.
    fn timeout(&self) -> Result<Duration> {
        const NAME: &str = "HF_HUB_DOWNLOAD_TIMEOUT";
        let Some(value) = self.text(NAME) else { return Ok(TIMEOUT) };
        match value.trim().parse() {
            Ok(0) => Ok(TIMEOUT),
            Ok(seconds) => Ok(Duration::from_secs(seconds)),
            Err(_) => Err(Error::Network {
                what: NAME.into(),
                problem: format!("is `{value}`, which is not a whole number of seconds"),
                remedy: "set it to one, such as 30, or unset it".into(),
            }),
        }
    }
}

/// Whether a variable's value means true.
fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str())
}

/// Strips line breaks and surrounding spaces, which pasting adds. `None` if nothing remains.
pub fn cleaned(token: &str) -> Option<String> {
    let token = token.replace(['\r', '\n'], "").trim().to_owned();
    (!token.is_empty()).then_some(token)
}

/// The token in the file of a login; `None` if the file does not exist.
pub fn token_in(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(cleaned(&text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::Network {
            what: "the hub's token".into(),
            problem: format!("cannot be read from {} ({error})", path.display()),
            remedy: "make the file readable, or set HF_TOKEN_PATH to another one".into(),
        }),
    }
}

/// The home folder of a user, or of the current user, according to the system.
fn home(user: Option<&str>) -> Option<PathBuf> {
    let Some(user) = user else { return env::home_dir() };
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields =
        users.lines().map(|line| line.split(':')).find(|fields| fields.clone().next() == Some(user))?;
    fields.nth(5).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hub with these variables; `~ben` is the only home folder that the system knows.
    fn hub(variables: &[(&str, &str)]) -> Result<Hub> {
        let find =
            |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into());
        Environment { variable: &find, home: &|user| (user == Some("ben")).then(|| "/users/ben".into()) }
            .hub()
    }

    /// The expected paths are HF_HUB_CACHE and HF_TOKEN_PATH in `constants.py` of huggingface_hub 2.4.0, run in an
    /// environment of these variables and HOME=/home/ada (there, `~ben` is `~root`).
    #[test]
    fn paths_equal_those_of_huggingface_hub() {
        for (variables, cache, token) in [
            (&[][..], "/home/ada/.cache/huggingface/hub", "/home/ada/.cache/huggingface/token"),
            (&[("HF_HOME", "~/hf")], "/home/ada/hf/hub", "/home/ada/hf/token"),
            (&[("HF_HOME", "~")], "/home/ada/hub", "/home/ada/token"),
            (&[("HF_HOME", "/a/~/b")], "/a/~/b/hub", "/a/~/b/token"),
            (&[("HF_HOME", "~ben/hf")], "/users/ben/hf/hub", "/users/ben/hf/token"),
            (&[("DISK", "/d"), ("HF_HOME", "$DISK/hf")], "/d/hf/hub", "/d/hf/token"),
            (
                &[("DISK", "/d"), ("HF_HOME", "${DISK}hf/$NONE/${NONE}/$")],
                "/dhf/$NONE/${NONE}/$/hub",
                "/dhf/$NONE/${NONE}/$/token",
            ),
            (
                &[("DISK", "/d"), ("A-b", "x"), ("HF_HOME", "/x$DISKS/${A-b}")],
                "/x$DISKS/x/hub",
                "/x$DISKS/x/token",
            ),
            (&[("A", "$B"), ("B", "/b"), ("HF_HOME", "$A/hf")], "/b/hf/hub", "/b/hf/token"),
            (&[("A", "~"), ("HF_HOME", "$A/hf")], "/home/ada/hf/hub", "/home/ada/hf/token"),
            (&[("XDG_CACHE_HOME", "/xdg")], "/xdg/huggingface/hub", "/xdg/huggingface/token"),
            (
                &[("XDG_CACHE_HOME", "~/c$HOME")],
                "/home/ada/c/home/ada/huggingface/hub",
                "/home/ada/c/home/ada/huggingface/token",
            ),
            (&[("XDG_CACHE_HOME", "/xdg"), ("HF_HOME", "/hf")], "/hf/hub", "/hf/token"),
            (&[("HUGGINGFACE_HUB_CACHE", "~/old")], "/home/ada/old", "/home/ada/.cache/huggingface/token"),
            (
                &[("HF_HUB_CACHE", "~/new/$HOME"), ("HUGGINGFACE_HUB_CACHE", "~/old")],
                "/home/ada/new//home/ada",
                "/home/ada/.cache/huggingface/token",
            ),
            (
                &[("HF_TOKEN_PATH", "~/secret/${HOME}.txt")],
                "/home/ada/.cache/huggingface/hub",
                "/home/ada/secret//home/ada.txt",
            ),
            (&[("HF_HOME", ""), ("HF_HUB_CACHE", "/c")], "/c", "token"),
            (&[("HF_HOME", "")], "hub", "token"),
            (&[("HF_HUB_CACHE", "")], "", "/home/ada/.cache/huggingface/token"),
        ] {
            let hub = hub(&[variables, &[("HOME", "/home/ada")]].concat()).unwrap();
            let found = (hub.cache.to_str(), hub.token_path.to_str());
            assert_eq!(found, (Some(cache), Some(token)), "{variables:?}");
        }
        let cache = |home: &str| hub(&[("HOME", home), ("HF_HUB_CACHE", "~")]).unwrap().cache;
        assert_eq!([cache("/home/ada/"), cache("/")], ["/home/ada", "/"].map(PathBuf::from));
    }

    #[test]
    fn an_unknown_home_folder_is_refused_with_its_variable() {
        for (variables, named) in [
            (&[("HF_HOME", "~eve/hf"), ("HOME", "/h")][..], ["HF_HOME", "`~eve`"]),
            (&[("HF_HUB_CACHE", "~/hub"), ("HF_HOME", "/hf")], ["HF_HUB_CACHE", "`~`"]),
            (&[], ["HF_HOME", "home folder"]),
        ] {
            let error = hub(variables).err().unwrap().to_string();
            assert!(named.iter().all(|named| error.contains(named)), "{error}");
        }
        assert!(hub(&[("HF_HOME", "/hf")]).is_ok());
    }

    /// The expected values are those of huggingface_hub 2.4.0.
    #[test]
    fn switches_equal_those_of_huggingface_hub() {
        const HUB: &str = "HF_HUB_OFFLINE";
        const TRANSFORMERS: &str = "TRANSFORMERS_OFFLINE";
        for (variables, offline) in [
            (&[][..], None),
            (&[(HUB, "1")], Some(HUB)),
            (&[(HUB, "yEs")], Some(HUB)),
            (&[(HUB, "on")], Some(HUB)),
            (&[(HUB, "True")], Some(HUB)),
            (&[(HUB, " 1")], None),
            (&[(HUB, "y")], None),
            (&[(HUB, "2")], None),
            (&[(TRANSFORMERS, "1")], Some(TRANSFORMERS)),
            (&[(HUB, "0"), (TRANSFORMERS, "1")], None),
            (&[(HUB, ""), (TRANSFORMERS, "1")], Some(TRANSFORMERS)),
            (&[("HF_DATASETS_OFFLINE", "1")], None),
        ] {
            let hub = hub(&[variables, &[("HF_HOME", "/hf")]].concat()).unwrap();
            assert_eq!(hub.offline, offline, "{variables:?}");
        }
        let sends =
            |value| hub(&[("HF_HOME", "/hf"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", value)]).unwrap().sends_token;
        assert_eq!([sends("YES"), sends("no"), sends("")], [false, true, true]);
    }

    /// The expected values are those of `get_token` of huggingface_hub 2.4.0, with HF_TOKEN_PATH set to the file.
    #[test]
    fn the_token_equals_that_of_huggingface_hub() {
        let file = std::env::temp_dir().join(format!("surgery-token-{}", std::process::id()));
        fs::write(&file, " hf_file\r\n").unwrap();
        let path = file.to_str().unwrap();
        for (variables, expected) in [
            (&[][..], Some("hf_file")),
            (&[("HF_TOKEN", "hf_new"), ("HUGGING_FACE_HUB_TOKEN", "hf_old")], Some("hf_new")),
            (&[("HUGGING_FACE_HUB_TOKEN", "hf_old")], Some("hf_old")),
            (&[("HF_TOKEN", ""), ("HUGGING_FACE_HUB_TOKEN", "hf_old")], Some("hf_old")),
            (&[("HF_TOKEN", " \n"), ("HUGGING_FACE_HUB_TOKEN", "hf_old")], Some("hf_file")),
            (&[("HF_TOKEN", "\thf_\r\nnew \n")], Some("hf_new")),
            (&[("HF_TOKEN_PATH", "/nowhere/token")], None),
            (&[("HF_TOKEN", "hf_new"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")], None),
            (&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "true")], None),
        ] {
            let all = [variables, &[("HF_HOME", "/hf"), ("HF_TOKEN_PATH", path)]].concat();
            let token = hub(&all).unwrap().token().unwrap();
            assert_eq!(token.as_ref().map(|token| token.text.as_str()), expected, "{variables:?}");
        }
        // An unreadable token file is an error, not an anonymous request.
        let folder = hub(&[("HF_HOME", "/hf"), ("HF_TOKEN_PATH", "/")]).unwrap();
        assert!(folder.token().is_err());
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn the_endpoint_and_the_time_limit_are_read() {
        let set = |name, value| hub(&[("HF_HOME", "/hf"), (name, value)]);
        let endpoint = |value| set("HF_ENDPOINT", value).unwrap().endpoint;
        assert_eq!(endpoint("https://hub.example//"), "https://hub.example");
        assert_eq!(endpoint(""), "https://huggingface.co");
        let timeout = |value| set("HF_HUB_DOWNLOAD_TIMEOUT", value).map(|hub| hub.timeout.as_secs());
        assert_eq!([timeout("5").unwrap(), timeout(" 7 ").unwrap(), timeout("0").unwrap()], [5, 7, 30]);
        for wrong in ["", "soon", "-1", "1.5"] {
            assert!(timeout(wrong).unwrap_err().to_string().contains("HF_HUB_DOWNLOAD_TIMEOUT"), "{wrong}");
        }
    }
}
