//! Chat templates: the Jinja of a model's own files, rendered as Hugging Face renders it.

use crate::config::{Config, bad_value, read_object, read_text};
use crate::error::{TemplateError, TextError};
use crate::{bounds, python};
use minijinja::machinery::{CompiledTemplate, TemplateConfig, eval, make_string_output};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::merge_maps;
use minijinja::{AutoEscape, Environment, ErrorKind, Value, context};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Steps that one rendering may take; 64 bytes of text count as one, so it also bounds memory (to 200 MB).
/// A conversation of a thousand messages needs a tenth.
const FUEL: u64 = 3_000_000;
/// Nesting of macros, loops and conditions; measured to fit a thread of 2 MiB.
const RECURSION: usize = 200;
/// Largest source of a template, bytes; no real model's comes near.
const MAX_SOURCE: usize = 1 << 20;
/// The names that a rendering sets itself.
const RESERVED: [&str; 4] = ["messages", "tools", "documents", "add_generation_prompt"];
/// The template for conversations with tools, where a model has one of its own.
const TOOL_USE: &str = "tool_use";

/// Variables that a template is rendered with.
#[derive(Debug, Clone, Copy)]
pub struct ChatInput<'a> {
    /// Objects with `role` and `content`, and whatever else the template knows.
    pub messages: &'a [Json],
    /// Tool definitions in OpenAI's shape.
    pub tools: Option<&'a [Json]>,
    /// Documents for retrieval templates: objects with `title` and `text`.
    pub documents: Option<&'a [Json]>,
    /// True to end with the beginning of an assistant's answer.
    pub add_generation_prompt: bool,
    /// Further variables, such as `enable_thinking`.
    pub kwargs: Option<&'a Map<String, Json>>,
}

impl<'a> ChatInput<'a> {
    /// `messages` and the beginning of an answer to them, nothing else.
    #[must_use]
    pub fn new(messages: &'a [Json]) -> Self {
        Self { messages, tools: None, documents: None, add_generation_prompt: true, kwargs: None }
    }
}

/// A chat template. Rendering is bounded in steps, memory and depth, whatever the template: see `bounds.rs`.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Sources of the templates by name. They are compiled as they are used: that costs far less than a step of the model.
    sources: BTreeMap<String, String>,
    special_tokens: Vec<(&'static str, String)>,
}

