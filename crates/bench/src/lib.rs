//! Measurements of models in this process: what `mlx-serving bench` and the bindings' benchmarks stand on.
//!
//! [`throughput`] runs one [`Load`]; [`compare`] measures each optimization between plain runs and gives a [`Comparison`], which is JSON, an
//! HTML page and a table. Settings can be read from JSON; an unknown key is an error, and a key that is not there has the command line's
//! default. Files, arguments and terminals are the caller's.
//!
//! | module | does |
//! | --- | --- |
//! | `workload` | asks a load of an open model, and measures |
//! | `throughput` | the speed of one model |
//! | `compare` | the arms and their runs; `arm` is one run, `finding` what came out beside its aim |
//! | `compare::comparison`, `report`, `table` | the result as JSON, as a page, as a table |
#![forbid(unsafe_code)]

mod compare;
mod error;
mod progress;
mod throughput;
mod workload;

/// The commit that this was built from, or "unknown".
pub const COMMIT: &str = env!("MLX_SERVING_COMMIT");

pub use compare::{Compare, Comparison, compare};
pub use error::BenchError;
pub use progress::Progress;
pub use throughput::{Throughput, throughput};
pub use workload::{Load, Measured, Percentiles, measure};
