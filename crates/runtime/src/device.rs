//! Devices of this machine: which a name means, and the ones that are open.

pub use crate::choice::Choice;

use crate::caches;
use crate::config::{ArithmeticMode, Engine, InstructionSet};
use crate::error::RuntimeError;
use mlx_serving_cpu::{CpuDevice, CpuOptions, Isa};
use mlx_serving_device::{Arithmetic, Device, DeviceError, DeviceInfo, Result as DeviceResult};
use mlx_serving_metal::MetalOptions;
use mlx_serving_vulkan::{DeviceKind, VulkanDevice, VulkanOptions};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

impl Choice {
    /// The devices to be tried, in order. Software drivers of GPUs are never among those of `auto`: the CPU backend is faster.
    fn candidates(self) -> Vec<Choice> {
        match self {
            Choice::Auto => {
                let gpus = VulkanDevice::available().unwrap_or_else(|error| {
                    tracing::debug!(%error, "no GPU through Vulkan");
                    Vec::new()
                });
                for gpu in gpus.iter().filter(|gpu| gpu.kind != DeviceKind::Software && !gpu.missing.is_empty()) {
                    tracing::warn!(device = gpu.name, missing = gpu.missing.join(", "), "this GPU is not used");
                }
                let usable = gpus.iter().filter(|gpu| {
                    !matches!(gpu.kind, DeviceKind::Software | DeviceKind::Other) && gpu.missing.is_empty()
                });
                let metal = has_metal().then_some(Choice::Metal);
                let vulkan = usable.map(|gpu| Choice::Vulkan(Some(gpu.index)));
                metal.into_iter().chain(vulkan).chain([Choice::Cpu]).collect()
            }
            chosen => vec![chosen],
        }
    }

    /// Opens it, with the threads, the instruction set and the arithmetic of `engine`.
    fn open(self, engine: &Engine) -> Result<Arc<dyn Device>, RuntimeError> {
        let arithmetic = match engine.arithmetic {
            ArithmeticMode::Fast => Arithmetic::Fast,
            ArithmeticMode::Exact => Arithmetic::Exact,
        };
        let cache = caches::pipelines();
        match self {
            Choice::Auto | Choice::Cpu => {
                let threads = (engine.threads > 0).then_some(engine.threads);
                let isa = match engine.cpu_instructions {
                    InstructionSet::Auto => None,
                    InstructionSet::Avx512 => Some(Isa::Avx512),
                    InstructionSet::Avx2 => Some(Isa::Avx2),
                    InstructionSet::Neon => Some(Isa::Neon),
                    InstructionSet::Portable => Some(Isa::Portable),
                };
                let device = CpuDevice::new(&CpuOptions { threads, arithmetic, isa }).map_err(|error| match error {
                    DeviceError::Unsupported(reason) => RuntimeError::NoInstructions(reason),
                    error => error.into(),
                })?;
                Ok(device)
            }
            Choice::Metal => {
                let options = MetalOptions { arithmetic, pipeline_cache: cache, ..MetalOptions::default() };
                mlx_serving_metal::open(&options).map_err(|error| unusable("Metal", error))
            }
            Choice::Vulkan(index) => {
                let options = VulkanOptions { index, arithmetic, pipeline_cache: cache, ..VulkanOptions::default() };
                let device = VulkanDevice::open(&options).map_err(|error| unusable("Vulkan", error))?;
                device.warm();
                Ok(device)
            }
        }
    }
}

/// Opens the device that the configuration names, for one holder alone; of `auto`, the best that opens.
///
/// # Errors
/// There is no such device, or it cannot be used.
pub fn open(engine: &Engine) -> Result<Arc<dyn Device>, RuntimeError> {
    with(engine, |candidate| candidate.open(engine))
}

/// Runs `work` on the device that the configuration names. With `auto`, a device with which the work fails (it does not open, or a model
/// does not fit into its memory) is named, and the next one tried.
fn with<T>(engine: &Engine, mut work: impl FnMut(Choice) -> Result<T, RuntimeError>) -> Result<T, RuntimeError> {
    let choice = Choice::parse(&engine.device).ok_or_else(|| RuntimeError::UnknownDevice(engine.device.clone()))?;
    let mut candidates = choice.candidates().into_iter().peekable();
    loop {
        // `auto` ends with the CPU, and any other choice is one.
        let candidate = candidates.next().unwrap_or(Choice::Cpu);
        match work(candidate) {
            Err(error) if candidates.peek().is_some() && !error.is_usage() => {
                tracing::warn!(device = ?candidate, reason = %error, "trying the next device");
            }
            outcome => return outcome,
        }
    }
}

/// Opens a device of that name.
type Opener = Box<dyn Fn(Choice, &Engine) -> Result<Arc<dyn Device>, RuntimeError> + Send + Sync>;

/// Devices that models are on: one a name, for as long as a model holds it.
///
/// # Sharing
///
/// Engines on one device share its two queues, each of which runs in order whatever it is given. That is sound on every backend, for their
/// queues take submissions from any thread and their memory is each engine's own. It is no good while the blit queue is on: a step may be
/// submitted before the copy that it waits for, and a queue that waits in order holds the steps of the other engines up until then; two
/// engines of which each waits behind the other would wait for ever. With the blit queue, each model therefore has a device of its own.
pub(crate) struct Devices {
    open: Mutex<HashMap<Choice, OpenDevice>>,
    opener: Opener,
}

