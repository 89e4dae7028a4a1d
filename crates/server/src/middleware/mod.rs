//! Layers that every request passes.

pub(crate) mod cut_off;
pub(crate) mod observe;
pub(crate) mod origin;
