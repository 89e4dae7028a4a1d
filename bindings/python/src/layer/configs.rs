//! The three configurations: attributes that are checked when they are set, by the ranges of `runtime.yaml`.

use mlx_serving_runtime::Config;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyList, PyString};
use std::sync::{Mutex, PoisonError};

/// Attributes whose names differ from the keys of `runtime.yaml`.
const RENAMED: [(&str, &str); 2] =
    [("warmup_sizes", "warmup_buffer_sizes_mb"), ("log_exhaustion", "log_pool_exhaustion")];

/// Range of a warm-up size, which the configuration's own message does not give whole.
const WARMUP_MB: std::ops::RangeInclusive<u64> = 1..=1024;

/// Settings behind a configuration object.
pub(super) struct Settings {
    config: Mutex<Config>,
}

impl Settings {
    fn new(config: Config) -> Self {
        Self { config: Mutex::new(config) }
    }

    /// The settings as they are now.
    pub(super) fn now(&self) -> Config {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the settings, unless the outcome is out of its ranges.
    fn change(&self, attribute: &str, value: &Bound<'_, PyAny>, change: impl FnOnce(&mut Config)) -> PyResult<()> {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = config.clone();
        change(&mut changed);
        if let Err(message) = changed.check() {
            let key = RENAMED.iter().find(|(name, _)| *name == attribute).map_or(attribute, |(_, key)| key);
            // A key's message begins with its path, and ends with what it takes.
            let reason = message.split_once(key).map_or(message.as_str(), |(_, reason)| reason);
            let value = value.repr()?;
            return Err(PyValueError::new_err(format!("{attribute}{reason}, not {value}")));
        }
        *config = changed;
        Ok(())
    }
}

/// A whole number; one that is no number of ours is out of every range.
pub(super) fn whole(attribute: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let is_whole = value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyBool>();
    if !is_whole {
        return Err(wrong_type(attribute, "a whole number", value));
    }
    match value.extract::<u64>() {
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => Ok(u64::MAX),
        other => other,
    }
}

fn switch(attribute: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    match value.cast::<PyBool>() {
        Ok(value) => Ok(value.is_true()),
        Err(_) => Err(wrong_type(attribute, "True or False", value)),
    }
}

fn text(attribute: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    match value.cast::<PyString>() {
        Ok(value) => match value.to_str() {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(PyValueError::new_err(format!("{attribute} has half of a surrogate pair, which is no text"))),
        },
        Err(_) => Err(wrong_type(attribute, "text", value)),
    }
}

/// A list of whole numbers.
fn sizes(attribute: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
    let wrong = || wrong_type(attribute, "a list of whole numbers", value);
    if value.is_instance_of::<PyString>() {
        return Err(wrong());
    }
    let items: Vec<_> = value.try_iter().map_err(|_| wrong())?.collect::<PyResult<_>>()?;
    items.iter().enumerate().map(|(at, item)| whole(&format!("{attribute}[{at}]"), item)).collect()
}

pub(super) fn wrong_type(attribute: &str, wanted: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let name = value.get_type().name().map_or_else(|_| "something else".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("{attribute} takes {wanted}, not {name}"))
}

/// A configuration as it is shown: its class and its attributes.
fn shown(config: &Bound<'_, PyAny>, attributes: &[&str]) -> PyResult<String> {
    let attribute = |name: &&str| Ok(format!("{name}={}", config.getattr(*name)?.repr()?));
    let attributes: Vec<_> = attributes.iter().map(attribute).collect::<PyResult<_>>()?;
    Ok(format!("{}({})", config.get_type().name()?, attributes.join(", ")))
}

/// Declares a configuration's methods, and its attributes: name, how a value is read, and where it goes.
macro_rules! attributes {
    ($class:ident [$($more:literal)*] { $($methods:tt)* } $($get:ident $set:ident: $kind:ident -> $type:ty, $($field:ident).+;)+) => {
        #[pymethods]
        impl $class {
            $($methods)*

            fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
                shown(slf, &[$($more,)* $(stringify!($get)),+])
            }

            $(
                #[getter]
                fn $get(&self) -> $type {
                    self.settings.now().$($field).+.clone() as $type
                }
                #[setter]
                fn $set(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
                    let read = $kind(stringify!($get), value)?;
                    self.settings.change(stringify!($get), value, |config| config.$($field).+ = read as _)
                }
            )+
        }
    };
}

