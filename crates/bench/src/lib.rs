//! Measurements of models: what `mlx-serving bench` and the bindings' benchmarks stand on.
//!
//! [`throughput`] runs one [`Load`] in this process, [`throughput_of_server`] against an OpenAI-compatible server; [`compare`] measures each
//! optimization between plain runs and gives a [`Comparison`], which is JSON, an HTML page and a table. Settings can be read from JSON; an
//! unknown key is an error, and a key that is not there has the command line's default. Files, arguments and terminals are the caller's.
//!
//! | module | does |
//! | --- | --- |
//! | `load` | a load, and its plan: every request with its size and its arrival, from the seed alone |
//! | `target` | where it is asked: `engine` in this process, `endpoint` over HTTP, whose streams `sse` reads |
//! | `run` | a plan asked of a target, in a closed or an open loop |
//! | `measured`, `speed`, `goodput` | the figures |
//! | `workload` | a load asked of an open model, with the device's figures |
//! | `throughput` | the speed of one model |
//! | `compare` | the arms and their runs; `asked` is the load, `arm` one run, `finding` what came out beside its aim |
//! | `compare::baseline`, `regression` | an earlier result, refused unless it was measured alike; throughput that was lost |
//! | `compare::quiet`, `distribution`, `timeline` | what other programs took; every request's times; copies beside steps |
//! | `compare::comparison`, `report`, `table` | the result as JSON, as a page, as a table |
#![forbid(unsafe_code)]

mod compare;
mod error;
mod goodput;
mod load;
mod measured;
mod progress;
mod run;
mod speed;
mod target;
mod throughput;
mod workload;

/// The commit that this was built from, or "unknown".
pub const COMMIT: &str = env!("MLX_SERVING_COMMIT");

pub use compare::{Compare, Comparison, LoadKind, compare};
pub use error::BenchError;
pub use goodput::{Goodput, Limits};
pub use load::{Length, Load, LoadFields, Shape};
pub use measured::{Counted, Failures, Measured, Percentiles};
pub use progress::Progress;
pub use target::{Api, ApiKey, Endpoint, EndpointOptions};
pub use throughput::{Settings, Throughput, throughput, throughput_of_server};
