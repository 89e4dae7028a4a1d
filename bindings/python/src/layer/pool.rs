//! `MetalMemoryPool`: heaps taken as a whole.

use super::configs::MetalMemoryPoolConfig;
use super::{open, run};
use crate::local::Local;
use mlx_serving_metal_layer::{Allocate, MemoryPool, WholeHeap, Wiring};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A pool of heaps that are reserved beforehand.
#[pyclass(frozen, module = "krserve_native")]
pub(crate) struct MetalMemoryPool {
    pool: Local<Arc<CountedPool>>,
}

/// A heap of a pool, or a temporary one.
#[pyclass(frozen, module = "krserve_native")]
pub(crate) struct MetalHeap {
    heap: Local<Mutex<Option<WholeHeap>>>,
    pool: Weak<CountedPool>,
    #[pyo3(get)]
    is_temporary: bool,
}

/// Counters of a pool.
#[pyclass(frozen, get_all, module = "krserve_native")]
pub(crate) struct MetalMemoryPoolStats {
    total_acquired: u64,
    total_released: u64,
    exhaustion_events: u64,
    fallback_events: u64,
    pool_size: usize,
    available_count: usize,
}

/// A pool whose counters are about heaps: `total_acquired` and `total_released` leave out the temporary ones, and a heap that is
/// dropped instead of released stays a leak in the counters although its memory is back.
struct CountedPool {
    pool: MemoryPool,
    track: bool,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    acquired: u64,
    released: u64,
    temporary: u64,
    /// Heaps that are out, or were dropped instead of released.
    unreleased: u64,
}

impl CountedPool {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_acquired(&self, is_temporary: bool) {
        let mut counts = self.counts();
        counts.unreleased += u64::from(!is_temporary);
        if self.track {
            *(if is_temporary { &mut counts.temporary } else { &mut counts.acquired }) += 1;
        }
    }

    fn note_released(&self, is_temporary: bool) {
        let mut counts = self.counts();
        counts.unreleased -= u64::from(!is_temporary);
        counts.released += u64::from(self.track && !is_temporary);
    }
}

impl Drop for CountedPool {
    fn drop(&mut self) {
        let Counts { acquired, released, unreleased, .. } = *self.counts();
        if unreleased > 0 {
            tracing::warn!(
                unreleased,
                acquired,
                released,
                "leak: a memory pool ends, and heaps of it were not released"
            );
        }
    }
}

#[pymethods]
impl MetalMemoryPool {
    #[new]
    fn new(py: Python<'_>, config: &MetalMemoryPoolConfig) -> PyResult<Self> {
        let config = config.checked(py)?;
        let device = open(py, &config.engine)?;
        let settings = &config.metal_optimizations.memory_pool;
        let pool = run(py, || MemoryPool::new(&Wiring::new(device), settings))?;
        let counted = CountedPool { pool, track: settings.track_statistics, counts: Mutex::default() };
        Ok(Self { pool: Local::new(Arc::new(counted)) })
    }

    /// Takes a heap of the pool, or makes a temporary one if none is left.
    fn acquire_heap(&self, py: Python<'_>) -> PyResult<MetalHeap> {
        let pool = self.pool.get()?;
        let heap = run(py, || pool.pool.acquire_heap())?;
        let is_temporary = heap.is_temporary();
        pool.note_acquired(is_temporary);
        Ok(MetalHeap { heap: Local::new(Mutex::new(Some(heap))), pool: Arc::downgrade(pool), is_temporary })
    }

    /// Gives a heap back.
    fn release_heap(&self, py: Python<'_>, heap: &MetalHeap) -> PyResult<()> {
        let pool = self.pool.get()?;
        if heap.pool.as_ptr() != Arc::as_ptr(pool) {
            return Err(PyValueError::new_err(
                "the heap is another pool's; release it to the pool it was acquired from",
            ));
        }
        let released = heap.lock()?.take().ok_or_else(|| PyValueError::new_err("the heap was released before"))?;
        run(py, || pool.pool.release_heap(released))?;
        pool.note_released(heap.is_temporary);
        Ok(())
    }

    /// Touches buffers of the sizes of warmup_sizes, so that the first users do not wait for the device.
    fn warmup(&self, py: Python<'_>) -> PyResult<()> {
        let pool = self.pool.get()?;
        run(py, || pool.pool.warmup())
    }

    /// Returns the counters as they are now.
    fn get_statistics(&self, py: Python<'_>) -> PyResult<MetalMemoryPoolStats> {
        let pool = self.pool.get()?;
        let heaps = run(py, || Ok(pool.pool.stats()))?;
        let counts = pool.counts();
        Ok(MetalMemoryPoolStats {
            total_acquired: counts.acquired,
            total_released: counts.released,
            // Without a heap left, a temporary one serves: one event is the other.
            exhaustion_events: counts.temporary,
            fallback_events: counts.temporary,
            pool_size: heaps.pool_size,
            available_count: heaps.available_count,
        })
    }

    /// Sets the counters to zero.
    fn reset_statistics(&self) -> PyResult<()> {
        let mut counts = self.pool.get()?.counts();
        *counts = Counts { unreleased: counts.unreleased, ..Counts::default() };
        Ok(())
    }
}

impl MetalHeap {
    fn lock(&self) -> PyResult<MutexGuard<'_, Option<WholeHeap>>> {
        Ok(self.heap.get()?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[pymethods]
impl MetalHeap {
    /// Bytes of the heap.
    #[getter]
    fn size(&self) -> PyResult<u64> {
        let heap = self.lock()?;
        let heap = heap.as_ref().ok_or_else(|| PyValueError::new_err("the heap was released"))?;
        Ok(heap.len())
    }

    fn __repr__(&self) -> PyResult<String> {
        let temporary = if self.is_temporary { ", temporary" } else { "" };
        Ok(match &*self.lock()? {
            Some(heap) => format!("MetalHeap({} bytes{temporary})", heap.len()),
            None => format!("MetalHeap(released{temporary})"),
        })
    }
}

#[pymethods]
impl MetalMemoryPoolStats {
    fn __repr__(&self) -> String {
        let Self { total_acquired, total_released, available_count, .. } = self;
        format!(
            "MetalMemoryPoolStats(acquired={total_acquired}, released={total_released}, available={available_count})"
        )
    }
}
