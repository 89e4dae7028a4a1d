//! Nothing but the features of `Cargo.toml`.
