//! The hub's cache and account, by the variables that mean the same to every program of the Hugging Face ecosystem.

use crate::caches;
use crate::error::RuntimeError;
use mlx_serving_hub::{Hub, Options};
use std::path::PathBuf;

const ENDPOINT: &str = "https://huggingface.co";

/// The hub that this process's environment names.
///
/// # Errors
/// [`RuntimeError::NoCache`].
pub fn hub() -> Result<Hub, RuntimeError> {
    let options = options(|name| std::env::var(name).ok().filter(|value| !value.is_empty()), std::env::home_dir())?;
    Ok(Hub::new(options))
}

fn options(variable: impl Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Result<Options, RuntimeError> {
    let folder = |name: &str| variable(name).map(PathBuf::from);
    let caches = caches::folder(folder, home);
    let hf_home = folder("HF_HOME").or_else(|| caches.map(|caches| caches.join("huggingface")));
    let cache = folder("HF_HUB_CACHE")
        .or_else(|| hf_home.as_ref().map(|home| home.join("hub")))
        .ok_or(RuntimeError::NoCache)?;
    // Written by `hf auth login`. That it is not there is the rule.
    let token_file = folder("HF_TOKEN_PATH").or_else(|| hf_home.map(|home| home.join("token")));
    let stored = || token_file.and_then(|path| std::fs::read_to_string(path).ok());
    let token = variable("HF_TOKEN").or_else(stored).map(|token| token.trim().to_owned()).filter(|t| !t.is_empty());
    let yes = |value: String| matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE");
    Ok(Options {
        cache,
        endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()),
        token,
        offline: variable("HF_HUB_OFFLINE").is_some_and(yes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Options {
        let find = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        options(find, Some("/home/me".into())).unwrap()
    }

    #[test]
    fn the_cache_is_where_other_programs_have_it() {
        for (pairs, cache) in [
            (&[][..], "/home/me/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")], "/h/hub"),
            (&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")], "/c"),
        ] {
            assert_eq!(with(pairs).cache, PathBuf::from(cache));
        }
        assert!(options(|_| None, None).is_err());
    }

    #[test]
    fn token_endpoint_and_offline_come_from_their_variables() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        assert_eq!(with(&[("HF_HOME", home)]).token, None);
        std::fs::write(dir.path().join("token"), "stored\n").unwrap();
        assert_eq!(with(&[("HF_HOME", home)]).token.as_deref(), Some("stored"));
        assert_eq!(with(&[("HF_HOME", home), ("HF_TOKEN", "given")]).token.as_deref(), Some("given"));
        assert_eq!(with(&[]).endpoint, ENDPOINT);
        assert_eq!(with(&[("HF_ENDPOINT", "http://mirror")]).endpoint, "http://mirror");
        for (value, offline) in [("1", true), ("true", true), ("YES", true), ("0", false), ("no", false)] {
            assert_eq!(with(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
    }
}
