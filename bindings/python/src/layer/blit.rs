//! `BlitCoordinator`: copies between Python's memory and a device's, beside its other work.

use super::configs::{BlitCoordinatorConfig, whole, wrong_type};
use super::{open, raised, run};
use crate::local::Local;
use crate::wait::in_slices;
use mlx_serving_device::{DeviceError, Status, Storage};
use mlx_serving_metal_layer::{
    Allocate, Allocation, BlitCoordinator as Coordinator, CachingAllocator, Ticket, Transfer, Wiring,
};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Copies on the transfer queue.
#[pyclass(frozen, module = "krserve_native")]
pub(crate) struct BlitCoordinator {
    copies: Local<Copies>,
}

struct Copies {
    coordinator: Coordinator,
    allocate: Arc<dyn Allocate>,
    pending: Mutex<Vec<Ticket>>,
    /// Mark that its buffers and operations carry too.
    identity: Identity,
}

type Identity = Arc<()>;

/// Memory of a device.
#[pyclass(frozen, module = "krserve_native")]
pub(crate) struct DeviceBuffer {
    memory: Local<Arc<Allocation>>,
    of: Identity,
}

/// A copy to a device.
#[pyclass(frozen, module = "krserve_native")]
pub(crate) struct BlitUpload {
    ticket: Local<Ticket>,
    of: Identity,
    /// The buffer that is filled.
    buffer: Py<DeviceBuffer>,
}

/// A copy from a device.
#[pyclass(frozen, module = "krserve_native")]
pub(crate) struct BlitDownload {
    ticket: Local<Ticket>,
    of: Identity,
    bytes: Arc<OnceLock<Vec<u8>>>,
    /// Holds the memory for as long as it is read.
    from: Py<DeviceBuffer>,
}

/// An operation of either kind.
pub(crate) enum Operation<'py> {
    Upload(Bound<'py, BlitUpload>),
    Download(Bound<'py, BlitDownload>),
}

/// Counters of a coordinator.
#[pyclass(frozen, get_all, module = "krserve_native")]
pub(crate) struct BlitCoordinatorStats {
    total_uploads: u64,
    total_downloads: u64,
    bytes_uploaded: u64,
    bytes_downloaded: u64,
    pending_operations: usize,
    avg_upload_ms: f64,
    avg_download_ms: f64,
    overlap_ratio: f64,
    sync_wait_count: u64,
    avg_sync_wait_ms: f64,
    checksum_failures: u64,
    fallback_events: u64,
}

impl Copies {
    fn pending(&self) -> MutexGuard<'_, Vec<Ticket>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a transfer for [`BlitCoordinator::wait_for_all`], and forgets those that went well.
    fn remember(&self, ticket: &Ticket) {
        let mut pending = self.pending();
        pending.retain(|ticket| ticket.status() != Status::Completed);
        pending.push(ticket.clone());
    }

    fn check(&self, of: &Identity, what: &str) -> PyResult<()> {
        if Arc::ptr_eq(&self.identity, of) {
            return Ok(());
        }
        Err(PyValueError::new_err(format!("the {what} is another coordinator's; give it to the one it came from")))
    }
}

/// Milliseconds to wait at most.
fn timeout(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let ms = whole("timeout_ms", value)?;
    if value.lt(0)? {
        return Err(PyValueError::new_err(format!("timeout_ms takes a whole number, not negative; it is {value}")));
    }
    Ok(ms)
}

impl<'py> Operation<'py> {
    fn of_value(value: &Bound<'py, PyAny>) -> PyResult<Self> {
        match (value.cast::<BlitUpload>(), value.cast::<BlitDownload>()) {
            (Ok(upload), _) => Ok(Operation::Upload(upload.clone())),
            (_, Ok(download)) => Ok(Operation::Download(download.clone())),
            _ => Err(wrong_type("op", "what upload_async or download_async returned", value)),
        }
    }

    fn ticket(&self) -> PyResult<&Ticket> {
        match self {
            Operation::Upload(upload) => upload.get().ticket.get(),
            Operation::Download(download) => download.get().ticket.get(),
        }
    }

    fn of(&self) -> &Identity {
        match self {
            Operation::Upload(upload) => &upload.get().of,
            Operation::Download(download) => &download.get().of,
        }
    }
}

/// Waits for a transfer's end; false once `limit` is over.
fn wait(py: Python<'_>, ticket: &Ticket, limit: Option<Duration>) -> PyResult<bool> {
    let ended = in_slices(py, limit, |slice| match ticket.wait(slice) {
        Err(DeviceError::Timeout { .. }) if ticket.status() == Status::Pending => None,
        outcome => Some(outcome),
    })?;
    ended.transpose().map(|ended| ended.is_some()).map_err(raised)
}

fn state(ticket: &Ticket) -> &'static str {
    match ticket.status() {
        Status::Pending => "pending",
        Status::Completed => "completed",
        Status::Failed(_) => "failed",
    }
}

