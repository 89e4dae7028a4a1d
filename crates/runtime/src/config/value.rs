//! A configuration given as a value by a program, instead of as a file.

use super::schema::{Schema, join, steps};
use super::{Config, file};
use garde::Validate as _;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

/// A value that is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ValueError {
    /// Dotted key at fault; empty for the whole.
    pub key: String,
    /// The key, its value and what it takes.
    pub message: String,
    /// True if no value of that type would do.
    pub wrong_type: bool,
}

impl Config {
    /// Reads and validates nested objects with the keys of a configuration file. Null stands for the default.
    ///
    /// # Errors
    /// The first key that is unknown or whose value is not taken.
    pub fn from_value(value: &Value) -> Result<Self, ValueError> {
        let value = match value {
            Value::Null => Value::Object(Map::new()),
            value => without_nulls(value),
        };
        let schema = Schema::new();
        known(&schema, "", &value)?;
        let config: Self =
            serde_path_to_error::deserialize(&value).map_err(|error| mistyped(&schema, &value, &error))?;
        if let Err(report) = config.validate() {
            let message = file::plain(&report.to_string());
            let message = message.lines().next().unwrap_or_default();
            let (key, said) = message.split_once(": ").unwrap_or(("", message));
            let given = serde_json::to_value(&config).ok().and_then(|tree| at(&tree, key).map(Value::to_string));
            // Some messages have it.
            let given = given.filter(|given| !said.contains(given.as_str()));
            let given = given.map_or_else(String::new, |given| format!("; it is {given}"));
            return Err(ValueError { key: key.into(), message: format!("`{key}` {said}{given}"), wrong_type: false });
        }
        // These messages begin with the key.
        config.check_across().map_err(|message| ValueError {
            key: message.split(' ').next().unwrap_or_default().to_owned(),
            message,
            wrong_type: false,
        })?;
        Ok(config)
    }
}

/// The value without members that are null.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        other => other.clone(),
    }
}

/// Refuses unknown keys, and what is no object where keys belong.
fn known(schema: &Schema, prefix: &str, value: &Value) -> Result<(), ValueError> {
    if !value.is_object() && schema.is_kind(prefix, &Value::Object(Map::new())) {
        return Err(untaken(schema, prefix, value));
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let key = join(prefix, name);
        if let Some(message) = schema.unknown(&key, value.is_object()) {
            return Err(ValueError { key, message, wrong_type: false });
        }
        known(schema, &key, value)?;
    }
    Ok(())
}

/// Says what is wrong with a value that could not be read.
fn mistyped(schema: &Schema, tree: &Value, error: &serde_path_to_error::Error<serde_json::Error>) -> ValueError {
    let path = error.path().iter().fold(String::new(), |path, segment| match segment {
        Segment::Seq { index } => format!("{path}[{index}]"),
        Segment::Map { key } | Segment::Enum { variant: key } => join(&path, key),
        Segment::Unknown => path,
    });
    match at(tree, &path) {
        Some(given) => untaken(schema, &path, given),
        None => ValueError { message: format!("`{path}`: {}", error.inner()), key: path, wrong_type: false },
    }
}

/// Says what a key takes in the place of a value.
fn untaken(schema: &Schema, key: &str, given: &Value) -> ValueError {
    let of_list = key.split('[').next().unwrap_or_default();
    let wanted = match schema.wanted(of_list) {
        Some(wanted) if !key.is_empty() => wanted,
        _ => "a configuration is an object with the sections of runtime.yaml".to_owned(),
    };
    ValueError { key: key.into(), message: format!("{wanted}; it is {given}"), wrong_type: !schema.is_kind(key, given) }
}

/// The value at a dotted key, with indices in brackets.
fn at<'a>(tree: &'a Value, key: &str) -> Option<&'a Value> {
    let steps = steps(key).into_iter().flat_map(|name| name.split('[')).map(|step| step.trim_end_matches(']'));
    steps.filter(|step| !step.is_empty()).try_fold(tree, |node, step| match node {
        Value::Array(list) => list.get(step.parse::<usize>().ok()?),
        node => node.get(step),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nested_objects_set_keys_and_null_stands_for_the_default() {
        for empty in [json!(null), json!({}), json!({ "engine": null }), json!({ "engine": { "threads": null } })] {
            assert_eq!(Config::from_value(&empty).unwrap(), Config::default(), "{empty}");
        }
        let value =
            json!({ "metal_optimizations": { "enabled": true, "memory_pool": { "enabled": true, "num_heaps": 8 } } });
        let config = Config::from_value(&value).unwrap();
        assert!(config.metal_optimizations.enabled && config.metal_optimizations.memory_pool.enabled);
        assert_eq!(config.metal_optimizations.memory_pool.num_heaps, 8);
    }

    #[test]
    fn a_fault_names_its_key_and_says_whether_the_type_is_wrong() {
        let pool = "metal_optimizations.memory_pool";
        for (value, key, wrong_type, said) in [
            (json!([]), "", true, "sections of runtime.yaml"),
            (json!({ "engine": [] }), "engine", true, "keys of its own"),
            (json!("engine"), "", true, "sections of runtime.yaml"),
            (json!({ "engin": {} }), "engin", false, "did you mean `engine`"),
            (json!({ "engine": { "treads": 1 } }), "engine.treads", false, "did you mean `threads`"),
            (json!({ "engine": 3 }), "engine", true, "it is 3"),
            (json!({ "engine": { "threads": "4" } }), "engine.threads", true, "from 0 to 1024; it is \"4\""),
            (json!({ "engine": { "threads": true } }), "engine.threads", true, "it is true"),
            (json!({ "engine": { "threads": 1.5 } }), "engine.threads", true, "it is 1.5"),
            (json!({ "engine": { "threads": -1 } }), "engine.threads", false, "it is -1"),
            (json!({ "engine": { "threads": 1025 } }), "engine.threads", false, "must be 0 to 1024; it is 1025"),
            (json!({ "engine": { "arithmetic": "slow" } }), "engine.arithmetic", false, "one of fast, exact"),
            (json!({ "engine": { "arithmetic": 1 } }), "engine.arithmetic", true, "it is 1"),
            (json!({ "engine": { "device": "tpu" } }), "engine.device", false, "is not a device"),
            (json!({ "engine": { "max_batch_rows": 1 } }), "engine.max_batch_rows", false, "must be 16 to 8192"),
            (json!({ "server": { "port": 70_000 } }), "server.port", false, "it is 70000"),
            (json!({ "models": { "serve": "a" } }), "models.serve", true, "a list"),
            (json!({ "models": { "serve": [1] } }), "models.serve[0]", true, "it is 1"),
        ] {
            let error = Config::from_value(&value).expect_err(&value.to_string());
            assert_eq!((error.key.as_str(), error.wrong_type), (key, wrong_type), "{value}: {error}");
            assert!(error.message.contains(said), "{value}: {error}");
        }
        for (pool_value, key) in [
            (json!({ "heap_size_mb": 63 }), "heap_size_mb"),
            (json!({ "warmup_buffer_sizes_mb": [32, 0] }), "warmup_buffer_sizes_mb[1]"),
            (json!({ "heap_size_mb": 512, "max_heap_size_mb": 256 }), "heap_size_mb"),
            (json!({ "num_heaps": 2, "min_heaps": 3 }), "num_heaps"),
        ] {
            let value = json!({ "metal_optimizations": { "memory_pool": pool_value } });
            let error = Config::from_value(&value).unwrap_err();
            assert_eq!(error.key, format!("{pool}.{key}"), "{error}");
        }
    }
}
