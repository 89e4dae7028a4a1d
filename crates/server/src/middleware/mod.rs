//! Layers that every request passes.

pub(crate) mod observe;
pub(crate) mod origin;
