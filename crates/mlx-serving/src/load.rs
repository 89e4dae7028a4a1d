//! From a model's name to a running engine.

use crate::commands::Context;
use crate::failure::Failure;
use crate::{config, device, fit, progress};
use mlx_serving_checkpoint::{Checkpoint, GenerationDefaults};
use mlx_serving_device::Device;
use mlx_serving_engine::{Engine, Options, Parts, Sampling, SpillOptions};
use mlx_serving_metal_layer::MetalLayer;
use mlx_serving_model::{Model, ModelError, Source};
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

/// A model's folder and the name it is served under.
pub(crate) fn resolve(context: &Context, model: Option<&str>) -> Result<(PathBuf, String), Failure> {
    let name = name(model);
    let dir = match model {
        Some(model) if Path::new(model).is_dir() => PathBuf::from(model),
        // The bundled model may be named like any other.
        None | Some(BUNDLED) => bundled()?,
        Some(id) => context.resolve_hub(id)?,
    };
    Ok((dir, name))
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
    let (dir, id) = resolve(context, model)?;
    let checkpoint = Arc::new(Checkpoint::open(&dir).map_err(Failure::failed)?);
    let tokenizer = Tokenizer::from_dir(&dir).map_err(Failure::failed)?;
    let template = ChatTemplate::from_dir(&dir).map_err(Failure::failed)?;
    let (defaults, eos) = (sampling(&checkpoint.generation), eos(&checkpoint, &tokenizer));
    let e = &context.config.engine;
    let engine = device::with(e, |device| {
        for warning in fit::check(context, &id, &checkpoint, device.as_ref())? {
            tracing::warn!(model = id, "{warning}");
        }
        let layer = layer(device.clone())?;
        let model = load_weights(checkpoint.clone(), device, &layer, &id)?;
        let options = Options {
            max_sequences: e.max_sequences,
            max_batch_rows: e.max_batch_rows,
            kv_tokens: e.kv_cache_tokens,
            max_waiting: e.max_waiting,
            step_limit: Duration::from_secs(e.step_limit_s),
            spill: spill(e, &id),
            ..Options::default()
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

/// Where KV blocks go that the cache has no room for. Every model has a file of its own, named after the configured one.
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

/// Tokens that end an answer: generation_config.json's, else config.json's, and the tokenizer's own.
fn eos(checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Vec<u32> {
    let mut ids =
        checkpoint.generation.eos_token_ids.clone().unwrap_or_else(|| checkpoint.config.eos_token_ids.clone());
    ids.extend(tokenizer.eos_token().and_then(|token| tokenizer.token_to_id(token)));
    ids.sort_unstable();
    ids.dedup();
    ids
}
