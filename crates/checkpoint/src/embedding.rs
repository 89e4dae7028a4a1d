use crate::keys::Keys;
use crate::weights::is_plain;
use crate::{CheckpointError, json};
use serde_json::{Map, Value};
use std::path::Path;

const MODULES: &str = "modules.json";
/// Folder of the pooling where no `modules.json` names one.
const POOLING: &str = "1_Pooling";
/// Keys of older files that each switch a way of pooling on, and its name in newer ones.
const SWITCHES: [(&str, &str); 6] = [
    ("pooling_mode_cls_token", "cls"),
    ("pooling_mode_max_tokens", "max"),
    ("pooling_mode_mean_tokens", "mean"),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("pooling_mode_weightedmean_tokens", "weightedmean"),
    ("pooling_mode_lasttoken", "lasttoken"),
];

/// Hidden states that make the embedding of a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// The last token's.
    #[default]
    Last,
    /// The mean of all tokens'.
    Mean,
    /// The first token's.
    First,
}

/// The way from hidden states to an embedding, as a sentence-transformers folder describes it. The default is that of a model that
/// says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Embedding {
    /// Hidden states that make it.
    pub pooling: Pooling,
    /// It is scaled to length 1.
    pub normalized: bool,
}

impl Default for Embedding {
    fn default() -> Self {
        Self { pooling: Pooling::Last, normalized: true }
    }
}

impl Embedding {
    /// Reads `modules.json` and the pooling that it names, or `1_Pooling/config.json` alone; `None` where neither is there.
    ///
    /// # Errors
    /// A file cannot be read; it asks for a module or a way of pooling that is not implemented.
    pub(crate) fn read(dir: &Path, warnings: &mut Vec<String>) -> Result<Option<Self>, CheckpointError> {
        let path = dir.join(MODULES);
        let (folder, normalized) = match json::read_optional(&path)? {
            Some(list) => modules(&list, &path)?,
            None if !dir.join(POOLING).is_dir() => return Ok(None),
            None => (POOLING.to_owned(), true),
        };
        let path = dir.join(folder).join("config.json");
        let pooling = pooling(object(&json::read(&path)?, &path)?, &path)?;
        check_texts(dir, warnings)?;
        Ok(Some(Self { pooling, normalized }))
    }
}

/// The pooling's folder in a list of modules, and true if a normalization follows it.
fn modules(list: &Value, path: &Path) -> Result<(String, bool), CheckpointError> {
    const EXPECTED: &str = "Transformer, Pooling, and perhaps Normalize, in this order: nothing else is implemented";
    let broken = |message: &str| CheckpointError::Json { path: path.to_owned(), message: message.into() };
    let list = list.as_array().ok_or_else(|| broken("not a list of modules"))?;
    let (mut pooling, mut normalized) = (None, false);
    for (i, module) in list.iter().enumerate() {
        let keys = Keys::entry(i, object(module, path)?, path);
        let folder = keys.text("path")?.unwrap_or_default();
        // Versions of the library keep their modules in different packages.
        match (i, keys.text("type")?.unwrap_or_default().rsplit('.').next()) {
            (0, Some("Transformer")) if matches!(folder, "" | ".") => {}
            (0, Some("Transformer")) => return Err(keys.bad("path", "empty: the model lies beside this file")),
            (1, Some("Pooling")) if is_plain(folder) => pooling = Some(folder.to_owned()),
            (1, Some("Pooling")) => return Err(keys.bad("path", "the name of a folder beside this file")),
            (2, Some("Normalize")) => normalized = true,
            _ => return Err(keys.bad("type", EXPECTED)),
        }
    }
    Ok((pooling.ok_or_else(|| broken("no Pooling among the modules"))?, normalized))
}

