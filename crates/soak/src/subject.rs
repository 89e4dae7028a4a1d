//! A model under test, as a run sees it.

use mlx_serving_engine::{Event, Request};
use mlx_serving_metal_layer::LayerStats;
use serde::{Deserialize, Serialize};

/// A model that is opened with some of the optimizations, asked, unloaded and opened again.
pub trait Subject {
    /// Begins to open the model with these optimizations, a list as `--metal-opts` takes it. Requests are refused until it is open.
    ///
    /// # Errors
    /// It is open, or nothing can be begun; a clause.
    fn open(&mut self, optimizations: &str, way: Way) -> Result<(), String>;

    /// True once it answers.
    ///
    /// # Errors
    /// It cannot be opened; a clause.
    fn opened(&mut self) -> Result<bool, String>;

    /// Facts about the open model.
    ///
    /// # Errors
    /// None is open.
    fn facts(&self) -> Result<Facts, String>;

    /// The tokens of a text.
    ///
    /// # Errors
    /// None is open, or the text cannot be encoded.
    fn encode(&self, text: &str) -> Result<Vec<u32>, String>;

    /// Sends a request. This thread is unparked whenever something of the answer comes.
    ///
    /// # Errors
    /// The request is refused.
    fn ask(&mut self, request: Request) -> Result<Box<dyn Answer>, Refusal>;

    /// Takes no more requests; those that were accepted go on.
    ///
    /// # Errors
    /// None is open.
    fn unload(&mut self) -> Result<(), String>;

    /// Releases the model that was unloaded, once no answer is left; the bytes that are still allocated on its device then.
    ///
    /// # Errors
    /// None was unloaded, or others hold it.
    fn close(&mut self) -> Result<u64, String>;

    /// State of the engine that is open or was unloaded; `None` after [`Self::close`].
    fn gauges(&self) -> Option<Gauges>;

    /// Resources that this process holds now.
    fn footprint(&self) -> Footprint;
}

/// An answer as it comes. Dropping it cancels the request.
pub trait Answer {
    /// The next event, if it is there.
    fn poll(&mut self) -> Option<Event>;
}

/// Paths by which the registry comes to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It is loaded into its slot.
    Load,
    /// Its name is forgotten, and it is loaded into a new slot.
    Forget,
    /// It is lost, and whoever watches the registry loads it again.
    Revive,
}

/// Reason for which a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It is longer than the context.
    TooLong,
    /// No model is open.
    Closed,
    /// Any other; a clause.
    Other(String),
}

/// Facts about an open model and its device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The model's name.
    pub model: String,
    /// Tokens of its vocabulary.
    pub vocabulary: usize,
    /// Tokens of prompt and answer together.
    pub context: usize,
    /// Name of the device.
    pub device: String,
    /// Its backend.
    pub backend: String,
    /// Its arithmetic.
    pub arithmetic: String,
    /// Its threads or compute units.
    pub units: usize,
}

impl Facts {
    /// Threads that a computation on the host has to have to meet what the engine meets: a CPU device's own, else one.
    pub(crate) fn threads(&self) -> usize {
        if self.backend == "cpu" { self.units.max(1) } else { 1 }
    }
}

/// State of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauges {
    /// The optimizations' own statistics.
    pub stats: LayerStats,
    /// Share of the KV cache's blocks that somebody holds.
    pub kv_usage: f64,
    /// Sequences that run.
    pub running: u64,
    /// Requests that wait.
    pub waiting: u64,
    /// Requests accepted and not ended.
    pub live: u64,
    /// Steps completed, and how long the one in flight has taken, seconds.
    pub steps: u64,
    /// Time that the step in flight has taken so far, seconds.
    pub step_s: Option<f64>,
    /// Reason for which the engine has ended, if it has.
    pub dead: Option<String>,
    /// Counters of spilled KV blocks, of preemptions and the like, by name.
    pub counters: Vec<(&'static str, u64)>,
}

/// Things of the system that this process holds; `None` where the system does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// Resident size, bytes.
    pub resident_bytes: Option<u64>,
    /// Open descriptors.
    pub descriptors: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl Footprint {
    /// Resources that this process holds now.
    pub(crate) fn now() -> Self {
        let count = |folder: &str| std::fs::read_dir(folder).ok().map(|entries| entries.count() as u64);
        Self {
            resident_bytes: mlx_serving_runtime::machine::resident_memory(),
            // One of them is that of this look.
            descriptors: count("/proc/self/fd").map(|open| open.saturating_sub(1)),
            threads: count("/proc/self/task"),
        }
    }

    /// The least of each.
    pub(crate) fn least(self, other: Self) -> Self {
        fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        }
        Self {
            resident_bytes: least(self.resident_bytes, other.resident_bytes),
            descriptors: least(self.descriptors, other.descriptors),
            threads: least(self.threads, other.threads),
        }
    }
}
