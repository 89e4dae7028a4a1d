//! Processor and memory of the machine, as the system tells them.

use std::fs::read_to_string;
use std::path::Path;

/// Threads that the machine runs at once.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// The processor's name.
pub(crate) fn name() -> String {
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    value_of(&info, "model name").unwrap_or(std::env::consts::ARCH).to_owned()
}

/// Memory of the machine, within the limits of the control groups that this process is in, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMemory {
    /// Memory in total.
    pub total: u64,
    /// Memory still available.
    pub available: u64,
}

/// `None` where the system does not tell.
pub fn host_memory() -> Option<HostMemory> {
    let info = read_to_string("/proc/meminfo").ok()?;
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(within_groups(machine_memory(&info)?, &groups, Path::new("/sys/fs/cgroup")))
}

fn machine_memory(info: &str) -> Option<HostMemory> {
    let value = |key| value_of(info, key).and_then(kibibytes);
    Some(HostMemory { total: value("MemTotal")?, available: value("MemAvailable")? })
}

/// Lowers the machine's memory to what each control group that holds memory allows. `groups` is `/proc/self/cgroup`, `root` where the
/// groups are mounted.
fn within_groups(machine: HostMemory, groups: &str, root: &Path) -> HostMemory {
    let mut memory = machine;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, limit, usage, total) = match controllers {
            "" => (root.to_owned(), "memory.max", "memory.current", ""),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
            }
            _ => continue,
        };
        // A limit of any group above holds too. In a container the path may be the host's, which is not to be seen; the root then is
        // the container's own group.
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let group = root.join(group);
            let number = |file: &str| read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
            let Some(limit) = number(limit) else { continue };
            let stat = read_to_string(group.join("memory.stat")).unwrap_or_default();
            // Cached files, lately read or not, make room when memory is wanted.
            let cached = ["active_file", "inactive_file"].map(|key| stat_value(&stat, &format!("{total}{key}")));
            let used =
                number(usage).unwrap_or(0).saturating_sub(cached.iter().fold(0, |sum, n| sum.saturating_add(*n)));
            memory.total = memory.total.min(limit);
            memory.available = memory.available.min(limit.saturating_sub(used));
        }
    }
    memory
}

/// A value of a control group's `memory.stat`; 0 where it is not there.
fn stat_value(stat: &str, key: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok();
    stat.lines().find_map(value).unwrap_or(0)
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
        assert_eq!(machine_memory(text), Some(HostMemory { total: 24000 * 1024, available: 1234 * 1024 }));
        assert_eq!(machine_memory("MemTotal: 1 kB\n"), None);
        assert_eq!(value_of(text, "MemAvailable").and_then(kibibytes), Some(1234 * 1024));
        assert_eq!(value_of("model name\t: A Processor\n", "model name"), Some("A Processor"));
        assert_eq!(value_of(text, "SwapFree"), None);
        assert_eq!(kibibytes("12 MB"), None);
    }

    #[test]
    fn limits_of_control_groups_count_up_to_the_root() {
        let machine = HostMemory { total: 1000, available: 800 };
        let root = std::env::temp_dir().join(format!("mlx-serving-groups-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let memory = |groups: &str| within_groups(machine, groups, &root);
        assert_eq!(memory("0::/a/b\n"), machine, "no group is mounted");
        write("a/b/memory.max", "max\n");
        assert_eq!(memory("0::/a/b\n"), machine, "a group without a limit");
        write("a/memory.max", "600\n");
        write("a/memory.current", "350\n");
        write("a/memory.stat", "anon 200\ninactive_file 100\nactive_file 50\n");
        assert_eq!(memory("0::/a/b\n"), HostMemory { total: 600, available: 400 });
        assert_eq!(memory("1:cpu:/a\n"), machine);
        // Version 1, by a path that is the host's: the root of the mount is this container's group.
        write("memory/memory.limit_in_bytes", "500\n");
        write("memory/memory.usage_in_bytes", "100\n");
        write("memory/memory.stat", "inactive_file 7\ntotal_inactive_file 30\ntotal_active_file 20\n");
        assert_eq!(memory("3:cpu,memory:/docker/0123\n0::/\n"), HostMemory { total: 500, available: 450 });
        std::fs::remove_dir_all(&root).unwrap();
    }
}
