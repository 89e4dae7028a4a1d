//! Every route against a scripted model: no checkpoint, no device, no time.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(unreachable_pub, reason = "modules of one test program")]

mod admin;
mod chat;
mod completions;
mod dialects;
mod doors;
mod embeddings;
mod fields;
mod harness;
mod house;
mod messages;
mod openapi;
mod reasoning;
mod refusals;
mod render;
mod responses;
mod script;
mod streams;
mod structure;
mod tools;
