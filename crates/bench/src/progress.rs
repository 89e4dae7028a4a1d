use mlx_serving_runtime as runtime;
use std::time::Duration;

/// Progress of a benchmark.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Progress<'a> {
    /// The model is downloaded or read. A comparison tells of the download only.
    Opening(runtime::Progress<'a>),
    /// A comparison begins, with a run that warms caches and does not count.
    Planned {
        /// The model's name.
        model: &'a str,
        /// Arms besides the plain one.
        arms: usize,
        /// Runs of each arm.
        repetitions: usize,
        /// All runs that count.
        runs: usize,
    },
    /// The first run is over, which was a plain one.
    WarmedUp {
        /// Time that it took.
        took: Duration,
    },
    /// A run begins.
    Begun {
        /// Its arm.
        arm: &'static str,
    },
    /// A run is over.
    Measured {
        /// Its arm.
        arm: &'static str,
        /// Generated tokens a second.
        throughput_tok_s: f64,
    },
}
