use serde::Serialize;
use std::time::Duration;

/// The allocator's counters. `total_acquired` counts every allocation, fallbacks too, so that after all have been released it
/// equals
/// `total_released`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PoolStats {
    /// Allocations handed out.
    pub total_acquired: u64,
    /// Allocations released.
    pub total_released: u64,
    /// Times the heaps ran out: one for each episode.
    pub exhaustion_events: u64,
    /// Allocations that a dedicated buffer served instead.
    pub fallback_events: u64,
    /// Heaps of the configured size.
    pub pool_size: usize,
    /// Heaps of the configured size that have no live allocations.
    pub available_count: usize,
    /// Share of the heaps' bytes in use, without the weights'.
    pub utilization: f64,
    /// Bytes taken from the device.
    pub bytes_reserved: u64,
    /// Bytes of live allocations.
    pub bytes_in_use: u64,
    /// The most bytes of live allocations so far.
    pub peak_bytes_in_use: u64,
    /// 1 − the largest free range of each heap / all free bytes, without the weights' heaps. The ranges are known to an eighth.
    pub fragmentation: f64,
}

/// The transfers' counters.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BlitStats {
    /// Uploads ended.
    pub total_uploads: u64,
    /// Downloads ended.
    pub total_downloads: u64,
    /// Bytes of the uploads that ended.
    pub bytes_uploaded: u64,
    /// Bytes of the downloads that ended.
    pub bytes_downloaded: u64,
    /// Transfers in flight.
    pub pending_operations: usize,
    /// Mean time of an upload.
    pub avg_upload_ms: f64,
    /// Mean time of a download.
    pub avg_download_ms: f64,
    /// Share of the time in which bytes moved during which the compute queue ran ops, from the device's clock and its counter of
    /// busy time.
    pub overlap_ratio: f64,
    /// Times the host waited for room in the staging ring.
    pub sync_wait_count: u64,
    /// Mean of these waits.
    pub avg_sync_wait_ms: f64,
    /// Transfers whose bytes arrived different.
    pub checksum_failures: u64,
    /// Transfers that were made synchronous because the queue could not take them.
    pub fallback_events: u64,
}

impl BlitStats {
    /// Notes an upload.
    pub(crate) fn upload(&mut self, bytes: u64, took: Duration) {
        self.total_uploads += 1;
        self.bytes_uploaded += bytes;
        self.avg_upload_ms += (took.as_secs_f64() * 1e3 - self.avg_upload_ms) / self.total_uploads as f64;
    }

    /// Notes a wait of the host.
    pub(crate) fn sync_wait(&mut self, waited: Duration) {
        self.sync_wait_count += 1;
        self.avg_sync_wait_ms += (waited.as_secs_f64() * 1e3 - self.avg_sync_wait_ms) / self.sync_wait_count as f64;
    }

    /// Notes a download.
    pub(crate) fn download(&mut self, bytes: u64, took: Duration) {
        self.total_downloads += 1;
        self.bytes_downloaded += bytes;
        self.avg_download_ms += (took.as_secs_f64() * 1e3 - self.avg_download_ms) / self.total_downloads as f64;
    }
}

/// The submitter's counters.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RingStats {
    /// Slots.
    pub ring_size: usize,
    /// Slots free now.
    pub available_count: usize,
    /// Slots submitted and not completed.
    pub in_flight_count: usize,
    /// Slots handed out.
    pub total_acquired: u64,
    /// Slots released.
    pub total_released: u64,
    /// Slots submitted; the rest of those handed out were dropped or are being recorded.
    #[serde(skip)]
    pub total_submitted: u64,
    /// Times that the host waited for a slot to complete.
    pub wait_events: u64,
    /// Waits that took too long.
    pub timeout_events: u64,
    /// Mean wait.
    pub avg_wait_time_us: f64,
    /// Longest wait.
    pub max_wait_time_us: f64,
    /// Times that the ring went round.
    pub rotations: u64,
    /// Sequences' rows that were computed ahead and discarded.
    pub discarded_steps: u64,
}

/// State of an optimization: its counters, or only that it is off, with the reason if it fell back.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Switched<T> {
    /// Running.
    On {
        /// Always true.
        enabled: bool,
        /// Counters of the optimization.
        #[serde(flatten)]
        stats: T,
    },
    /// The baseline runs.
    Off {
        /// Always false.
        enabled: bool,
        /// Reason for its fallback, if it was switched on.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Counters of the optimization, if it was switched on: for metrics, which must not lose what led to the fallback.
        #[serde(skip)]
        stats: Option<T>,
    },
}

impl<T> Switched<T> {
    /// An optimization that runs.
    pub fn on(stats: T) -> Self {
        Switched::On { enabled: true, stats }
    }
    /// An optimization that does not run, with the reason if it was switched on.
    pub fn off(reason: Option<String>) -> Self {
        Switched::Off { enabled: false, reason, stats: None }
    }
    /// An optimization that ran and fell back.
    pub fn fell_back(reason: String, stats: T) -> Self {
        Switched::Off { enabled: false, reason: Some(reason), stats: Some(stats) }
    }
    /// Counters of the optimization, if it runs or ran.
    pub fn counters(&self) -> Option<&T> {
        match self {
            Switched::On { stats, .. } => Some(stats),
            Switched::Off { stats, .. } => stats.as_ref(),
        }
    }
}

/// The device's part of the statistics.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceStats {
    /// Name of the device.
    pub name: String,
    /// Backend of the device.
    pub backend: &'static str,
    /// Instruction set of its kernels; null where a driver compiles them.
    pub instructions: Option<&'static str>,
    /// Share of the last seconds in which it ran ops, 0 to 1.
    pub utilization: f64,
}

/// Contents of `GET /v1/metal/stats`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerStats {
    /// Memory pool.
    pub memory_pool: Switched<PoolStats>,
    /// Blit queue.
    pub blit_queue: Switched<BlitStats>,
    /// Command-buffer ring.
    pub command_buffer_ring: Switched<RingStats>,
    /// The device.
    pub device: DeviceStats,
}
