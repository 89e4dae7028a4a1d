//! Counters, durations and utilization of a layer, as `/v1/metal/stats` and `/metrics` show them. Depends on no other room: they
//! report to this one.

pub(crate) mod metrics;
pub(crate) mod stats;
pub(crate) mod utilization;
