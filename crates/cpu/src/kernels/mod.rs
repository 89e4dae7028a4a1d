//! Computation on slices, one thread at a time; who calls splits the work.

pub(crate) mod attention;
pub(crate) mod gate;
pub(crate) mod matmul;
pub(crate) mod norm;
pub(crate) mod rope;
pub(crate) mod route;
pub(crate) mod sampling;
