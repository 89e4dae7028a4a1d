//! Models for commands, with their progress on the terminal.

use crate::failure::Failure;
use crate::progress::{Bar, Opening, Pull};
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_device::Device;
use mlx_serving_metal_layer::MetalLayer;
use mlx_serving_model::{LoadInputs, Model as Weights};
use mlx_serving_runtime::{Model, OpenOptions, Runtime, RuntimeError, Source};
use std::path::PathBuf;
use std::sync::Arc;

/// Opens a model; its progress is shown.
pub(crate) fn open(runtime: &Runtime, source: &Source, options: OpenOptions<'_>) -> Result<Model, RuntimeError> {
    let mut opening = Opening::new(options.name.clone().unwrap_or_else(|| source.id()));
    runtime.open(source, OpenOptions { progress: Some(Box::new(move |progress| opening.show(progress))), ..options })
}

/// A model's folder, downloaded first if need be, and the name it is served under.
pub(crate) fn resolve(model: Option<&str>) -> Result<(PathBuf, String), Failure> {
    let source = Source::from(model);
    let mut pull = None;
    let dir = source.find(&mut |p| {
        pull.get_or_insert_with(|| Pull::new(&source.id())).set(p.file, p.done, p.total);
    })?;
    Ok((dir, source.id()))
}

/// Loads a checkpoint's weights with a progress bar.
pub(crate) fn load_weights(
    checkpoint: Arc<Checkpoint>,
    device: &Arc<dyn Device>,
    layer: &MetalLayer,
    name: &str,
) -> Result<Weights, Failure> {
    let bar = Bar::bytes(&format!("loading {name}"));
    let model = Weights::load(LoadInputs {
        checkpoint,
        device,
        allocate: layer.allocate.as_ref(),
        transfer: layer.transfer.as_ref(),
        progress: &mut |p| bar.set(p.done, p.total),
    });
    bar.finish();
    model.map_err(Failure::failed)
}
