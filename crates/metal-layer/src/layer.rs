use crate::allocate::Allocate;
use crate::allocate::caching::CachingAllocator;
use crate::allocate::pool::MemoryPool;
use crate::config::{FallbackPolicy, MetalOptimizations};
use crate::error::MetalLayerError;
use crate::observe::intervals::Intervals;
use crate::observe::metrics::LayerMetrics;
use crate::observe::stats::{DeviceStats, LayerStats, Switched};
use crate::observe::utilization::Utilization;
use crate::submit::Submit;
use crate::submit::ring::CommandBufferRing;
use crate::submit::single::SingleSubmission;
use crate::transfer::Transfer;
use crate::transfer::blit::BlitCoordinator;
use crate::transfer::inline::InlineTransfer;
use crate::wiring::Wiring;
use mlx_serving_device::{Device, Result};
use std::sync::Arc;

/// An engine's way to allocate, copy and submit. Its holder does not know which implementations it has.
#[derive(Debug)]
pub struct MetalLayer {
    /// Device memory.
    pub allocate: Arc<dyn Allocate>,
    /// Copies between host and device.
    pub transfer: Arc<dyn Transfer>,
    /// Submissions to the compute queue.
    pub submit: Box<dyn Submit>,
    device: Arc<dyn Device>,
    switches: Switches,
    metrics: Option<LayerMetrics>,
    intervals: Intervals,
    utilization: Utilization,
}

/// Outcome of each optimization's start.
#[derive(Debug)]
struct Switches {
    memory_pool: Switch,
    blit_queue: Switch,
    command_buffer_ring: Switch,
}

#[derive(Debug)]
enum Switch {
    Off,
    On,
    /// Wanted and not started, for the reason given.
    Failed(String),
}

impl Switch {
    /// Makes the optimized implementation if it is wanted, else, or if it fails and may fall back, the plain one.
    fn start<T>(
        name: &'static str,
        wanted: bool,
        policy: FallbackPolicy,
        optimized: impl FnOnce() -> Result<T>,
        plain: impl FnOnce() -> T,
    ) -> Result<(T, Switch), MetalLayerError> {
        if !wanted {
            return Ok((plain(), Switch::Off));
        }
        match optimized() {
            Ok(made) => Ok((made, Switch::On)),
            Err(source) if policy.graceful => {
                if policy.log {
                    tracing::warn!(optimization = name, reason = %source, "an optimization could not start and is off");
                }
                Ok((plain(), Switch::Failed(source.to_string())))
            }
            Err(source) => Err(MetalLayerError::Optimization { name, source }),
        }
    }

    /// Entry of the optimization in the statistics. `fallen_back`: why it no longer runs.
    fn show<T>(&self, stats: T, fallen_back: Option<String>) -> Switched<T> {
        match (self, fallen_back) {
            (Switch::Off, _) => Switched::off(None),
            (Switch::Failed(reason), _) => Switched::off(Some(reason.clone())),
            (Switch::On, Some(reason)) => Switched::fell_back(reason, stats),
            (Switch::On, None) => Switched::on(stats),
        }
    }
}

impl MetalLayer {
    /// The optimizations that `config` switches on, and the baselines of the others.
    ///
    /// # Errors
    /// An optimization that does not start where `graceful_fallback` is off; a device that makes no timeline.
    pub fn new(device: Arc<dyn Device>, config: &MetalOptimizations) -> Result<Self, MetalLayerError> {
        Self::build(device, config, CachingAllocator::new)
    }

    /// The baselines, with every allocation made on the device: what caching and pooling are compared with.
    pub fn direct(device: Arc<dyn Device>) -> Result<Self, MetalLayerError> {
        Self::build(device, &MetalOptimizations::default(), CachingAllocator::direct)
    }

    fn build(
        device: Arc<dyn Device>,
        config: &MetalOptimizations,
        plain_allocator: fn(&Wiring) -> CachingAllocator,
    ) -> Result<Self, MetalLayerError> {
        let policy = config.fallback_policy();
        let wiring = Wiring { policy, ..Wiring::new(device.clone()) };
        let compute = wiring.frontier.track(device.new_timeline()?);

        let caching = || Arc::new(plain_allocator(&wiring)) as Arc<dyn Allocate>;
        let wanted = config.enabled && config.memory_pool.enabled;
        let pool = || Ok(Arc::new(MemoryPool::new(&wiring, &config.memory_pool)?) as Arc<dyn Allocate>);
        let (allocate, memory_pool) = Switch::start("memory_pool", wanted, policy, pool, caching)?;

        let inline = || Arc::new(InlineTransfer::new(&wiring, allocate.clone(), &compute)) as Arc<dyn Transfer>;
        let wanted = config.enabled && config.blit_queue.enabled;
        let blit = || {
            let blit = BlitCoordinator::new(&wiring, allocate.clone(), &compute, &config.blit_queue)?;
            Ok(Arc::new(blit) as Arc<dyn Transfer>)
        };
        let (transfer, blit_queue) = Switch::start("blit_queue", wanted, policy, blit, inline)?;

        let single = || Box::new(SingleSubmission::new(&wiring, allocate.clone(), &compute)) as Box<dyn Submit>;
        let wanted = config.enabled && config.command_buffer_ring.enabled;
        let ring = || {
            let ring = CommandBufferRing::new(&wiring, allocate.clone(), &compute, &config.command_buffer_ring);
            Ok(Box::new(ring) as Box<dyn Submit>)
        };
        let (submit, command_buffer_ring) = Switch::start("command_buffer_ring", wanted, policy, ring, single)?;

        let utilization = Utilization::new(device.as_ref());
        let (metrics, intervals) = (config.expose_metrics.then_some(wiring.metrics), wiring.intervals);
        let switches = Switches { memory_pool, blit_queue, command_buffer_ring };
        Ok(Self { allocate, transfer, submit, device, switches, metrics, intervals, utilization })
    }

    /// The three baselines.
    pub fn plain(device: Arc<dyn Device>) -> Result<Self, MetalLayerError> {
        Self::new(device, &MetalOptimizations::default())
    }

    /// The optimizations' part of `/metrics`; `None` if the configuration hides it.
    pub fn metrics(&self) -> Option<&LayerMetrics> {
        self.metrics.as_ref()
    }

    /// Times of the last steps, and of the blit queue's last copies.
    pub fn intervals(&self) -> &Intervals {
        &self.intervals
    }

    /// Statistics of the three and of the device.
    pub fn stats(&self) -> LayerStats {
        let info = self.device.info();
        LayerStats {
            memory_pool: self.switches.memory_pool.show(self.allocate.stats(), None),
            blit_queue: self.switches.blit_queue.show(self.transfer.stats(), self.transfer.fallen_back()),
            command_buffer_ring: self.switches.command_buffer_ring.show(self.submit.stats(), self.submit.fallen_back()),
            device: DeviceStats {
                name: info.name.clone(),
                backend: info.backend,
                instructions: info.instructions,
                utilization: self.utilization.now(self.device.as_ref()),
            },
        }
    }
}
