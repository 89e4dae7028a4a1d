//! Choice of a device.

use crate::config::{ArithmeticMode, Engine};
use crate::failure::Failure;
use mlx_serving_cpu::{CpuDevice, CpuOptions};
use mlx_serving_device::{Arithmetic, Device};
use std::sync::Arc;

/// A backend that this build has no code for, or this machine no hardware.
const MISSING: &str = "this build has the CPU backend only; use --device cpu or --device auto";

/// What `--device` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Auto,
    Cpu,
    Metal,
    Vulkan,
}

impl Choice {
    fn parse(name: &str) -> Result<Self, Failure> {
        match name.split_once(':') {
            None => match name {
                "auto" => return Ok(Choice::Auto),
                "cpu" => return Ok(Choice::Cpu),
                "metal" => return Ok(Choice::Metal),
                "vulkan" => return Ok(Choice::Vulkan),
                _ => {}
            },
            Some(("vulkan", index)) if index.parse::<usize>().is_ok() => return Ok(Choice::Vulkan),
            Some(_) => {}
        }
        Err(Failure::usage(format!("--device is {name:?}; it takes auto, metal, vulkan, vulkan:N or cpu")))
    }
}

/// Opens the device that the configuration names.
pub(crate) fn open(engine: &Engine) -> Result<Arc<dyn Device>, Failure> {
    match Choice::parse(&engine.device)? {
        Choice::Auto | Choice::Cpu => cpu(engine),
        Choice::Metal => Err(Failure::failed(format!("no Metal device: {MISSING}"))),
        Choice::Vulkan => Err(Failure::failed(format!("no Vulkan device: {MISSING}"))),
    }
}

fn cpu(engine: &Engine) -> Result<Arc<dyn Device>, Failure> {
    let arithmetic = match engine.arithmetic {
        ArithmeticMode::Fast => Arithmetic::Fast,
        ArithmeticMode::Exact => Arithmetic::Exact,
    };
    let threads = (engine.threads > 0).then_some(engine.threads);
    let device =
        CpuDevice::new(&CpuOptions { threads, arithmetic, ..CpuOptions::default() }).map_err(Failure::failed)?;
    Ok(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_are_known_or_refused() {
        assert_eq!(Choice::parse("vulkan:1").unwrap(), Choice::Vulkan);
        assert_eq!(Choice::parse("auto").unwrap(), Choice::Auto);
        for name in ["", "gpu", "vulkan:", "vulkan:x", "cpu:0"] {
            assert!(matches!(Choice::parse(name), Err(Failure::Usage(_))), "{name}");
        }
    }
}
