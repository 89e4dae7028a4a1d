//! The product as its users meet it: the real binary, over real sockets and terminals. One program of tests, because each that links
//! costs seconds.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;
mod exposition;
#[path = "../../../hub/tests/standin/mod.rs"]
mod standin;

mod admission;
mod answers;
mod bad_input;
mod cancellation;
#[cfg(unix)]
mod chat;
mod chat_lines;
mod chat_templates;
mod cli;
mod compare;
mod completions_logprobs;
#[cfg(unix)]
mod connections;
mod convert;
mod device_lost;
mod embeddings;
mod goldens;
mod http;
mod instructions;
mod load_generator;
mod loading;
mod metal_optimizations;
mod metrics;
mod models;
mod openai_bodies;
mod origins;
mod overload;
mod pages;
#[cfg(target_os = "linux")]
mod progress;
mod requests;
mod scripted;
#[cfg(unix)]
mod shutdown;
#[cfg(unix)]
mod soak;
mod spill_file;
#[cfg(unix)]
mod stopped;
mod transcripts;
mod usage;
mod vulkan;
#[cfg(target_os = "linux")]
mod weights;
