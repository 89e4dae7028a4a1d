//! Mistral: Llama's layer; the sliding window comes from the configuration, layer by layer.

pub(crate) use crate::llama::Layer;
