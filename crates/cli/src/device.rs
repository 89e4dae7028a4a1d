//! Choice of a device.

use crate::caches;
use crate::config::{ArithmeticMode, Engine};
use crate::failure::Failure;
use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::{Arithmetic, Device, DeviceError, DeviceInfo};
use mlx_serving_metal::MetalOptions;
use mlx_serving_vulkan::{DeviceKind, VulkanDevice, VulkanOptions};
use std::path::PathBuf;
use std::sync::Arc;

/// A device as `--device` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Auto,
    Cpu,
    Metal,
    /// The device of that number, or the first that can be used.
    Vulkan(Option<usize>),
}

impl Choice {
    fn parse(name: &str) -> Result<Self, Failure> {
        match name.split_once(':') {
            None => match name {
                "auto" => return Ok(Choice::Auto),
                "cpu" => return Ok(Choice::Cpu),
                "metal" => return Ok(Choice::Metal),
                "vulkan" => return Ok(Choice::Vulkan(None)),
                _ => {}
            },
            Some(("vulkan", index)) => {
                if let Ok(index) = index.parse() {
                    return Ok(Choice::Vulkan(Some(index)));
                }
            }
            Some(_) => {}
        }
        Err(Failure::usage(format!("--device is {name:?}; it takes auto, metal, vulkan, vulkan:N or cpu")))
    }

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
                let metal = mlx_serving_metal::available().then_some(Choice::Metal);
                let vulkan = usable.map(|gpu| Choice::Vulkan(Some(gpu.index)));
                metal.into_iter().chain(vulkan).chain([Choice::Cpu]).collect()
            }
            chosen => vec![chosen],
        }
    }

    fn open(self, engine: &Engine) -> Result<Arc<dyn Device>, Failure> {
        let arithmetic = match engine.arithmetic {
            ArithmeticMode::Fast => Arithmetic::Fast,
            ArithmeticMode::Exact => Arithmetic::Exact,
        };
        let cache = pipeline_cache();
        match self {
            Choice::Auto | Choice::Cpu => {
                let threads = (engine.threads > 0).then_some(engine.threads);
                let options = CpuOptions { threads, arithmetic, ..CpuOptions::default() };
                Ok(CpuDevice::new(&options).map_err(Failure::failed)?)
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

/// Opens the device that the configuration names; of `auto`, the best that opens.
pub(crate) fn open(engine: &Engine) -> Result<Arc<dyn Device>, Failure> {
    with(engine, |device| Ok(device.clone()))
}

/// Runs `work` on the device that the configuration names. With `auto`, a device that does not open or on which the work fails (a
/// model that does not fit into its memory, say) is named, and the next one tried.
pub(crate) fn with<T>(
    engine: &Engine,
    mut work: impl FnMut(&Arc<dyn Device>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let candidates = Choice::parse(&engine.device)?.candidates();
    let (last, others) = candidates.split_last().expect("auto ends with the CPU, and any other choice is one");
    for candidate in others {
        match candidate.open(engine).and_then(|device| work(&device)) {
            Err(Failure::Failed(reason) | Failure::Weights { message: reason, .. }) => {
                tracing::warn!(device = ?candidate, reason, "trying the next device")
            }
            outcome => return outcome,
        }
    }
    last.open(engine).and_then(|device| work(&device))
}

/// Memory that may be allocated on a device, bytes; `None` where neither driver nor system tells.
pub(crate) fn budget(info: &DeviceInfo) -> Option<u64> {
    (info.memory_budget != u64::MAX).then_some(info.memory_budget)
}

/// Reason for which there is no such device, and what to do.
fn unusable(backend: &str, error: DeviceError) -> Failure {
    let why = match error {
        DeviceError::Unsupported(why) => why,
        other => other.to_string(),
    };
    Failure::failed(format!("no {backend} device: {why}; `mlx-serving doctor` lists what there is"))
}

/// Folder in which drivers keep their compiled kernels from run to run.
fn pipeline_cache() -> Option<PathBuf> {
    let caches = caches::folder(|name| std::env::var_os(name).map(PathBuf::from), std::env::home_dir());
    caches.map(|caches| caches.join("mlx-serving/pipelines"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_are_known_or_refused() {
        assert_eq!(Choice::parse("vulkan:1").unwrap(), Choice::Vulkan(Some(1)));
        assert_eq!(Choice::parse("vulkan").unwrap(), Choice::Vulkan(None));
        assert_eq!(Choice::parse("auto").unwrap(), Choice::Auto);
        for name in ["", "gpu", "vulkan:", "vulkan:x", "vulkan:-1", "cpu:0"] {
            assert!(matches!(Choice::parse(name), Err(Failure::Usage(_))), "{name}");
        }
    }

    #[test]
    fn auto_ends_with_the_cpu_and_a_name_means_itself() {
        assert_eq!(Choice::Auto.candidates().last(), Some(&Choice::Cpu));
        for choice in [Choice::Cpu, Choice::Metal, Choice::Vulkan(None), Choice::Vulkan(Some(3))] {
            assert_eq!(choice.candidates(), [choice]);
        }
    }
}
