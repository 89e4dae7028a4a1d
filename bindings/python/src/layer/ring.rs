//! `CommandBufferRing`: command buffers that are recorded while others run.

use super::configs::CommandBufferRingConfig;
use super::{open, raised, run};
use crate::local::Local;
use crate::wait::in_slices;
use mlx_serving_device::{DeviceError, Status};
use mlx_serving_metal_layer::{CachingAllocator, CommandBufferRing as Ring, InFlight, Slot, Submit, Wiring};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of step inputs that a slot gets. Nothing writes them.
const INPUTS: u64 = 256;

/// A ring of command buffers.
#[pyclass(frozen, module = "krserve_native")]
pub(crate) struct CommandBufferRing {
    ring: Local<Arc<Mutex<Submitter>>>,
}

struct Submitter {
    ring: Ring,
    in_flight: VecDeque<InFlight>,
    total_released: u64,
}

/// A command buffer that is recorded.
#[pyclass(frozen, module = "krserve_native")]
pub(crate) struct CommandBuffer {
    slot: Local<Mutex<Option<Slot>>>,
    ring: Local<Arc<Mutex<Submitter>>>,
    /// Number of its slot.
    #[pyo3(get)]
    index: usize,
}

/// Counters of a ring.
#[pyclass(frozen, get_all, module = "krserve_native")]
pub(crate) struct CommandBufferRingStats {
    ring_size: usize,
    available_count: usize,
    in_flight_count: usize,
    total_acquired: u64,
    total_released: u64,
    wait_events: u64,
    timeout_events: u64,
    avg_wait_time_us: f64,
    max_wait_time_us: f64,
    rotations: u64,
}

fn lock(ring: &Mutex<Submitter>) -> MutexGuard<'_, Submitter> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Submitter {
    /// Frees the slots that have completed; whoever waits for them learns how they ended.
    fn settle(&mut self) -> Result<(), DeviceError> {
        let mut outcome = Ok(());
        while let Some(first) = self.in_flight.front()
            && first.submission.status() != Status::Pending
        {
            outcome = outcome.and(self.ring.complete(first, Duration::ZERO));
            self.in_flight.pop_front();
        }
        outcome
    }

    /// Waits for the slots in flight, at most `limit`; false if some are still.
    fn wait(&mut self, limit: Duration) -> Result<bool, DeviceError> {
        if let Some(first) = self.in_flight.front() {
            match first.submission.wait(limit) {
                Err(DeviceError::Timeout { .. }) if first.submission.status() == Status::Pending => return Ok(false),
                _ => self.settle()?,
            }
        }
        Ok(self.in_flight.is_empty())
    }
}

#[pymethods]
impl CommandBufferRing {
    #[new]
    fn new(py: Python<'_>, config: &CommandBufferRingConfig) -> PyResult<Self> {
        let config = config.settings.now();
        let device = open(py, &config.engine)?;
        let made = run(py, || {
            let wiring = Wiring::new(device.clone());
            let compute = wiring.frontier.track(device.new_timeline()?);
            let allocate = Arc::new(CachingAllocator::new(&wiring));
            let settings = &config.metal_optimizations.command_buffer_ring;
            let mut ring = Ring::new(&wiring, allocate, &compute, settings);
            ring.reserve_inputs(INPUTS)?;
            Ok(Submitter { ring, in_flight: VecDeque::new(), total_released: 0 })
        });
        Ok(Self { ring: Local::new(Arc::new(Mutex::new(made?))) })
    }

    /// Takes the next command buffer, and waits for a slot if all are in flight.
    fn acquire_buffer(&self, py: Python<'_>) -> PyResult<CommandBuffer> {
        let ring = self.ring.get()?;
        let slot = run(py, || {
            let mut submitter = lock(ring);
            submitter.settle()?;
            match submitter.ring.acquire() {
                Err(DeviceError::Contract(_)) => Ok(None),
                acquired => acquired.map(Some),
            }
        })?;
        let slot = slot.ok_or_else(|| {
            PyRuntimeError::new_err("all command buffers of the ring are acquired; release one, or raise ring_size")
        })?;
        let index = slot.index;
        Ok(CommandBuffer { slot: Local::new(Mutex::new(Some(slot))), ring: Local::new(ring.clone()), index })
    }

    /// Submits the buffer. Its slot is free once the device has completed it.
    fn release_buffer(&self, py: Python<'_>, buffer: &CommandBuffer) -> PyResult<()> {
        let ring = self.ring.get()?;
        if !Arc::ptr_eq(ring, buffer.ring.get()?) {
            return Err(PyValueError::new_err(
                "the command buffer is another ring's; release it to the ring it was acquired from",
            ));
        }
        let slot = buffer.slot.get()?.lock().unwrap_or_else(PoisonError::into_inner).take();
        let slot = slot.ok_or_else(|| PyValueError::new_err("the command buffer was released before"))?;
        run(py, || {
            let mut submitter = lock(ring);
            let in_flight = submitter.ring.submit(slot, &[])?;
            submitter.in_flight.push_back(in_flight);
            submitter.total_released += 1;
            Ok(())
        })
    }

    /// Waits until the device has completed every submitted buffer.
    fn wait_all(&self, py: Python<'_>) -> PyResult<()> {
        let ring = self.ring.get()?;
        let waited = in_slices(py, None, |slice| match lock(ring).wait(slice) {
            Ok(false) => None,
            Ok(true) => Some(Ok(())),
            Err(error) => Some(Err(error)),
        })?;
        waited.unwrap_or(Ok(())).map_err(raised)
    }

    /// Returns the counters as they are now.
    fn get_statistics(&self, py: Python<'_>) -> PyResult<CommandBufferRingStats> {
        let ring = self.ring.get()?;
        let (stats, total_released) = run(py, || {
            let mut submitter = lock(ring);
            submitter.settle()?;
            Ok((submitter.ring.stats(), submitter.total_released))
        })?;
        Ok(CommandBufferRingStats {
            ring_size: stats.ring_size,
            available_count: stats.available_count,
            in_flight_count: stats.in_flight_count,
            total_acquired: stats.total_acquired,
            total_released,
            wait_events: stats.wait_events,
            timeout_events: stats.timeout_events,
            avg_wait_time_us: stats.avg_wait_time_us,
            max_wait_time_us: stats.max_wait_time_us,
            rotations: stats.rotations,
        })
    }

    /// Sets the counters to zero, but for what is in flight.
    fn reset_statistics(&self, py: Python<'_>) -> PyResult<()> {
        let ring = self.ring.get()?;
        run(py, || {
            let mut submitter = lock(ring);
            let settled = submitter.settle();
            submitter.ring.reset_statistics();
            // Released, though their slots are not free yet: the ring counts them as acquired.
            submitter.total_released = submitter.in_flight.len() as u64;
            settled
        })
    }
}

#[pymethods]
impl CommandBuffer {
    fn __repr__(&self) -> PyResult<String> {
        let slot = self.slot.get()?.lock().unwrap_or_else(PoisonError::into_inner);
        let state = if slot.is_some() { "" } else { ", released" };
        Ok(format!("CommandBuffer({}{state})", self.index))
    }
}

#[pymethods]
impl CommandBufferRingStats {
    fn __repr__(&self) -> String {
        let Self { total_acquired, total_released, available_count, .. } = self;
        format!(
            "CommandBufferRingStats(acquired={total_acquired}, released={total_released}, available={available_count})"
        )
    }
}
