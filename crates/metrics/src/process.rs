//! The metrics that Prometheus' own clients have of every process, where the system has `/proc`.

use crate::Labeled;
use std::fs::read_to_string;

/// Clock ticks a second in `/proc`: part of Linux's interface to programs.
const TICKS: f64 = 100.0;

/// Adds this process's memory, processor time, descriptors and start. What the system does not tell is absent.
pub fn process(to: &mut Labeled<'_>) {
    let stat = read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some(seconds) = cpu_seconds(&stat) {
        to.counter("process_cpu_seconds", "Processor time of this process, user and system, seconds.", seconds);
    }
    if let Some(bytes) = read_to_string("/proc/self/status").ok().and_then(|text| kibibytes(&text, "VmRSS:")) {
        to.gauge("process_resident_memory_bytes", "Memory of this process that is resident, bytes.", bytes);
    }
    let boot = read_to_string("/proc/stat").unwrap_or_default();
    if let Some(seconds) = start_seconds(&stat, &boot) {
        to.gauge("process_start_time_seconds", "Start of this process, seconds since 1970.", seconds);
    }
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        // One of them is that of this look.
        let open = descriptors.count().saturating_sub(1);
        to.gauge("process_open_fds", "Descriptors that are open.", open);
    }
    if let Some(limit) = read_to_string("/proc/self/limits").ok().and_then(|text| max_descriptors(&text)) {
        to.gauge("process_max_fds", "Descriptors that may be open.", limit);
    }
}

/// A field of `/proc/self/stat` by its number in proc(5), from 3; what stands before is the command, which may hold anything.
fn field(stat: &str, number: usize) -> Option<f64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) / TICKS)
}

fn start_seconds(stat: &str, boot: &str) -> Option<f64> {
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + field(stat, 22)? / TICKS)
}

fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

fn max_descriptors(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_tables() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 6 0 12345 1000 10";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(start_seconds(stat, "cpu 1\nbtime 1000\n"), Some(1123.45));
        assert_eq!(kibibytes("VmHWM:\t 9 kB\nVmRSS:\t 7 kB\n", "VmRSS:"), Some(7168));
        assert_eq!(
            max_descriptors("Max open files            1024                 20000                files\n"),
            Some(1024)
        );
        for broken in ["", "7 (a", "7 (a) S"] {
            assert_eq!((cpu_seconds(broken), start_seconds(broken, "btime 1")), (None, None));
        }
        assert_eq!((kibibytes("VmRSS: x kB", "VmRSS:"), max_descriptors("Max open files unlimited")), (None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells_all_of_it() {
        let mut families = crate::Families::default();
        process(&mut families.labeled(&[]));
        let text = families.write(crate::Format::Prometheus).unwrap();
        for name in ["cpu_seconds_total", "resident_memory_bytes", "start_time_seconds", "open_fds", "max_fds"]
            .map(|n| format!("\nprocess_{n} "))
        {
            assert!(text.contains(&name), "{name} is not in {text}");
        }
    }
}
