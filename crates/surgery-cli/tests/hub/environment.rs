//! The environment variables for the hub and its cache. Unit tests cover their precedence.

use std::fs;
use std::path::Path;

use super::server::{Asked, COMMIT, hub_where};
use super::{FETCH, GENERATE, Place, TOKEN, fail, succeed};

#[test]
fn the_environment_is_read_as_in_python() {
    let (place, server) = (Place::new("environment"), hub_where(|_| None));
    let with = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = place.command(&server.address, arguments);
        command.env("HOME", place.folder.join("user")).env("HF_HOME", "~/hf").envs(variables.iter().copied());
        command
    };
    let printed =
        succeed(&mut with(&FETCH, &[("HF_TOKEN", TOKEN), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "YES")]));
    let snapshot = place.folder.join("user/hf/hub/models--org--tiny/snapshots").join(COMMIT);
    assert_eq!(Path::new(printed.trim_end()), snapshot);
    assert!(!place.folder.join("~").exists());
    let sends = |asked: &Asked| asked.headers.get("authorization").cloned();
    assert!(server.asked.lock().unwrap().iter().all(|asked| sends(asked).is_none()));

    // Other variables name the same cache, so the hub is not asked.
    let asked = server.asked.lock().unwrap().len();
    succeed(&mut with(&GENERATE, &[("TRANSFORMERS_OFFLINE", "True"), ("HF_HOME", "$HOME/hf")]));
    succeed(&mut with(&GENERATE, &[("HF_HUB_OFFLINE", "1"), ("HUGGINGFACE_HUB_CACHE", "${HOME}/hf/hub")]));
    let elsewhere = [("TRANSFORMERS_OFFLINE", "1"), ("HF_HUB_CACHE", "~/other")];
    fail(&mut with(&GENERATE, &elsewhere), 7, &["user/other", "TRANSFORMERS_OFFLINE forbids"]);
    fail(&mut with(&GENERATE, &[("HF_HOME", "~nobody-here/hf")]), 7, &["HF_HOME", "~nobody-here"]);
    assert_eq!(server.asked.lock().unwrap().len(), asked);

    fs::write(place.folder.join("user/secret"), format!("{TOKEN}\r\n")).unwrap();
    succeed(&mut with(&FETCH, &[("HF_TOKEN_PATH", "~/secret")]));
    let last = server.asked.lock().unwrap().last().cloned().unwrap();
    assert_eq!(sends(&last), Some(format!("Bearer {TOKEN}")));
    let printed = succeed(&mut with(&["doctor"], &[("HF_TOKEN_PATH", "~/secret"), ("HF_HUB_OFFLINE", "on")]));
    for named in ["models in ", "user/hf/hub", "token from ", "user/secret", "HF_HUB_OFFLINE forbids"] {
        assert!(printed.contains(named), "{printed}");
    }
}
