//! A simulated Metal device for tests.
pub mod shader;