#[pymethods]
impl BlitCoordinator {
    #[new]
    fn new(py: Python<'_>, config: &BlitCoordinatorConfig) -> PyResult<Self> {
        let config = config.settings.now();
        let device = open(py, &config.engine)?;
        let made = run(py, || {
            let wiring = Wiring::new(device.clone());
            let compute = wiring.frontier.track(device.new_timeline()?);
            let allocate: Arc<dyn Allocate> = Arc::new(CachingAllocator::new(&wiring));
            let settings = &config.metal_optimizations.blit_queue;
            let coordinator = Coordinator::new(&wiring, allocate.clone(), &compute, settings)?;
            Ok(Copies { coordinator, allocate, pending: Mutex::default(), identity: Identity::default() })
        });
        Ok(Self { copies: Local::new(made?) })
    }

    /// Starts a copy of bytes, or of any object with a buffer, to memory of the device.
    fn upload_async(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<BlitUpload> {
        let copies = self.copies.get()?;
        let bytes = PyMemoryView::from(data)?.call_method1("cast", ("B",))?;
        let bytes = PyBuffer::<u8>::get(&bytes)?.to_vec(py)?;
        if bytes.is_empty() {
            return Err(PyValueError::new_err("data is empty; there is nothing to upload"));
        }
        let begun = run(py, || {
            let memory = copies.allocate.allocate(bytes.len() as u64, Storage::Private, "upload")?;
            let fill = move |to: &mut [u8]| {
                to.copy_from_slice(&bytes);
                Ok(())
            };
            let ticket = copies.coordinator.upload(&memory, Box::new(fill))?;
            copies.remember(&ticket);
            Ok((memory, ticket))
        });
        let (memory, ticket) = begun?;
        let of = copies.identity.clone();
        let buffer = Py::new(py, DeviceBuffer { memory: Local::new(Arc::new(memory)), of: of.clone() })?;
        Ok(BlitUpload { ticket: Local::new(ticket), of, buffer })
    }

    /// Starts a copy of a buffer to Python's memory.
    fn download_async(&self, py: Python<'_>, buffer: Bound<'_, DeviceBuffer>) -> PyResult<BlitDownload> {
        let copies = self.copies.get()?;
        copies.check(&buffer.get().of, "buffer")?;
        let memory = buffer.get().memory.get()?;
        let bytes = Arc::new(OnceLock::new());
        let taken = bytes.clone();
        let sink = move |from: &[u8]| taken.set(from.to_vec()).map_err(|_| "it came twice".to_owned());
        let begun = run(py, || {
            let ticket = copies.coordinator.download(memory, Box::new(sink))?;
            copies.remember(&ticket);
            Ok(ticket)
        });
        let ticket = Local::new(begun?);
        Ok(BlitDownload { ticket, of: copies.identity.clone(), bytes, from: buffer.unbind() })
    }

    /// Waits for a copy, and returns the upload's buffer or the download's bytes.
    #[pyo3(signature = (op, timeout_ms=None))]
    fn wait_for_completion(
        &self,
        py: Python<'_>,
        op: &Bound<'_, PyAny>,
        timeout_ms: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let op = Operation::of_value(op)?;
        let timeout_ms = timeout_ms.map(timeout).transpose()?;
        self.copies.get()?.check(op.of(), "operation")?;
        if !wait(py, op.ticket()?, timeout_ms.map(Duration::from_millis))? {
            let waited = timeout_ms.unwrap_or_default();
            return Err(PyTimeoutError::new_err(format!("the copy goes on after timeout_ms, {waited} ms; wait again")));
        }
        Ok(match op {
            Operation::Upload(upload) => upload.get().buffer.clone_ref(py).into_any(),
            Operation::Download(download) => {
                let bytes = download.get().bytes.get().map(Vec::as_slice).unwrap_or_default();
                PyBytes::new(py, bytes).into_any().unbind()
            }
        })
    }

    /// Waits for every copy that was started.
    fn wait_for_all(&self, py: Python<'_>) -> PyResult<()> {
        let copies = self.copies.get()?;
        let pending = std::mem::take(&mut *copies.pending());
        for (at, ticket) in pending.iter().enumerate() {
            if let Err(error) = wait(py, ticket, None) {
                // Those behind it are still to be waited for.
                copies.pending().extend_from_slice(&pending[at + 1..]);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Tells whether a copy has ended; raises if it failed.
    fn is_completed(&self, op: &Bound<'_, PyAny>) -> PyResult<bool> {
        let op = Operation::of_value(op)?;
        self.copies.get()?.check(op.of(), "operation")?;
        match op.ticket()?.status() {
            Status::Pending => Ok(false),
            Status::Completed => Ok(true),
            Status::Failed(error) => Err(raised(error)),
        }
    }

    /// Returns the counters as they are now.
    fn get_statistics(&self) -> PyResult<BlitCoordinatorStats> {
        let stats = self.copies.get()?.coordinator.stats();
        Ok(BlitCoordinatorStats {
            total_uploads: stats.total_uploads,
            total_downloads: stats.total_downloads,
            bytes_uploaded: stats.bytes_uploaded,
            bytes_downloaded: stats.bytes_downloaded,
            pending_operations: stats.pending_operations,
            avg_upload_ms: stats.avg_upload_ms,
            avg_download_ms: stats.avg_download_ms,
            overlap_ratio: stats.overlap_ratio,
            sync_wait_count: stats.sync_wait_count,
            avg_sync_wait_ms: stats.avg_sync_wait_ms,
            checksum_failures: stats.checksum_failures,
            fallback_events: stats.fallback_events,
        })
    }

    /// Sets the counters to zero.
    fn reset_statistics(&self) -> PyResult<()> {
        self.copies.get()?.coordinator.reset_statistics();
        Ok(())
    }
}

#[pymethods]
impl DeviceBuffer {
    /// Bytes of the buffer.
    #[getter]
    fn size(&self) -> PyResult<u64> {
        Ok(self.memory.get()?.len())
    }

    fn __repr__(&self) -> PyResult<String> {
        Ok(format!("DeviceBuffer({} bytes)", self.size()?))
    }
}

#[pymethods]
impl BlitUpload {
    /// Buffer that the copy fills.
    #[getter]
    fn buffer(&self, py: Python<'_>) -> Py<DeviceBuffer> {
        self.buffer.clone_ref(py)
    }

    fn __repr__(&self) -> PyResult<String> {
        let size = self.buffer.get().size()?;
        Ok(format!("BlitUpload({size} bytes, {})", state(self.ticket.get()?)))
    }
}

#[pymethods]
impl BlitDownload {
    fn __repr__(&self) -> PyResult<String> {
        let size = self.from.get().size()?;
        Ok(format!("BlitDownload({size} bytes, {})", state(self.ticket.get()?)))
    }
}

#[pymethods]
impl BlitCoordinatorStats {
    fn __repr__(&self) -> String {
        let Self { total_uploads, total_downloads, pending_operations, .. } = self;
        format!(
            "BlitCoordinatorStats(uploads={total_uploads}, downloads={total_downloads}, pending={pending_operations})"
        )
    }
}
