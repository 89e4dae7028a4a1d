//! `pull`, `list`, `rm`: models in the hub's cache.

use super::Context;
use crate::args::{List, ModelId};
use crate::failure::Failure;
use std::path::PathBuf;

const MISSING: &str = "models cannot be downloaded by this build yet; name a folder";

pub(crate) fn resolve(id: &str) -> Result<PathBuf, Failure> {
    Err(Failure::failed(format!("{id} is not a folder, and {MISSING}")))
}
pub(crate) fn pull(_: &Context, _: &ModelId) -> Result<(), Failure> {
    Err(Failure::failed(MISSING))
}
pub(crate) fn list(_: &Context, _: &List) -> Result<(), Failure> {
    Err(Failure::failed(MISSING))
}
pub(crate) fn remove(_: &Context, _: &ModelId) -> Result<(), Failure> {
    Err(Failure::failed(MISSING))
}
