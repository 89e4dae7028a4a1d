//! From a model's name to a running engine.

use crate::commands::{Context, models};
use crate::failure::Failure;
use crate::{config, device, fit, progress};
use mlx_serving_checkpoint::{Checkpoint, CheckpointError, GenerationDefaults};
use mlx_serving_device::Device;
use mlx_serving_engine::{Engine, Options, Parts, Sampling, SpillOptions};
use mlx_serving_metal_layer::MetalLayer;
use mlx_serving_model::{Blueprint, Model, ModelError, Source};
use mlx_serving_server::ServedModel;
use mlx_serving_text::{ChatTemplate, Tokenizer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The bundled model's folder under `models/`.
const BUNDLED: &str = "rustbook-5m-4bit";

/// Finds the bundled model: beside the binary as installed, in the current folder, or in the source tree it was built from.
fn bundled() -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(|dir| dir.join("models")));
    let places =
        [beside, Some(PathBuf::from("models")), Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models"))];
    places.into_iter().flatten().map(|dir| dir.join(BUNDLED)).find(|dir| dir.join("config.json").is_file()).ok_or_else(
        || Failure::failed(format!("the bundled model models/{BUNDLED} was not found; name a model with --model")),
    )
}

/// The name that a model is served under: its folder's, or its id. It can be told before the model is there.
pub(crate) fn name(model: Option<&str>) -> String {
    let Some(model) = model else { return BUNDLED.to_owned() };
    let folder = Path::new(model).canonicalize().ok().filter(|path| path.is_dir());
    let name = folder.and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
    name.unwrap_or_else(|| model.to_owned())
}

/// A model's folder, if it is on this machine. Downloads nothing.
pub(crate) fn here(model: Option<&str>) -> Result<Option<PathBuf>, Failure> {
    match model {
        Some(model) if Path::new(model).is_dir() => Ok(Some(PathBuf::from(model))),
        // The bundled model may be named like any other.
        None | Some(BUNDLED) => bundled().map(Some),
        Some(id) => models::cached(id),
    }
}

/// A model's folder, downloaded first if need be, and the name it is served under.
pub(crate) fn resolve(model: Option<&str>) -> Result<(PathBuf, String), Failure> {
    let dir = match here(model)? {
        Some(dir) => dir,
        None => models::resolve(model.unwrap_or(BUNDLED))?,
    };
    Ok((dir, name(model)))
}

/// A checkpoint that cannot be opened. One that is being written to may be whole later.
fn unopened(id: &str, error: CheckpointError) -> Failure {
    match error {
        CheckpointError::Changed { .. } => Failure::Weights { id: id.to_owned(), message: error.to_string() },
        error => Failure::failed(error),
    }
}

/// Loads a checkpoint's weights with a progress bar.
pub(crate) fn load_weights(
    checkpoint: Arc<Checkpoint>,
    device: &Arc<dyn Device>,
    layer: &MetalLayer,
    name: &str,
) -> Result<Model, Failure> {
    let bar = progress::Bar::bytes(&format!("loading {name}"));
    let model = Model::load(Source {
        checkpoint,
        device,
        allocate: layer.allocate.as_ref(),
        transfer: layer.transfer.as_ref(),
        progress: &mut |p| bar.set(p.done, p.total),
    });
    bar.finish();
    model.map_err(|error| match error {
        ModelError::Upload { .. } => Failure::Weights { id: name.to_owned(), message: error.to_string() },
        error => Failure::failed(error),
    })
}

/// Loads a model and starts its engine as the configuration says.
pub(crate) fn serve(context: &Context, model: Option<&str>) -> Result<ServedModel, Failure> {
    start(context, model, &|device| {
        MetalLayer::new(device, &context.config.metal_optimizations).map_err(Failure::failed)
    })
}

/// Loads a model and starts its engine with the layer that `layer` makes.
pub(crate) fn start(
    context: &Context,
    model: Option<&str>,
    layer: &dyn Fn(Arc<dyn Device>) -> Result<MetalLayer, Failure>,
) -> Result<ServedModel, Failure> {
    let start = Instant::now();
    let (dir, id) = resolve(model)?;
    let checkpoint = Arc::new(Checkpoint::open(&dir).map_err(|error| unopened(&id, error))?);
    let vocabulary = Blueprint::of(&checkpoint.config).map_err(Failure::failed)?.vocab;
    let tokenizer = Tokenizer::from_dir(&dir).map_err(Failure::failed)?;
    let template = ChatTemplate::from_dir(&dir).map_err(Failure::failed)?;
    let (defaults, eos) = (sampling(&checkpoint.generation), eos(&id, &checkpoint, vocabulary, &tokenizer));
    let (e, limits) = (&context.config.engine, &context.config.server.limits);
    let engine = device::with(e, |device| {
        for warning in fit::check(context, &id, &checkpoint, device.as_ref())? {
            tracing::warn!(model = id, "{warning}");
        }
        let layer = layer(device.clone())?;
        let model = load_weights(checkpoint.clone(), device, &layer, &id)?;
        let options = Options {
            max_sequences: e.max_sequences,
            max_batch_rows: e.batch_rows(device.info()),
            kv_tokens: e.kv_cache_tokens,
            max_waiting: e.max_waiting,
            step_limit: Duration::from_secs(e.step_limit_s),
            unread_stream_bytes: limits.answer_mb << 20,
            unread_bytes: limits.unread_mb << 20,
            spill: spill(e, &id),
        };
        let parts = Parts { device: device.clone(), layer, model, tokenizer: tokenizer.clone(), eos: eos.clone() };
        Engine::start(parts, &options).map_err(Failure::failed)
    })?;
    tracing::info!(
        model = id,
        device = engine.device().info().name,
        context = engine.info().max_context,
        kv_cache_mib = engine.info().kv_bytes >> 20,
        ms = start.elapsed().as_millis() as u64,
        "loaded"
    );
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    Ok(ServedModel { id, engine, tokenizer, template, defaults, created })
}

/// Destination of KV blocks that the cache has no room for. Every model has a file of its own, named after the configured one.
fn spill(engine: &config::Engine, model: &str) -> SpillOptions {
    let name: String = model.chars().map(|c| if c.is_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let file = engine.kv_spill_file.as_ref().map(|path| {
        let mut file = path.clone().into_os_string();
        file.push(format!(".{name}"));
        PathBuf::from(file)
    });
    SpillOptions { memory_bytes: engine.kv_spill_mb << 20, file, file_bytes: engine.kv_spill_file_mb << 20 }
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
        let (dir, bundled) = (tempfile::tempdir().unwrap(), bundled().unwrap());
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
    fn a_checkpoint_that_is_being_written_to_is_lost_and_any_other_fails() {
        let changed = CheckpointError::Changed { path: "w".into(), opened: 2, now: 1 };
        assert!(matches!(unopened("m", changed), Failure::Weights { id, .. } if id == "m"));
        let other = CheckpointError::Format { path: "w".into(), message: "x".into() };
        assert!(matches!(unopened("m", other), Failure::Failed(_)));
    }

    #[test]
    fn a_folder_and_the_bundled_model_are_here() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(here(dir.path().to_str()).unwrap().as_deref(), Some(dir.path()));
        assert_eq!(here(None).unwrap(), here(Some(BUNDLED)).unwrap());
        assert!(here(Some("no/such/model")).is_err(), "neither a folder nor an id");
    }
}
