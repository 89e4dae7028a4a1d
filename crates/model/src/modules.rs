use crate::blocks::{Embedding, Head, Layer};
use crate::blueprint::under;
use crate::{Blueprint, LinearSpec, NormSpec, StackSpec};
use mlx_serving_checkpoint::synth::Module;

/// All modules of a model: matrices and what belongs to them, then norms.
pub fn modules(model: &Blueprint) -> Vec<Module> {
    let linear = |layer: &str, spec: LinearSpec| Module::Linear {
        name: under(layer, spec.path),
        rows: spec.rows,
        cols: spec.cols,
        bias: spec.bias,
    };
    let norm = |layer: &str, spec: NormSpec| Module::Norm { name: under(layer, spec.path), len: spec.len };
    let layers = || model.layers.iter().enumerate().map(|(i, layer)| (Layer::path(model, i), layer));
    let mut all = vec![linear(model.root, Embedding::spec(model))];
    all.extend(Head::spec(model).map(|spec| linear("", spec)));
    for (path, layer) in layers() {
        all.extend(layer.linears(model.hidden).into_iter().map(|spec| linear(&path, spec)));
        all.extend(layer.stacks(model.hidden).into_iter().map(|StackSpec { path: name, count, rows, cols }| {
            Module::Stack { name: under(&path, name), count, rows, cols }
        }));
        all.extend(layer.vectors().into_iter().map(|(name, len)| Module::Vector { name: under(&path, name), len }));
    }
    for (path, layer) in layers() {
        all.extend(layer.norms(model.hidden).into_iter().map(|spec| norm(&path, spec)));
    }
    all.push(norm(model.root, Head::norm(model)));
    all
}
