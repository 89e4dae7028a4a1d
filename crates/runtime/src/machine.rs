//! Description of this machine, for records; memory of it that this process has used.

pub use mlx_serving_cpu::{HostMemory, host_memory};

use serde_json::{Value, json};

/// Processor, cores, memory and system, as the system tells them; null where it does not.
pub fn describe() -> Value {
    let field = |file: &str, key: &str| {
        let text = std::fs::read_to_string(file).ok()?;
        let line = text.lines().find(|l| l.starts_with(key))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    json!({
        "cpu": field("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "memory": field("/proc/meminfo", "MemTotal"),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
    })
}

/// The process's largest resident size so far, bytes.
pub fn peak_memory() -> Option<u64> {
    status_kib("VmHWM:")
}

/// The process's resident size now, bytes.
pub fn resident_memory() -> Option<u64> {
    status_kib("VmRSS:")
}

fn status_kib(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|l| l.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
