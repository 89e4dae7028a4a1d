//! Decisions about the next step: which sequences run, and which of their rows it computes.

pub(crate) mod history;
pub(crate) mod plan;
pub(crate) mod policy;
pub(crate) mod scheduler;
