//! Chat templates: the Jinja of a model's own files, rendered as Hugging Face renders it.

use crate::bounds::{self, FUEL};
use crate::config::{Config, bad_value, read_object, read_text};
use crate::depth;
use crate::error::{TemplateError, TextError};
use crate::output::{CallFormat, Formats};
use crate::python;
use crate::tokenizer::Tokenizer;
use minijinja::machinery::{CompiledTemplate, TemplateConfig, Token, Tokenizer as Tokens, eval, make_string_output};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::merge_maps;
use minijinja::{AutoEscape, Environment, ErrorKind, Value, context};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Nesting of macros, loops and conditions; measured to fit a thread of 2 MiB.
const RECURSION: usize = 200;
/// Largest source of a template, bytes; no real model's comes near.
const MAX_SOURCE: usize = 1 << 20;
/// The names that a rendering sets itself.
const RESERVED: [&str; 4] = ["messages", "tools", "documents", "add_generation_prompt"];
/// The template for conversations with tools, where a model has one of its own.
const TOOL_USE: &str = "tool_use";
/// The template for all others.
const DEFAULT: &str = "default";

/// Keys of a message that templates read reasoning from: most models', Gemma's, gpt-oss's.
const REASONING_KEYS: [&str; 3] = ["reasoning_content", "reasoning", "thinking"];

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

/// The chat templates of one model. Rendering is bounded in steps, memory and depth, whatever the template: see `bounds.rs`.
///
/// One that cannot be used keeps nobody from using the model without it: the fault is [`check`](Self::check)'s to tell, and
/// [`render`](Self::render)'s.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    templates: BTreeMap<String, Result<Template, TemplateError>>,
    /// The file or folder that they come from.
    origin: String,
    /// `tool_parser_type` of the checkpoint: mlx-lm's name of its format of calls.
    parser: Option<String>,
    special_tokens: Vec<(&'static str, String)>,
}

/// One template. It is compiled when it is used: that costs far less than a step of the model.
#[derive(Debug)]
struct Template {
    source: String,
    origin: String,
}

impl ChatTemplate {
    /// The template in `file` if one is named, else those of the checkpoint in `dir`, as transformers finds them: `chat_template.jinja`
    /// with `additional_chat_templates/*.jinja`, else `chat_template` in `tokenizer_config.json` (a string, an object of named ones or a
    /// list of them), else `chat_template.json`. `None` when the model has none: it is a base model, not made for chat.
    ///
    /// # Errors
    /// The files around the template are malformed. Its own faults are [`check`](Self::check)'s.
    pub fn from_dir(dir: &Path, file: Option<&Path>) -> Result<Option<Self>, TextError> {
        let config = Config::from_dir(dir)?;
        let mut this = Self::empty(config.special_tokens());
        this.parser = config.tool_parser().map(str::to_owned);
        if let Some(file) = file {
            this.read(DEFAULT, file, Some("there is no such file"));
            return Ok(Some(this));
        }
        this.origin = dir.display().to_string();
        this.read(DEFAULT, &dir.join("chat_template.jinja"), None);
        this.read_additional(&dir.join("additional_chat_templates"));
        if this.templates.is_empty() {
            match config.chat_template() {
                Some(value) => this.add_named(&config.path, value),
                None => this.read_json(&dir.join("chat_template.json")),
            }
        }
        Ok(Some(this).filter(|this| !this.templates.is_empty()))
    }

