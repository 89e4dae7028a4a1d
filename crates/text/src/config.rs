//! The JSON files beside `tokenizer.json`.

use crate::error::TextError;
use mlx_serving_checkpoint::parse_json;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The keys of `tokenizer_config.json` whose values are one special token each.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// `tokenizer_config.json`, with `special_tokens_map.json` for the special tokens that it leaves out, and `added_tokens.json`.
pub(crate) struct Config {
    pub(crate) path: PathBuf,
    root: Map<String, Value>,
    special_tokens: Vec<(&'static str, String)>,
    added_path: PathBuf,
    added: Map<String, Value>,
}

/// A token that stands beside `tokenizer.json`, and where.
pub(crate) struct AddedEntry<'a> {
    pub(crate) path: &'a Path,
    pub(crate) id: u32,
    pub(crate) token: tokenizers::AddedToken,
}

impl Config {
    /// Reads the files of a folder. All are optional; a file that is there must be well-formed.
    pub(crate) fn from_dir(dir: &Path) -> Result<Self, TextError> {
        let path = dir.join("tokenizer_config.json");
        let root = read_object(&path)?.unwrap_or_default();
        let map_path = dir.join("special_tokens_map.json");
        let map = read_object(&map_path)?.unwrap_or_default();
        let mut special_tokens = Vec::new();
        for key in SPECIAL_TOKENS {
            let token = match special_token(&path, &root, key)? {
                None if !root.contains_key(key) => special_token(&map_path, &map, key)?,
                found => found,
            };
            special_tokens.extend(token.map(|token| (key, token)));
        }
        let added_path = dir.join("added_tokens.json");
        let added = read_object(&added_path)?.unwrap_or_default();
        Ok(Self { path, root, special_tokens, added_path, added })
    }

    /// The special tokens that the model has, by the names that chat templates use.
    pub(crate) fn special_tokens(&self) -> &[(&'static str, String)] {
        &self.special_tokens
    }

    pub(crate) fn special_token(&self, key: &str) -> Option<&str> {
        self.special_tokens.iter().find(|(name, _)| *name == key).map(|(_, token)| token.as_str())
    }

    /// `chat_template`, in any of its forms.
    pub(crate) fn chat_template(&self) -> Option<&Value> {
        self.root.get("chat_template").filter(|value| !value.is_null())
    }

    /// `tool_parser_type`: mlx-lm's name of the format in which the model writes calls.
    pub(crate) fn tool_parser(&self) -> Option<&str> {
        self.root.get("tool_parser_type").and_then(Value::as_str)
    }

    /// `added_tokens_decoder`, then `added_tokens.json`, which older models have instead; each by rising id.
    pub(crate) fn added_tokens(&self) -> Result<Vec<AddedEntry<'_>>, TextError> {
        let none = Value::Object(Map::new());
        let value = self.root.get("added_tokens_decoder").unwrap_or(&none);
        let entries =
            value.as_object().ok_or_else(|| bad_value(&self.path, "added_tokens_decoder", "an object", value))?;
        let mut added = entries.iter().map(|(id, entry)| self.declared(id, entry)).collect::<Result<Vec<_>, _>>()?;
        added.sort_by_key(|entry| entry.id);
        let mut old = self.added.iter().map(|(token, id)| self.numbered(token, id)).collect::<Result<Vec<_>, _>>()?;
        old.sort_by_key(|entry| entry.id);
        added.extend(old);
        Ok(added)
    }

    fn declared(&self, id: &str, entry: &Value) -> Result<AddedEntry<'_>, TextError> {
        let key = || format!("added_tokens_decoder.{id}");
        let number = id.parse().map_err(|_| bad_value(&self.path, &key(), "keyed by a token id", entry))?;
        let content = entry.get("content").and_then(Value::as_str);
        let content = content.ok_or_else(|| bad_value(&self.path, &key(), "an object with `content`", entry))?;
        let flag = |name: &str| entry.get(name).and_then(Value::as_bool).unwrap_or(false);
        let token = tokenizers::AddedToken::from(content, flag("special"))
            .lstrip(flag("lstrip"))
            .rstrip(flag("rstrip"))
            .single_word(flag("single_word"))
            .normalized(flag("normalized"));
        Ok(AddedEntry { path: &self.path, id: number, token })
    }

    /// An entry of `added_tokens.json` says no more than the id; transformers takes a token as special if it has a special role.
    fn numbered(&self, token: &str, id: &Value) -> Result<AddedEntry<'_>, TextError> {
        let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let number = number.ok_or_else(|| bad_value(&self.added_path, token, "a token id", id))?;
        let additional = self.root.get("additional_special_tokens").and_then(Value::as_array);
        let text = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned);
        let special = self.special_tokens.iter().any(|(_, special)| special == token)
            || additional.is_some_and(|list| list.iter().any(|value| text(value).as_deref() == Some(token)));
        Ok(AddedEntry { path: &self.added_path, id: number, token: tokenizers::AddedToken::from(token, special) })
    }
}

/// The JSON object in `path`, `None` when there is no such file.
pub(crate) fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, TextError> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    let value = parse_json(text.as_bytes()).map_err(|source| TextError::Json { path: path.to_owned(), source })?;
    match value {
        Value::Object(map) => Ok(Some(map)),
        other => Err(bad_value(path, "(the whole file)", "an object", &other)),
    }
}

/// The text of `path`, `None` when there is no such file.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, TextError> {
    // A pipe would be waited for, and a device may never end.
    let read = |path| match std::fs::metadata(path)?.is_file() {
        true => std::fs::read_to_string(path),
        false => Err(std::io::Error::other("it is not a regular file")),
    };
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TextError::Read { path: path.to_owned(), source }),
    }
}

pub(crate) fn bad_value(path: &Path, key: &str, expected: &'static str, found: &Value) -> TextError {
    let mut found = found.to_string();
    if let Some((end, _)) = found.char_indices().nth(60) {
        found.truncate(end);
        found.push('…');
    }
    TextError::Value { path: path.to_owned(), key: key.to_owned(), expected, found }
}

/// A special token is a string, an object with `content`, or null.
fn special_token(path: &Path, root: &Map<String, Value>, key: &str) -> Result<Option<String>, TextError> {
    let value = match root.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value,
    };
    let text = value.as_str().or_else(|| value.get("content")?.as_str());
    let expected = "a string, an object with `content`, or null";
    text.map(|text| Some(text.to_owned())).ok_or_else(|| bad_value(path, key, expected, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_json_as_python_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let text = "\u{feff}{\"model_max_length\": Infinity, \"x\": [NaN, 1e999], \"y\": \"\\ud83d\", \"eos_token\": \"a\", \"eos_token\": \"<|end|>\"}";
        std::fs::write(dir.path().join("tokenizer_config.json"), text).unwrap();
        assert_eq!(Config::from_dir(dir.path()).unwrap().special_token("eos_token"), Some("<|end|>"));
        std::fs::write(dir.path().join("tokenizer_config.json"), "{\"bos_token\": NaN}").unwrap();
        assert!(matches!(Config::from_dir(dir.path()), Err(TextError::Value { key, .. }) if key == "bos_token"));
        std::fs::write(dir.path().join("tokenizer_config.json"), "{\"x\": nan}").unwrap();
        assert!(matches!(Config::from_dir(dir.path()), Err(TextError::Json { .. })));
    }
}
