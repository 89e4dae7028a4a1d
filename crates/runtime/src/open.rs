//! From a model's name to a running engine.

use crate::config::{Config, Models};
use crate::error::RuntimeError;
use crate::fit;
use crate::model::Model;
use crate::runtime::Runtime;
use crate::source::Source;
use crate::spill::spill;
use mlx_serving_checkpoint::{Checkpoint, CheckpointError, GenerationDefaults};
use mlx_serving_device::DeviceInfo;
use mlx_serving_engine::{Engine, Options, Parts, Sampling};
use mlx_serving_metal_layer::MetalLayer;
use mlx_serving_model::{Blueprint, LoadInputs, Model as Weights, ModelError};
use mlx_serving_text::{CallFormat, ChatTemplate, Formats, ReasoningFormat, TemplateError, Tokenizer};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Progress of opening a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Its files are downloaded.
    Download {
        /// The file at work.
        file: &'a str,
        /// Bytes that are there, over all files.
        done: u64,
        /// Bytes of all files.
        total: u64,
    },
    /// Its weights are read.
    Load {
        /// Bytes that were read.
        done: u64,
        /// Bytes of all weights.
        total: u64,
    },
}

/// Receiver of [`Progress`].
pub type OnProgress<'a> = Box<dyn FnMut(Progress<'_>) + 'a>;

/// Wishes for one opening; the rest is the configuration's.
#[derive(Default)]
pub struct OpenOptions<'a> {
    /// The name to open it under; without one, its source's.
    pub name: Option<String>,
    /// Callback that is told of progress.
    pub progress: Option<OnProgress<'a>>,
    /// Takes every allocation from the device, without the cache in front of it: what caching and pooling are compared with.
    pub direct_allocation: bool,
    /// Jinja file in the place of the model's own chat template.
    pub chat_template: Option<PathBuf>,
}

impl fmt::Debug for OpenOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenOptions")
            .field("name", &self.name)
            .field("direct_allocation", &self.direct_allocation)
            .field("chat_template", &self.chat_template)
            .finish_non_exhaustive()
    }
}

impl Runtime {
    /// Opens a model and starts its engine, on a device and in memory that it shares with the models that are open already.
    ///
    /// # Errors
    /// There is no such model or device; the model does not fit beside the others; its files are no model.
    pub fn open(&self, source: &Source, mut options: OpenOptions<'_>) -> Result<Model, RuntimeError> {
        let start = Instant::now();
        let mut tell = |progress: Progress<'_>| {
            if let Some(told) = &mut options.progress {
                told(progress);
            }
        };
        let dir = source.find(&mut |p| tell(Progress::Download { file: p.file, done: p.done, total: p.total }))?;
        let id = options.name.take().unwrap_or_else(|| source.id());
        let checkpoint = Arc::new(Checkpoint::open(&dir).map_err(|error| unopened(&id, error))?);
        let vocabulary = Blueprint::of(&checkpoint).map_err(RuntimeError::Checkpoint)?.vocab;
        let tokenizer = Tokenizer::from_dir(&dir)?;
        let template = template(&id, &dir, options.chat_template.as_deref())?;
        let own = sampling(&checkpoint.generation);
        let (defaults, eos) = (self.config.models.sampling(&id, own), eos(&id, &checkpoint, vocabulary, &tokenizer));
        let (engine, held) = self.with_device(|lease| {
            let device = &lease.device;
            let (reservation, warnings) = fit::reserve(&self.ledger, &self.config, &id, &checkpoint, device)?;
            for warning in warnings {
                tracing::warn!(model = id, "{warning}");
            }
            let layer = match options.direct_allocation {
                true => MetalLayer::direct(device.clone())?,
                false => MetalLayer::new(device.clone(), &self.config.metal_optimizations)?,
            };
            let weights = Weights::load(LoadInputs {
                checkpoint: checkpoint.clone(),
                device,
                allocate: layer.allocate.as_ref(),
                transfer: layer.transfer.as_ref(),
                progress: &mut |p| tell(Progress::Load { done: p.done, total: p.total }),
            });
            let model = weights.map_err(|error| unread(&id, error))?;
            let options = engine_options(&self.config, &id, device.info());
            let parts = Parts { device: device.clone(), layer, model, tokenizer: tokenizer.clone(), eos: eos.clone() };
            Ok((Engine::start(parts, &options)?, (reservation, lease.clone())))
        })?;
        let formats = template.as_ref().map(|template| template.formats(&tokenizer)).unwrap_or_default();
        let formats = self.config.models.formats(formats);
        tracing::info!(
            model = id,
            device = engine.device().info().name,
            context = engine.info().max_context,
            kv_cache_mib = engine.info().kv_bytes >> 20,
            tool_calls = %formats.calls.map_or("none", CallFormat::name),
            reasoning = %formats.reasoning.map_or("none", ReasoningFormat::name),
            ms = start.elapsed().as_millis() as u64,
            "loaded"
        );
        for warning in template.iter().flat_map(|template| unread_calls(template, formats, &self.config.models)) {
            tracing::warn!(model = id, "{warning}");
        }
        let info = engine.info();
        if info.model_context > info.max_context {
            tracing::info!(
                model = id,
                "the context is limited to {} of {} tokens by engine.kv_cache_tokens",
                info.max_context,
                info.model_context
            );
        }
        let (reservation, lease) = held;
        let model = Model::new(id, engine, tokenizer, template, defaults).embedding(checkpoint.embedding);
        Ok(model.with_formats(formats).ending_with(eos).holding(reservation, lease))
    }
}

