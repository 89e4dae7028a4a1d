use mlx_serving_runtime as runtime;
use std::time::Duration;

/// Progress of a benchmark.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Progress<'a> {
    /// The model is downloaded or read. A comparison tells of the download only.
    Opening(runtime::Progress<'a>),
    /// The requests of a load are asked.
    Asking {
        /// The number of them.
        requests: usize,
    },
    /// Requests before them that do not count failed; the run goes on.
    WarmUpFailed {
        /// The number of them.
        requests: usize,
        /// Cause of the first failure.
        cause: &'a str,
    },
    /// A request of a load is over.
    Answered {
        /// Requests that are over.
        done: usize,
        /// Those of them that failed.
        failed: usize,
    },
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