/// The way of pooling in the words of newer files, or the switches of older ones. `include_prompt` says nothing here: it is about prompts
/// that a program puts before a text, and this one puts none.
fn pooling(map: &Map<String, Value>, path: &Path) -> Result<Pooling, CheckpointError> {
    const NAME: &str = "pooling_mode";
    let keys = Keys::new(map, path);
    let words = |list: &[Value]| -> Option<Vec<String>> {
        list.iter().map(|word| word.as_str().map(str::to_lowercase)).collect()
    };
    let (key, modes): (&str, Vec<String>) = match map.get(NAME) {
        None | Some(Value::Null) => {
            let mut on = Vec::new();
            for (key, mode) in SWITCHES {
                on.extend(keys.flag(key, false)?.then_some((key, mode.to_owned())));
            }
            match &on[..] {
                // As the library has it.
                [] => (NAME, vec!["mean".to_owned()]),
                [(key, mode)] => (key, vec![mode.clone()]),
                _ => (NAME, on.into_iter().map(|(_, mode)| mode).collect()),
            }
        }
        Some(Value::Array(list)) => (NAME, words(list).ok_or_else(|| keys.bad(NAME, "words"))?),
        Some(word) => (NAME, words(std::slice::from_ref(word)).ok_or_else(|| keys.bad(NAME, "a word, or several"))?),
    };
    match &modes.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["lasttoken"] => Ok(Pooling::Last),
        ["mean"] => Ok(Pooling::Mean),
        ["cls"] => Ok(Pooling::First),
        modes => Err(keys.refusal(
            key,
            modes.join(" and "),
            "lasttoken, mean or cls: other ways of pooling are not implemented",
        )),
    }
}

/// Refuses what would change a text before it is encoded, and warns of what clients have to do to it.
fn check_texts(dir: &Path, warnings: &mut Vec<String>) -> Result<(), CheckpointError> {
    let path = dir.join("sentence_bert_config.json");
    if let Some(value) = json::read_optional(&path)? {
        Keys::new(object(&value, &path)?, &path).refuse_unless("do_lower_case", Some(0.0))?;
    }
    let path = dir.join("config_sentence_transformers.json");
    if let Some(value) = json::read_optional(&path)?
        && let Some(name) = Keys::new(object(&value, &path)?, &path).text("default_prompt_name")?
    {
        let path = path.display();
        warnings.push(format!("{path} wants the prompt {name:?} before every text: clients have to put it there"));
    }
    Ok(())
}