impl ChatTemplate {
    /// The template of a checkpoint folder: `chat_template.jinja`, else `chat_template` in
    /// `tokenizer_config.json` (a string, or a list of named ones), else `chat_template.json`.
    /// `None` when the model has none: it is a base model, not made for chat.
    ///
    /// # Errors
    /// [`TemplateError::File`] and [`TemplateError::Broken`], naming the file.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>, TemplateError> {
        let config = Config::from_dir(dir)?;
        let special_tokens = config.special_tokens().to_vec();
        let jinja = dir.join("chat_template.jinja");
        let json = dir.join("chat_template.json");
        let (path, sources): (PathBuf, Json) = if let Some(source) = read_text(&jinja)? {
            (jinja, Json::String(source))
        } else if let Some(value) = config.chat_template() {
            (config.path.clone(), value.clone())
        } else if let Some(value) = read_object(&json)?.and_then(|mut root| root.remove("chat_template")) {
            (json, value)
        } else {
            return Ok(None);
        };
        let mut this = Self { environment: environment(), sources: BTreeMap::new(), special_tokens };
        for (name, source) in named_sources(&path, &sources)? {
            this.add(name, source, &path.display().to_string())?;
        }
        Ok(Some(this))
    }

    /// A template from its text; `special_tokens` become variables such as `bos_token`.
    ///
    /// # Errors
    /// [`TemplateError::Broken`].
    pub fn new(source: &str, special_tokens: &[(&'static str, String)]) -> Result<Self, TemplateError> {
        let special_tokens = special_tokens.to_vec();
        let mut this = Self { environment: environment(), sources: BTreeMap::new(), special_tokens };
        this.add("default", source, "the given text")?;
        Ok(this)
    }

    /// The prompt for a conversation. A model with a template named `tool_use` uses it when there are tools.
    ///
    /// # Errors
    /// See [`TemplateError`]; [`TemplateError::is_client_error`] tells whose fault it is.
    pub fn render(&self, input: &ChatInput) -> Result<String, TemplateError> {
        let given = |name: &str| input.kwargs.is_some_and(|map| map.contains_key(name));
        if let Some(name) = RESERVED.into_iter().chain(bounds::CHECKS).find(|name| given(name)) {
            return Err(TemplateError::Reserved { name });
        }
        let kwargs = input.kwargs.map(python::from_map).unwrap_or_default();
        let special = Value::from_pairs(self.special_tokens.iter().map(|(name, token)| (*name, token.as_str())));
        let or_none = |list: Option<&[Json]>| list.map_or(Value::from(()), python::from_list);
        let variables = context! {
            messages => python::from_list(input.messages),
            tools => or_none(input.tools),
            documents => or_none(input.documents),
            add_generation_prompt => input.add_generation_prompt,
            ..merge_maps([kwargs, special])
        };
        let named = input.tools.and_then(|_| self.sources.get_key_value(TOOL_USE));
        let Some((name, source)) = named.or_else(|| self.sources.get_key_value("default")) else {
            return Ok(String::new());
        };
        let broken = |(line, reason)| TemplateError::Broken { origin: format!("template {name}"), line, reason };
        let template = compile(name, source).map_err(broken)?;
        let mut text = String::new();
        let mut output = make_string_output(&mut text);
        let (code, blocks) = (&template.instructions, &template.blocks);
        eval(&self.environment, code, variables, blocks, &mut output, AutoEscape::None).map_err(|e| failed(&e))?;
        Ok(text)
    }

    fn add(&mut self, name: &str, source: &str, origin: &str) -> Result<(), TemplateError> {
        let broken = |(line, reason)| TemplateError::Broken { origin: origin.to_owned(), line, reason };
        if source.len() > MAX_SOURCE {
            return Err(broken((1, format!("it has {} bytes, more than {MAX_SOURCE}", source.len()))));
        }
        // As Jinja does it: the model was trained on prompts with plain line feeds.
        let source = without_generation_tags(&source.replace("\r\n", "\n").replace('\r', "\n"));
        compile(name, &source).map_err(broken)?;
        self.sources.insert(name.to_owned(), source);
        Ok(())
    }
}

/// A template with checks in it, or the line and reason why it is none.
fn compile<'s>(name: &'s str, source: &'s str) -> Result<CompiledTemplate<'s>, (usize, String)> {
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    let config = TemplateConfig {
        syntax_config: syntax.build().map_err(|error| (1, reason(&error)))?,
        default_auto_escape: Arc::new(|_| AutoEscape::None),
    };
    let mut template =
        CompiledTemplate::new(name, source, &config).map_err(|error| (error.line().unwrap_or(1), reason(&error)))?;
    bounds::insert_checks(&mut template).map_err(|reason| (1, reason))?;
    Ok(template)
}

/// The environment that Hugging Face's own library offers to a template, bounded.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    environment.set_debug(false);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", python::raise_exception);
    environment.add_function("strftime_now", python::strftime_now);
    environment.add_filter("tojson", python::tojson);
    bounds::add_checks(&mut environment);
    environment
}

/// The templates of one `chat_template` value, by name.
fn named_sources<'a>(path: &Path, value: &'a Json) -> Result<Vec<(&'a str, &'a str)>, TextError> {
    let expected = "a string, or a list of objects with `name` and `template`, one of them named `default`";
    let bad = || bad_value(path, "chat_template", expected, value);
    if let Some(source) = value.as_str() {
        return Ok(vec![("default", source)]);
    }
    let named = |entry: &'a Json| Some((entry.get("name")?.as_str()?, entry.get("template")?.as_str()?));
    let sources: Option<Vec<_>> = value.as_array().ok_or_else(bad)?.iter().map(named).collect();
    sources.filter(|list| list.iter().any(|(name, _)| *name == "default")).ok_or_else(bad)
}

/// `{% generation %}` marks the answers for training and prints nothing: a condition that always holds.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            continue;
        };
        let word = tag[..end].trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        out.push_str(&match word {
            "generation" => tag[..end].replacen(word, "if true", 1),
            "endgeneration" => tag[..end].replacen(word, "endif", 1),
            _ => tag[..end].to_owned(),
        });
        rest = &tag[end..];
    }
    out + rest
}

fn failed(error: &minijinja::Error) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut innermost = error;
    while let Some(this) = cause {
        if let Some(refusal) = this.downcast_ref::<python::Refusal>() {
            return TemplateError::Refused { message: refusal.0.clone() };
        }
        if let Some(inner) = this.downcast_ref::<minijinja::Error>() {
            if inner.kind() == ErrorKind::OutOfFuel {
                return TemplateError::TooCostly { budget: FUEL };
            }
            innermost = inner;
        }
        cause = this.source();
    }
    TemplateError::Failed { line: innermost.line().or(error.line()).unwrap_or(1), reason: reason(innermost) }
}

fn reason(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}
