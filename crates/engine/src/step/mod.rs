//! A planned step on the device: its inputs, its ops, and what it has sampled.

pub(crate) mod failure;
pub(crate) mod hidden;
pub(crate) mod history;
pub(crate) mod inputs;
pub(crate) mod logprobs;
pub(crate) mod stepper;
