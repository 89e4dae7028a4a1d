//! Sections of the configuration and their keys, out of a JSON Schema.

use serde_json::Value;

/// A section, or the whole.
pub(crate) struct Section {
    /// Name of its type in the languages.
    pub(crate) name: String,
    /// Description.
    pub(crate) text: String,
    /// Its keys, in the order of `runtime.yaml`.
    pub(crate) keys: Vec<Key>,
    /// Type of what stands below every further key, which is a name of the user's.
    pub(crate) named: Option<String>,
}

/// A key of a section.
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) kind: Kind,
    /// True if it may be null.
    pub(crate) nullable: bool,
    pub(crate) default: Value,
}

/// Values that a key takes.
pub(crate) enum Kind {
    Boolean,
    /// A whole number from the first to the second.
    Whole(i64, Option<i64>),
    /// A number from the first to the second.
    Number(f64, f64),
    Text(Text),
    /// One of these words.
    Choice(Vec<String>),
    List(Box<Kind>),
    /// Keys of the section whose type has this name.
    Section(String),
}

/// Bounds of a text.
pub(crate) struct Text {
    pub(crate) min_length: u64,
    pub(crate) pattern: Option<String>,
}

impl Section {
    /// All sections of a schema, each after those that it is made of; the whole is the last.
    ///
    /// # Errors
    /// A part of the schema that no rule here covers.
    pub(crate) fn all(root: &Value) -> Result<Vec<Section>, String> {
        let mut sections = Vec::new();
        collect(root, root, "Runtime", "Everything that can be configured", &mut sections)?;
        Ok(sections)
    }
}

/// Adds the section that `node` describes and, before it, those within.
fn collect(root: &Value, node: &Value, name: &str, text: &str, found: &mut Vec<Section>) -> Result<(), String> {
    let named = match &node["additionalProperties"] {
        Value::Bool(false) => None,
        further @ Value::Object(_) => match kind(root, further, &format!("{name}.NAME"))? {
            Kind::Section(section) => {
                let further = resolve(root, further);
                let text = further["description"].as_str().unwrap_or_default().replace('`', "");
                collect(root, further, section.trim_end_matches("Config"), &text, found)?;
                Some(section)
            }
            _ => return Err(format!("{name}.NAME is no section")),
        },
        _ => return Err(format!("{name} takes unknown keys; deny_unknown_fields belongs on its type")),
    };
    let mut keys = Vec::new();
    for (key, node) in node["properties"].as_object().into_iter().flatten() {
        let here = format!("{name}.{key}");
        let text = node["description"].as_str().ok_or(format!("{here} has no doc comment"))?;
        let text = text.replace('\n', " ").trim_end_matches('.').to_owned();
        let kind = kind(root, node, &here)?;
        if let Kind::Section(section) = &kind {
            collect(root, resolve(root, node), section.trim_end_matches("Config"), &text, found)?;
        }
        let nullable = node["type"].as_array().is_some_and(|types| types.contains(&"null".into()));
        keys.push(Key { name: key.clone(), text, kind, nullable, default: node["default"].clone() });
    }
    found.push(Section { name: format!("{name}Config"), text: text.to_owned(), keys, named });
    Ok(())
}

fn kind(root: &Value, node: &Value, here: &str) -> Result<Kind, String> {
    let target = resolve(root, node);
    let word = match &target["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        one => one.as_str(),
    };
    match word {
        Some("boolean") => Ok(Kind::Boolean),
        Some("integer") => Ok(Kind::Whole(target["minimum"].as_i64().unwrap_or(0), target["maximum"].as_i64())),
        Some("number") => match (target["minimum"].as_f64(), target["maximum"].as_f64()) {
            (Some(min), Some(max)) => Ok(Kind::Number(min, max)),
            _ => Err(format!("{here} is a number without a range")),
        },
        Some("string") => Ok(Kind::Text(Text {
            min_length: target["minLength"].as_u64().unwrap_or(0),
            pattern: target["pattern"].as_str().map(str::to_owned),
        })),
        Some("array") => Ok(Kind::List(Box::new(kind(root, &target["items"], here)?))),
        Some("object") => {
            let name = node["$ref"].as_str().and_then(|path| path.rsplit('/').next());
            let name = name.ok_or(format!("{here} is a section without a type of its own"))?.trim_end_matches("Config");
            // Where the section's own name says too little.
            let name = if name == "MemoryPool" { "MetalMemoryPool" } else { name };
            Ok(Kind::Section(format!("{name}Config")))
        }
        _ => {
            let choices = target["oneOf"].as_array().into_iter().flatten();
            let choices: Vec<String> =
                choices.filter_map(|choice| Some(choice["const"].as_str()?.to_owned())).collect();
            if choices.is_empty() {
                Err(format!("{here} has a type that no rule here is for: {target}"))
            } else {
                Ok(Kind::Choice(choices))
            }
        }
    }
}

/// The node itself, or the definition that it refers to.
fn resolve<'a>(root: &'a Value, node: &'a Value) -> &'a Value {
    match node["$ref"].as_str().and_then(|path| path.strip_prefix('#')) {
        Some(path) => root.pointer(path).unwrap_or(&Value::Null),
        None => node,
    }
}
