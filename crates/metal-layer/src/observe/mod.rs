//! Counters, durations and utilization of a layer, as `/v1/metal/stats` and `/metrics` show them, and the times of its last steps and copies. Depends on no other room: they
//! report to this one.

pub(crate) mod intervals;
pub(crate) mod metrics;
pub(crate) mod stats;
pub(crate) mod utilization;