/// Settings of a MetalMemoryPool.
#[pyclass(frozen, module = "krserve_native")]
pub(crate) struct MetalMemoryPoolConfig {
    pub(super) settings: Settings,
    /// The list itself, so that what is appended to it counts.
    warmup_sizes: Mutex<Py<PyList>>,
}

impl MetalMemoryPoolConfig {
    fn take_sizes(&self, value: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
        let read = sizes("warmup_sizes", value)?;
        if let Some((at, size)) = read.iter().enumerate().find(|(_, size)| !WARMUP_MB.contains(size)) {
            let (low, high) = (WARMUP_MB.start(), WARMUP_MB.end());
            return Err(PyValueError::new_err(format!("warmup_sizes[{at}] must be {low} to {high}; it is {size}")));
        }
        self.settings.change("warmup_sizes", value, |config| {
            config.metal_optimizations.memory_pool.warmup_buffer_sizes_mb = read.clone();
        })?;
        Ok(read)
    }

    /// The settings as they are now, with what was appended to the list of sizes.
    pub(super) fn checked(&self, py: Python<'_>) -> PyResult<Config> {
        self.take_sizes(self.warmup_sizes(py).bind(py))?;
        Ok(self.settings.now())
    }
}

attributes!(MetalMemoryPoolConfig ["warmup_sizes"] {
    #[new]
    fn new(py: Python<'_>) -> Self {
        let mut config = Config::default();
        config.metal_optimizations.memory_pool.warmup_buffer_sizes_mb.clear();
        Self { settings: Settings::new(config), warmup_sizes: Mutex::new(PyList::empty(py).unbind()) }
    }

    #[getter]
    fn warmup_sizes(&self, py: Python<'_>) -> Py<PyList> {
        self.warmup_sizes.lock().unwrap_or_else(PoisonError::into_inner).clone_ref(py)
    }

    #[setter]
    fn set_warmup_sizes(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let sizes = self.take_sizes(value)?;
        let list = PyList::new(value.py(), sizes)?.unbind();
        *self.warmup_sizes.lock().unwrap_or_else(PoisonError::into_inner) = list;
        Ok(())
    }
}
    heap_size_mb set_heap_size_mb: whole -> u64, metal_optimizations.memory_pool.heap_size_mb;
    num_heaps set_num_heaps: whole -> usize, metal_optimizations.memory_pool.num_heaps;
    track_statistics set_track_statistics: switch -> bool, metal_optimizations.memory_pool.track_statistics;
    log_exhaustion set_log_exhaustion: switch -> bool, metal_optimizations.memory_pool.log_pool_exhaustion;
    device set_device: text -> String, engine.device;
);

/// Settings of a BlitCoordinator.
#[pyclass(frozen, module = "krserve_native")]
pub(crate) struct BlitCoordinatorConfig {
    pub(super) settings: Settings,
}

attributes!(BlitCoordinatorConfig [] {
    #[new]
    fn new() -> Self {
        Self { settings: Settings::new(Config::default()) }
    }
}
    max_pending_ops set_max_pending_ops: whole -> usize, metal_optimizations.blit_queue.max_pending_ops;
    timeout_ms set_timeout_ms: whole -> u64, metal_optimizations.blit_queue.timeout_ms;
    staging_buffer_size_mb set_staging_buffer_size_mb: whole -> u64, metal_optimizations.blit_queue.staging_buffer_size_mb;
    use_shared_events set_use_shared_events: switch -> bool, metal_optimizations.blit_queue.use_shared_events;
    verify_checksums set_verify_checksums: switch -> bool, metal_optimizations.blit_queue.verify_checksums;
    track_metrics set_track_metrics: switch -> bool, metal_optimizations.blit_queue.track_metrics;
    device set_device: text -> String, engine.device;
);

/// Settings of a CommandBufferRing.
#[pyclass(frozen, module = "krserve_native")]
pub(crate) struct CommandBufferRingConfig {
    pub(super) settings: Settings,
}

attributes!(CommandBufferRingConfig [] {
    #[new]
    fn new() -> Self {
        Self { settings: Settings::new(Config::default()) }
    }
}
    ring_size set_ring_size: whole -> usize, metal_optimizations.command_buffer_ring.ring_size;
    max_wait_ms set_max_wait_ms: whole -> u64, metal_optimizations.command_buffer_ring.max_wait_ms;
    track_statistics set_track_statistics: switch -> bool, metal_optimizations.command_buffer_ring.track_statistics;
    log_wait_events set_log_wait_events: switch -> bool, metal_optimizations.command_buffer_ring.log_wait_events;
    device set_device: text -> String, engine.device;
);
