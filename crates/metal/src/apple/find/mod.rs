//! Finding the system's GPU and what it offers.

mod gpu;

pub(crate) use gpu::{info, matrix_side, system_default};