/// The chat template in `file` if one is named, else the model's own. A fault of its own is told, and does not keep anybody from
/// completing texts.
fn template(id: &str, dir: &Path, file: Option<&Path>) -> Result<Option<ChatTemplate>, RuntimeError> {
    let template = ChatTemplate::from_dir(dir, file)?;
    match template.as_ref().and_then(fault) {
        Some((fault, _)) if file.is_some() => return Err(fault.into()),
        Some((fault, refused)) => tracing::warn!(model = id, "{fault}; until then the model refuses {refused}"),
        None => {}
    }
    Ok(template)
}

/// Reason for which calls are not found in a model's answers, unless the configuration says how they are written.
fn unread_calls(template: &ChatTemplate, formats: Formats, models: &Models) -> Vec<String> {
    if models.tool_call_format.is_some() {
        return Vec::new();
    }
    let unknown = template.unknown_parser().map(|name| {
        format!("tool_parser_type in tokenizer_config.json is {name:?}, a format of tool calls that is not known; it is ignored")
    });
    let unfound = (template.knows_tools() && formats.calls.is_none()).then(|| {
        "the chat template takes tools, but says nothing of how calls are written: they come as text; set models.tool_call_format"
            .to_owned()
    });
    unknown.into_iter().chain(unfound).collect()
}

/// A fault of a model's templates, and what cannot be asked of the model because of it.
fn fault(template: &ChatTemplate) -> Option<(TemplateError, &'static str)> {
    match (template.check(false), template.check(true)) {
        (Ok(()), Ok(())) => None,
        (Ok(()), Err(fault)) => Some((fault, "conversations with tools, and takes others")),
        (Err(fault), Ok(())) => Some((fault, "conversations without tools, and takes those with them")),
        (Err(fault), Err(_)) => Some((fault, "conversations, and completes texts")),
    }
}

fn engine_options(config: &Config, id: &str, device: &DeviceInfo) -> Options {
    let (e, limits) = (&config.engine, &config.server.limits);
    Options {
        max_sequences: e.max_sequences,
        max_batch_rows: e.batch_rows(device),
        kv_tokens: e.kv_cache_tokens,
        max_waiting: e.max_waiting,
        step_limit: Duration::from_secs(e.step_limit_s),
        unread_stream_bytes: limits.answer_mb << 20,
        unread_bytes: limits.unread_mb << 20,
        spill: spill(e, id),
        ..Options::default()
    }
}

/// A checkpoint that cannot be opened. One that is being written to may be whole later.
fn unopened(id: &str, error: CheckpointError) -> RuntimeError {
    match error {
        CheckpointError::Changed { .. } => weights(id, &error),
        error => RuntimeError::Checkpoint(error),
    }
}

/// Weights that cannot be loaded. Those that are being written to may be whole later.
fn unread(id: &str, error: ModelError) -> RuntimeError {
    match error {
        ModelError::Upload { .. } => weights(id, &error),
        error => RuntimeError::Model(error),
    }
}

fn weights(id: &str, error: &dyn fmt::Display) -> RuntimeError {
    RuntimeError::Weights { model: id.to_owned(), reason: error.to_string() }
}

/// The model's own defaults; greedy where it says that it does not sample.
fn sampling(g: &GenerationDefaults) -> Sampling {
    let d = Sampling::default();
    let sampled = g.do_sample != Some(false);
    Sampling {
        temperature: if sampled { g.temperature.unwrap_or(if g.do_sample.is_some() { 1.0 } else { 0.0 }) } else { 0.0 },
        top_p: g.top_p.unwrap_or(d.top_p),
        top_k: g.top_k.unwrap_or(d.top_k),
        min_p: g.min_p.unwrap_or(d.min_p),
        repetition_penalty: g.repetition_penalty.unwrap_or(d.repetition_penalty),
        ..d
    }
}

