//! Requests: JSON bodies into checked values. Dialects declare their objects here; the rules are the same for all of them.

mod body;
pub(crate) mod bounded;
mod decode;
mod fault;
pub(crate) mod format;
pub(crate) mod neutral;
pub(crate) mod object;
pub(crate) mod reasoning;
pub(crate) mod sampling;
pub(crate) mod tools;
pub(crate) mod unique;
pub(crate) mod whole;

pub(crate) use body::{Body, UnqueuedBody, parse, parse_within};
pub(crate) use fault::fault;