    /// A template from its text; `special_tokens` become variables such as `bos_token`.
    ///
    /// # Errors
    /// [`TemplateError::Broken`].
    pub fn new(source: &str, special_tokens: &[(&'static str, String)]) -> Result<Self, TemplateError> {
        let mut this = Self::empty(special_tokens);
        this.add(DEFAULT, source, "the given text".to_owned());
        this.check(false)?;
        Ok(this)
    }

    /// Says whether the template for conversations with or without tools can be used.
    ///
    /// # Errors
    /// [`TemplateError::Broken`] and [`TemplateError::Unusable`], naming the file.
    pub fn check(&self, tools: bool) -> Result<(), TemplateError> {
        self.choose(tools).map(drop)
    }

    /// The formats in which a model with these templates writes reasoning and calls.
    #[must_use]
    pub fn formats(&self, tokenizer: &Tokenizer) -> Formats {
        let sources: Vec<&str> = self.templates.values().flatten().map(|template| template.source.as_str()).collect();
        Formats::detect(&sources, self.parser.as_deref(), tokenizer)
    }

    /// The checkpoint's `tool_parser_type`, if that names no format that is known: it is ignored.
    #[must_use]
    pub fn unknown_parser(&self) -> Option<&str> {
        self.parser.as_deref().filter(|name| CallFormat::of_parser(name).is_none())
    }

    /// True if the template for conversations with tools says anything of them.
    #[must_use]
    pub fn knows_tools(&self) -> bool {
        self.choose(true).is_ok_and(|template| names(&template.source, "tools"))
    }

    /// The key of a message in which the template for conversations with or without tools looks for reasoning.
    #[must_use]
    pub fn reasoning_key(&self, tools: bool) -> Option<&'static str> {
        let source = &self.choose(tools).ok()?.source;
        REASONING_KEYS.into_iter().find(|key| names(source, key))
    }

    /// The prompt for a conversation. A model with a template named `tool_use` uses it when there are tools.
    ///
    /// # Errors
    /// See [`TemplateError`]; [`TemplateError::is_client_error`] tells whose fault it is.
    pub fn render(&self, input: &ChatInput) -> Result<String, TemplateError> {
        let given = |name: &str| input.kwargs.is_some_and(|map| map.contains_key(name));
        if let Some(name) = RESERVED.into_iter().chain(bounds::INSERTED).find(|name| given(name)) {
            return Err(TemplateError::Reserved { name });
        }
        match self.render_once(input) {
            Err(TemplateError::Failed { origin, line, reason }) if input.kwargs.is_some() => {
                // A refusal is the template at work, too.
                match self.render_once(&ChatInput { kwargs: None, ..*input }) {
                    Ok(_) | Err(TemplateError::Refused { .. }) => Err(TemplateError::Variables { line, reason }),
                    Err(_) => Err(TemplateError::Failed { origin, line, reason }),
                }
            }
            outcome => outcome,
        }
    }

    fn render_once(&self, input: &ChatInput) -> Result<String, TemplateError> {
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
        let Template { source, origin } = self.choose(input.tools.is_some())?;
        let template = compile(source).map_err(|(line, reason)| broken(origin, line, reason))?;
        let mut text = String::new();
        let mut output = make_string_output(&mut text);
        let (code, blocks) = (&template.instructions, &template.blocks);
        eval(&self.environment, code, variables, blocks, &mut output, AutoEscape::None)
            .map_err(|error| failed(origin, &error))?;
        Ok(text)
    }

    fn empty(special_tokens: &[(&'static str, String)]) -> Self {
        Self {
            environment: environment(),
            templates: BTreeMap::new(),
            origin: String::new(),
            parser: None,
            special_tokens: special_tokens.to_vec(),
        }
    }

    fn choose(&self, tools: bool) -> Result<&Template, TemplateError> {
        let named = if tools { self.templates.get(TOOL_USE) } else { None };
        if let Some(template) = named.or_else(|| self.templates.get(DEFAULT)) {
            return template.as_ref().map_err(Clone::clone);
        }
        let names: Vec<&str> = self.templates.keys().map(String::as_str).collect();
        let reason = format!("it names {}, and none `{DEFAULT}`", names.join(", "));
        Err(TemplateError::Unusable { origin: self.origin.clone(), reason })
    }

    /// Reads a template from a file of its own. Without `needed`, the reason for which its absence is a fault, it may be absent.
    fn read(&mut self, name: &str, path: &Path, needed: Option<&str>) {
        let origin = path.display().to_string();
        let reason = match (read_text(path), needed) {
            (Ok(Some(source)), _) => return self.add(name, &source, origin),
            (Ok(None), None) => return,
            (Ok(None), Some(needed)) => needed.to_owned(),
            (Err(TextError::Read { source, .. }), _) => source.to_string(),
            (Err(error), _) => error.to_string(),
        };
        self.templates.insert(name.to_owned(), Err(TemplateError::Unusable { origin, reason }));
    }

    /// Reads the templates of a JSON file, which may be absent.
    fn read_json(&mut self, path: &Path) {
        match read_object(path).map(|root| root.and_then(|mut root| root.remove("chat_template"))) {
            Ok(Some(value)) => self.add_named(path, &value),
            Ok(None) => {}
            Err(error) => {
                let error = TemplateError::Unusable { origin: path.display().to_string(), reason: error.to_string() };
                self.templates.insert(DEFAULT.to_owned(), Err(error));
            }
        }
    }

    /// Reads the templates of a folder, each named after its file.
    fn read_additional(&mut self, dir: &Path) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if let (Some(name), true) =
                (path.file_stem(), path.extension().is_some_and(|extension| extension == "jinja"))
            {
                self.read(&name.to_string_lossy(), &path, None);
            }
        }
    }

    /// Adds the templates of one `chat_template` value.
    fn add_named(&mut self, path: &Path, value: &Json) {
        self.origin = path.display().to_string();
        match named_sources(path, value) {
            Ok(sources) => {
                for (name, source) in sources {
                    let part = if name == DEFAULT { String::new() } else { format!(" (named {name})") };
                    self.add(name, source, format!("{}{part}", path.display()));
                }
            }
            Err(error) => {
                let error = TemplateError::Unusable { origin: self.origin.clone(), reason: error };
                self.templates.insert(DEFAULT.to_owned(), Err(error));
            }
        }
    }

    fn add(&mut self, name: &str, source: &str, origin: String) {
        // As Jinja does it: the model was trained on prompts with plain line feeds.
        let fault = match source.len() > MAX_SOURCE {
            true => Err((1, format!("it has {} bytes, more than {MAX_SOURCE}", source.len()))),
            false => Ok(without_generation_tags(&source.replace("\r\n", "\n").replace('\r', "\n"))),
        };
        let source = fault.and_then(|source| compile(&source).map(drop).map(|()| source));
        let template = match source {
            Ok(source) => Ok(Template { source, origin }),
            Err((line, reason)) => Err(broken(&origin, line, reason)),
        };
        self.templates.insert(name.to_owned(), template);
    }
}

/// A template with checks in it, or the line and reason why it is none.
fn compile(source: &str) -> Result<CompiledTemplate<'_>, (usize, String)> {
    let mut syntax = SyntaxConfig::builder();
    syntax.trim_blocks(true).lstrip_blocks(true);
    let config = TemplateConfig {
        syntax_config: syntax.build().map_err(|error| (1, reason(&error)))?,
        default_auto_escape: Arc::new(|_| AutoEscape::None),
    };
    depth::check(source, &config.syntax_config)?;
    let mut template =
        CompiledTemplate::new(DEFAULT, source, &config).map_err(|error| (error.line().unwrap_or(1), reason(&error)))?;
    bounds::insert_checks(&mut template).map_err(|reason| (1, reason))?;
    Ok(template)
}

