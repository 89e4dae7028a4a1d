//! Computation on slices, one thread at a time; who calls splits the work.

pub(crate) mod attention;
mod isa;
pub(crate) mod norm;
pub(crate) mod plain;
pub(crate) mod rope;
pub(crate) mod sampling;

pub use isa::Isa;
