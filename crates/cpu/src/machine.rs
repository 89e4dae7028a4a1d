//! What the machine says about itself.

use std::fs::read_to_string;

/// Threads that it runs at once.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// The processor's name.
pub(crate) fn name() -> String {
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    value_of(&info, "model name").unwrap_or(std::env::consts::ARCH).to_owned()
}

/// Bytes of memory that may still be used: what is available now, within the limit of the control group.
pub(crate) fn memory() -> u64 {
    let info = read_to_string("/proc/meminfo").unwrap_or_default();
    let available = value_of(&info, "MemAvailable").and_then(kibibytes).unwrap_or(8 << 30);
    let limit = read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    available.min(limit.unwrap_or(u64::MAX))
}

fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, value) = text.lines().filter_map(|line| line.split_once(':')).find(|(k, _)| k.trim() == key)?;
    Some(value.trim())
}

fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_tables() {
        let text = "MemTotal:       24000 kB\nMemAvailable:    1234 kB\n";
        assert_eq!(value_of(text, "MemAvailable").and_then(kibibytes), Some(1234 * 1024));
        assert_eq!(value_of("model name\t: A Processor\n", "model name"), Some("A Processor"));
        assert_eq!(value_of(text, "SwapFree"), None);
        assert_eq!(kibibytes("12 MB"), None);
    }
}
