use crate::allocate::Allocate;
use crate::caching_allocator::CachingAllocator;
use crate::frontier::Frontier;
use crate::inline_transfer::InlineTransfer;
use crate::single_submission::SingleSubmission;
use crate::stats::{DeviceStats, LayerStats, Switched};
use crate::submit::Submit;
use crate::transfer::Transfer;
use mlx_serving_device::{Device, Result};
use std::sync::Arc;

/// How an engine allocates, copies and submits. Who holds it does not know which implementations it has.
#[derive(Debug)]
pub struct MetalLayer {
    /// Device memory.
    pub allocate: Arc<dyn Allocate>,
    /// Copies between host and device.
    pub transfer: Arc<dyn Transfer>,
    /// Submissions to the compute queue.
    pub submit: Box<dyn Submit>,
    device: Arc<dyn Device>,
}

impl MetalLayer {
    /// The three baselines.
    pub fn plain(device: Arc<dyn Device>) -> Result<Self> {
        Self::baselines(device, CachingAllocator::new)
    }

    /// The baselines, with every allocation made on the device: what caching and pooling are compared with.
    pub fn direct(device: Arc<dyn Device>) -> Result<Self> {
        Self::baselines(device, CachingAllocator::direct)
    }

    fn baselines(
        device: Arc<dyn Device>,
        allocator: impl FnOnce(Arc<dyn Device>, Frontier) -> CachingAllocator,
    ) -> Result<Self> {
        let frontier = Frontier::default();
        let compute = frontier.lane(device.new_timeline()?);
        let allocate: Arc<dyn Allocate> = Arc::new(allocator(device.clone(), frontier));
        let transfer = Arc::new(InlineTransfer::new(device.clone(), allocate.clone(), compute.clone()));
        let submit = Box::new(SingleSubmission::new(device.clone(), allocate.clone(), compute));
        Ok(Self { allocate, transfer, submit, device })
    }

    /// Statistics of the three and of the device.
    pub fn stats(&self) -> LayerStats {
        let info = self.device.info();
        let now = self.device.now().as_secs_f64();
        let busy = self.device.counters().busy.as_secs_f64();
        LayerStats {
            memory_pool: Switched::off(None),
            blit_queue: Switched::off(None),
            command_buffer_ring: Switched::off(None),
            device: DeviceStats {
                name: info.name.clone(),
                backend: info.backend,
                utilization: if now > 0.0 { busy / now } else { 0.0 },
            },
        }
    }
}
