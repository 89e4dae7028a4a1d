//! Requests: JSON bodies into checked values. Dialects declare their objects here; the rules are the same for all of them.

mod body;
mod neutral;
pub(crate) mod object;
pub(crate) mod sampling;

pub(crate) use body::{Body, parse};