/// Tokens that end an answer: generation_config.json's, else config.json's, and the tokenizer's own. Those that the model never
/// gives, because its vocabulary ends before them, are left out with a warning.
fn eos(id: &str, checkpoint: &Checkpoint, vocabulary: usize, tokenizer: &Tokenizer) -> Vec<u32> {
    let (file, named) = match &checkpoint.generation.eos_token_ids {
        Some(ids) => ("generation_config.json", ids),
        None => ("config.json", &checkpoint.config.eos_token_ids),
    };
    let own: Vec<u32> = tokenizer.eos_token().and_then(|token| tokenizer.token_to_id(token)).into_iter().collect();
    let mut ids = Vec::new();
    for (file, named) in [(file, named), ("tokenizer.json", &own)] {
        let (known, beyond): (Vec<u32>, Vec<u32>) = named.iter().partition(|&&id| (id as usize) < vocabulary);
        if !beyond.is_empty() {
            let file = checkpoint.dir().join(file);
            tracing::warn!(
                model = id,
                "{} names end tokens {beyond:?}, but the vocabulary has {vocabulary} tokens: they never come and are left out",
                file.display()
            );
        }
        ids.extend(known);
    }
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_generation(text: &str) -> Vec<u32> {
        let (dir, bundled) = (tempfile::tempdir().unwrap(), Source::Bundled.here().unwrap().unwrap());
        for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
            std::fs::copy(bundled.join(name), dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("generation_config.json"), text).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        eos("m", &checkpoint, 4096, &Tokenizer::from_dir(dir.path()).unwrap())
    }

    #[test]
    fn end_tokens_beyond_the_vocabulary_are_left_out() {
        let own = with_generation(r#"{ "eos_token_id": [] }"#);
        assert_eq!(own.len(), 1, "the tokenizer's own");
        let with = |ids: &[u32]| {
            let mut ids = [ids, &own].concat();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        assert_eq!(with_generation(r#"{ "eos_token_id": [7, 4095, 4096, 4294967295] }"#), with(&[7, 4095]));
        assert_eq!(with_generation(r#"{ "eos_token_id": 151643 }"#), own);
    }

    #[test]
    fn a_broken_template_is_warned_of_by_what_it_keeps_from_being_asked() {
        let refused = |default: &str, tool_use: &str| {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("chat_template.jinja"), default).unwrap();
            std::fs::create_dir(dir.path().join("additional_chat_templates")).unwrap();
            std::fs::write(dir.path().join("additional_chat_templates/tool_use.jinja"), tool_use).unwrap();
            let template = ChatTemplate::from_dir(dir.path(), None).unwrap().unwrap();
            fault(&template).map(|(fault, refused)| (fault.to_string().contains("tool_use.jinja"), refused))
        };
        assert_eq!(refused("x", "x"), None);
        assert_eq!(refused("x", "{% if"), Some((true, "conversations with tools, and takes others")));
        assert_eq!(refused("{% if", "x"), Some((false, "conversations without tools, and takes those with them")));
        assert_eq!(refused("{% if", "{% if"), Some((false, "conversations, and completes texts")));
    }

    #[test]
    fn calls_that_would_come_as_text_are_warned_of() {
        let warnings = |parser: &str, template: &str, named: Option<&str>| {
            let dir = tempfile::tempdir().unwrap();
            let bundled = Source::Bundled.here().unwrap().unwrap();
            std::fs::copy(bundled.join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
            let config = serde_json::json!({ "tool_parser_type": parser, "chat_template": template });
            std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
            let template = ChatTemplate::from_dir(dir.path(), None).unwrap().unwrap();
            let formats = template.formats(&Tokenizer::from_dir(dir.path()).unwrap());
            let models = Models { tool_call_format: named.map(str::to_owned), ..Models::default() };
            unread_calls(&template, formats, &models).join(" ")
        };
        let text = "set models.tool_call_format";
        for known in ["json_tools", "hermes", "glm47", "glm", "harmony"] {
            assert_eq!(warnings(known, "{{ tools }}", None), "", "{known}");
        }
        let both = warnings("parser9", "{{ tools }}", None);
        assert!(both.contains("\"parser9\"") && both.contains(text), "{both}");
        assert!(!warnings("parser9", "{{ tools }}<tool_call>", None).contains(text));
        assert!(!warnings("parser9", "{{ messages }}", None).contains(text));
        assert_eq!(warnings("parser9", "{{ tools }}", Some("none")), "");
    }

    #[test]
    fn a_checkpoint_that_is_being_written_to_is_lost_and_any_other_fails() {
        let changed = CheckpointError::Changed { path: "w".into(), opened: 2, now: 1 };
        assert!(matches!(unopened("m", changed), RuntimeError::Weights { model, .. } if model == "m"));
        let other = CheckpointError::Format { path: "w".into(), message: "x".into() };
        assert!(matches!(unopened("m", other), RuntimeError::Checkpoint(_)));
    }
}
