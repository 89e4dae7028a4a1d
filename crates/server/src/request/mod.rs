//! Requests: JSON bodies into checked values. Dialects declare their objects here; the rules are the same for all of them.

mod body;
mod decode;
mod fault;
mod neutral;
pub(crate) mod object;
pub(crate) mod sampling;
pub(crate) mod whole;

pub(crate) use body::{Body, parse};
pub(crate) use fault::fault;
