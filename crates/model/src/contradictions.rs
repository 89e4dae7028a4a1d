use crate::{Blueprint, ModelError, modules};
use mlx_serving_checkpoint::Checkpoint;
use mlx_serving_checkpoint::synth::Module;

/// Refuses a checkpoint with tensors that belong to the model's modules and that its blueprint has no use for: it would compute something
/// else without them. Reads headers only.
pub fn refuse_contradictions(checkpoint: &Checkpoint, model: &Blueprint) -> Result<(), ModelError> {
    let contradiction =
        |tensor: String, why: String| Err(ModelError::Contradiction { path: checkpoint.dir().to_owned(), tensor, why });
    for module in modules(model) {
        let (name, whose) = match &module {
            Module::Linear { name, bias: false, .. } => (name, "this module has"),
            Module::Stack { name, .. } => {
                refuse_single_experts(checkpoint, name)?;
                (name, "experts have")
            }
            _ => continue,
        };
        let bias = format!("{name}.bias");
        if checkpoint.get(&bias).is_some() {
            return contradiction(bias, format!("by which {whose} no bias"));
        }
    }
    let (layers, path) = (model.layers.len(), model.layers_path());
    let beyond = |name: &&str| {
        let number = name.strip_prefix(&path).and_then(|rest| rest.strip_prefix('.')?.split('.').next());
        number.and_then(|n| n.parse::<usize>().ok()).is_some_and(|n| n >= layers)
    };
    // Recomputed from config.json's rope_theta; mlx-lm drops it too.
    match checkpoint.names().filter(|name| !name.ends_with("rotary_emb.inv_freq")).find(beyond) {
        Some(tensor) => contradiction(tensor.to_owned(), format!("which has {layers} layers")),
        None => Ok(()),
    }
}

/// Refuses experts that lie in the checkpoint one by one, as transformers writes them.
fn refuse_single_experts(checkpoint: &Checkpoint, module: &str) -> Result<(), ModelError> {
    let Some((block, _)) = module.rsplit_once('.').and_then(|(block, _)| block.rsplit_once('.')) else {
        return Ok(());
    };
    let first = format!("{block}.experts.0.");
    match checkpoint.names().find(|name| name.starts_with(&first)) {
        Some(tensor) if checkpoint.get(&format!("{module}.weight")).is_none() => {
            let path = checkpoint.path_of(tensor).to_owned();
            Err(ModelError::SingleExperts { path, tensor: tensor.to_owned(), module: module.to_owned() })
        }
        _ => Ok(()),
    }
}
