//! Every route against a scripted model: no checkpoint, no device, no time.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "modules of one test program")]

mod admin;
mod chat;
mod completions;
mod doors;
mod house;
mod refusals;
mod script;
mod streams;