fn object<'a>(value: &'a Value, path: &Path) -> Result<&'a Map<String, Value>, CheckpointError> {
    let broken =
        || CheckpointError::Json { path: path.to_owned(), message: "not an object where one has to be".into() };
    value.as_object().ok_or_else(broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NAMES: [&str; 3] = ["Transformer", "Pooling", "Normalize"];

    /// A folder with these modules of the library's older package and this pooling, where there are such.
    fn folder(modules: &[&str], pooling: Option<Value>) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        if !modules.is_empty() {
            let paths = ["", "1_Pooling", "2_Normalize", "3"];
            let list = modules.iter().zip(paths).enumerate().map(|(i, (name, path))| {
                json!({ "idx": i, "name": i.to_string(), "path": path, "type": format!("sentence_transformers.models.{name}") })
            });
            std::fs::write(dir.path().join(MODULES), list.collect::<Value>().to_string()).unwrap();
        }
        if let Some(pooling) = pooling {
            std::fs::create_dir(dir.path().join(POOLING)).unwrap();
            std::fs::write(dir.path().join("1_Pooling/config.json"), pooling.to_string()).unwrap();
        }
        dir
    }

    fn read(dir: &tempfile::TempDir) -> Result<Option<Embedding>, String> {
        Embedding::read(dir.path(), &mut Vec::new()).map_err(|e| e.to_string())
    }

    fn embedding(pooling: Pooling, normalized: bool) -> Result<Option<Embedding>, String> {
        Ok(Some(Embedding { pooling, normalized }))
    }

    #[test]
    fn a_folder_that_says_nothing_says_none() {
        assert_eq!(read(&folder(&[], None)), Ok(None));
    }

    #[test]
    fn old_and_new_files_name_the_pooling() {
        let last = json!({ "word_embedding_dimension": 64, "pooling_mode_mean_tokens": false, "pooling_mode_lasttoken": true });
        assert_eq!(read(&folder(&NAMES, Some(last.clone()))), embedding(Pooling::Last, true));
        assert_eq!(read(&folder(&NAMES[..2], Some(last.clone()))), embedding(Pooling::Last, false));
        assert_eq!(read(&folder(&[], Some(last))), embedding(Pooling::Last, true), "without modules.json");
        for (pooling, expected) in [
            (json!({ "pooling_mode_cls_token": true }), Pooling::First),
            (json!({ "pooling_mode_mean_tokens": true, "include_prompt": false }), Pooling::Mean),
            (json!({ "pooling_mode_mean_tokens": false }), Pooling::Mean),
            (json!({ "pooling_mode": "lasttoken", "pooling_mode_mean_tokens": true }), Pooling::Last),
            (json!({ "pooling_mode": ["cls"], "embedding_dimension": 64 }), Pooling::First),
            (json!({ "pooling_mode": "Mean" }), Pooling::Mean),
        ] {
            assert_eq!(read(&folder(&NAMES, Some(pooling.clone()))), embedding(expected, true), "{pooling}");
        }
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_its_name() {
        let mean = || Some(json!({ "pooling_mode": "mean" }));
        for (modules, pooling, expected) in [
            (
                &NAMES[..],
                Some(json!({ "pooling_mode_max_tokens": true })),
                "pooling_mode_max_tokens is max, expected lasttoken",
            ),
            (&NAMES, Some(json!({ "pooling_mode": "weightedmean" })), "pooling_mode is weightedmean"),
            (&NAMES, Some(json!({ "pooling_mode": ["cls", "mean"] })), "pooling_mode is cls and mean"),
            (
                &NAMES,
                Some(json!({ "pooling_mode_cls_token": true, "pooling_mode_lasttoken": true })),
                "pooling_mode is cls and lasttoken",
            ),
            (&NAMES, Some(json!({ "pooling_mode": 5 })), "pooling_mode is 5, expected a word"),
            (&NAMES, Some(json!({ "pooling_mode_lasttoken": "yes" })), "pooling_mode_lasttoken is \"yes\""),
            (&NAMES, Some(json!([])), "1_Pooling/config.json: not an object"),
            (&NAMES, None, "1_Pooling/config.json"),
            (&NAMES[..1], mean(), "no Pooling among the modules"),
            (
                &["Transformer", "Pooling", "Dense"],
                mean(),
                "[2].type is \"sentence_transformers.models.Dense\", expected Tran",
            ),
            (&["Transformer", "Pooling", "Normalize", "Normalize"], mean(), "[3].type is"),
            (&["Transformer", "Normalize"], mean(), "[1].type is"),
            (&["Pooling"], mean(), "[0].type is"),
        ] {
            let error = read(&folder(modules, pooling)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn modules_lie_in_the_folder() {
        for (i, path) in [(0, "0_Transformer"), (1, ".."), (1, "/etc"), (1, "a/b"), (1, "")] {
            let dir = folder(&NAMES, Some(json!({ "pooling_mode": "mean" })));
            let file = dir.path().join(MODULES);
            let mut list: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            list[i]["path"] = json!(path);
            std::fs::write(file, list.to_string()).unwrap();
            let error = read(&dir).unwrap_err();
            assert!(error.contains(&format!("[{i}].path is {path:?}")), "{error}");
        }
    }

    #[test]
    fn a_text_that_would_be_changed_is_refused_and_a_missing_prompt_is_told() {
        let dir = folder(&NAMES, Some(json!({ "pooling_mode": "mean" })));
        let mut warnings = Vec::new();
        let prompts = json!({ "prompts": { "query": "Query: " }, "default_prompt_name": "query" });
        std::fs::write(dir.path().join("config_sentence_transformers.json"), prompts.to_string()).unwrap();
        std::fs::write(dir.path().join("sentence_bert_config.json"), r#"{ "do_lower_case": false }"#).unwrap();
        assert!(Embedding::read(dir.path(), &mut warnings).is_ok());
        assert!(matches!(&warnings[..], [warning] if warning.contains("the prompt \"query\"")), "{warnings:?}");
        std::fs::write(dir.path().join("sentence_bert_config.json"), r#"{ "do_lower_case": true }"#).unwrap();
        assert!(read(&dir).unwrap_err().contains("do_lower_case is true"));
    }
}