/// The environment that Hugging Face's own library offers to a template, bounded.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    environment.set_debug(false);
    python::install(&mut environment);
    bounds::add_checks(&mut environment);
    environment
}

/// The templates of one `chat_template` value, by name, or what is wrong with it.
fn named_sources<'a>(path: &Path, value: &'a Json) -> Result<Vec<(&'a str, &'a str)>, String> {
    let expected = "a string, an object of named templates, or a list of objects with `name` and `template`";
    let sources = match value {
        Json::String(source) => Some(vec![(DEFAULT, source.as_str())]),
        Json::Object(map) => map.iter().map(|(name, source)| Some((name.as_str(), source.as_str()?))).collect(),
        Json::Array(list) => {
            list.iter().map(|entry| Some((entry.get("name")?.as_str()?, entry.get("template")?.as_str()?))).collect()
        }
        _ => None,
    };
    sources.ok_or_else(|| bad_value(path, "chat_template", expected, value).to_string())
}

/// `{% generation %}` marks the answers for training and prints nothing: a scope of its own, no more.
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
            "generation" => tag[..end].replacen(word, "with", 1),
            "endgeneration" => tag[..end].replacen(word, "endwith", 1),
            _ => tag[..end].to_owned(),
        });
        rest = &tag[end..];
    }
    out + rest
}

/// True if a template has this name in its code, as a variable, an attribute or the key of one.
fn names(source: &str, name: &str) -> bool {
    let mut tokens = Tokens::new(source, "", false, SyntaxConfig::default());
    std::iter::from_fn(|| tokens.next_token().ok().flatten()).any(|(token, _)| match token {
        Token::Ident(found) | Token::Str(found) => found == name,
        Token::String(found) => &*found == name,
        _ => false,
    })
}

fn broken(origin: &str, line: usize, reason: String) -> TemplateError {
    TemplateError::Broken { origin: origin.to_owned(), line, reason }
}

fn failed(origin: &str, error: &minijinja::Error) -> TemplateError {
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
    let line = innermost.line().or(error.line()).unwrap_or(1);
    TemplateError::Failed { origin: origin.to_owned(), line, reason: reason(innermost) }
}

fn reason(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}