/// A device in the table, which does not keep it open.
struct OpenDevice {
    device: Weak<dyn Device>,
    lost: Arc<OnceLock<String>>,
}

/// A holder's part in an open device.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub device: Arc<dyn Device>,
    lost: Arc<OnceLock<String>>,
}

impl Lease {
    fn new(device: Arc<dyn Device>) -> Self {
        Self { device, lost: Arc::default() }
    }

    /// Reason for the device's loss, if another holder has come upon it.
    pub(crate) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }
}

impl Default for Devices {
    fn default() -> Self {
        Self::from_opener(Choice::open)
    }
}

impl Devices {
    /// Devices that `open` makes in the place of this machine's.
    pub(crate) fn from_opener(
        open: impl Fn(Choice, &Engine) -> Result<Arc<dyn Device>, RuntimeError> + Send + Sync + 'static,
    ) -> Self {
        Self { open: Mutex::default(), opener: Box::new(open) }
    }

    /// Runs `work` on the device that the configuration names, as [`with`] does: on the one that is open under that name if it is
    /// to be shared, and still answers.
    pub(crate) fn with<T>(
        &self,
        engine: &Engine,
        share: bool,
        mut work: impl FnMut(&Lease) -> Result<T, RuntimeError>,
    ) -> Result<T, RuntimeError> {
        with(engine, |choice| {
            let lease = if share { self.share(choice, engine)? } else { Lease::new((self.opener)(choice, engine)?) };
            work(&lease)
        })
    }

    /// The open device of that name, else a new one: where there is none, or where it is lost or does not answer.
    fn share(&self, choice: Choice, engine: &Engine) -> Result<Lease, RuntimeError> {
        // Held while one is opened: whoever comes meanwhile gets the same.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(OpenDevice { device, lost }) = open.get(&choice)
            && let Some(device) = device.upgrade()
        {
            // Others may compute on it: it is as late as a step may be.
            match answers(device.as_ref(), Duration::from_secs(engine.step_limit_s)) {
                Ok(()) => return Ok(Lease { device, lost: lost.clone() }),
                Err(error) => {
                    tracing::warn!(device = ?choice, %error, "an open device does not answer; it is opened again");
                    if matches!(error, DeviceError::Lost(_)) {
                        // Its other holders learn of it before they compute. That one of them knew it already changes nothing.
                        let _ = lost.set(error.to_string());
                    }
                }
            }
        }
        let lease = Lease::new((self.opener)(choice, engine)?);
        open.insert(choice, OpenDevice { device: Arc::downgrade(&lease.device), lost: lease.lost.clone() });
        Ok(lease)
    }
}

/// Submits nothing, and waits until the device has done it.
fn answers(device: &dyn Device, limit: Duration) -> DeviceResult<()> {
    let queue = device.compute_queue();
    queue.submit(queue.encoder()?.finish()?, &[], None)?.wait(limit)
}

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(open.keys()).finish()
    }
}

/// Memory that may be allocated on a device, bytes; `None` where neither driver nor system tells.
pub fn budget(info: &DeviceInfo) -> Option<u64> {
    (info.memory_budget != u64::MAX).then_some(info.memory_budget)
}

/// A GPU of this machine, or a driver that emulates one, through Vulkan.
#[derive(Debug, Clone)]
pub struct Gpu {
    /// Value of `engine.device` that chooses it.
    pub device: String,
    /// Its own name.
    pub name: String,
    /// Name and version of its driver.
    pub driver: String,
    /// Version of Vulkan that the driver has.
    pub api: String,
    /// Discrete, Integrated, Virtual, Software or Other.
    pub kind: String,
    /// Bytes of its own memory.
    pub memory: u64,
    /// Things that are used of it.
    pub used: Vec<String>,
    /// Things that it lacks; it can be used if nothing.
    pub missing: Vec<String>,
}

/// Every GPU that Vulkan shows, whether it can be used or not.
///
/// # Errors
/// There is no loader or no driver.
pub fn gpus() -> DeviceResult<Vec<Gpu>> {
    let found = VulkanDevice::available()?.into_iter();
    let gpu = found.map(|gpu| Gpu {
        device: format!("vulkan:{}", gpu.index),
        name: gpu.name,
        driver: gpu.driver,
        api: gpu.api,
        kind: format!("{:?}", gpu.kind),
        memory: gpu.memory,
        used: gpu.used,
        missing: gpu.missing,
    });
    Ok(gpu.collect())
}

/// True if this system has a Metal device.
pub fn has_metal() -> bool {
    mlx_serving_metal::available()
}

/// Reason for which there is no such device, and what to do.
fn unusable(backend: &'static str, error: DeviceError) -> RuntimeError {
    let reason = match error {
        DeviceError::Unsupported(why) => why,
        other => other.to_string(),
    };
    RuntimeError::NoDevice { backend, reason }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
