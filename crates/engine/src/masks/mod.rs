//! Masks of allowed tokens, made on threads of their own while the step that samples with them runs.
//!
//! A step that samples under grammars is submitted before anybody knows the newest tokens. On the device its masked rows wait for one
//! point, that of its [`board::Board`]. Each row has an [`board::Order`], which its sequence holds: once the newest token is known, the
//! sequence hands a job out ([`makers::Makers`]), whose mask goes into the step's inputs. The row that is settled last signals the point.
//!
//! A row is settled once: by its mask; by the end of its order or of its job, however these end; by the engine, for which it came too
//! late; or with the whole board, when the step's results are not wanted any more. No step therefore waits for a mask that nobody makes,
//! and a mask that comes late finds its row settled and is written nowhere.

pub(crate) mod board;
#[cfg(test)]
mod engine_tests;
pub(crate) mod makers;
pub(crate) mod rules;
#[cfg(test)]
pub(crate) mod toy;
