//! Naive computation of every op on host slices: what a backend's results are compared with.
//!
//! Each op has a file, named like it, over a few primitives. Sums are `f64`, rows are done one at a time and in order, so a result
//! depends on its own row only. Inputs that lead outside of their buffers (tokens, block tables, history rows) are
//! [`DeviceError::Contract`], as they must be in a backend; shapes that [`crate::ops::Op::validate`] checks are taken for granted.

mod attend;
mod embed;
mod experts;
mod linear;
mod norm;
mod observe;
mod random;
mod rope;
mod route;
mod sample;
mod weight;

pub use attend::{Attend, attend, kv_block_values};
pub use embed::embed;
pub use experts::{Experts, Stacks, experts};
pub use linear::{Finish, Linear, Projection, linear};
pub use norm::{Norm, Normalize, normalize, rms_norm};
pub use observe::{PROMPT, observe};
pub use random::{gumbel, threefry};
pub use rope::{rope_angles, rotate};
pub use route::{Route, Scoring};
pub use sample::{sample, survivors};
pub use weight::{Matrix, dequantize};

use crate::DeviceError;

/// The error of an input that leads outside of its buffers.
fn broken(message: String) -> DeviceError {
    DeviceError::Contract(message)
}
