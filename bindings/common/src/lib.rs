//! The engine in process, as the bindings for other languages need it.
#![forbid(unsafe_code)]

/// Version of the engine.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
