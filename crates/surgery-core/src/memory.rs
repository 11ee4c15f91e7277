//! Memory that this process uses, and memory that is still available.

use std::fmt;
#[cfg(target_os = "linux")]
use std::path::Path;

/// The limits of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Memory that is free on this machine.
    Machine,
    /// The control group of this process, which is a container's limit.
    Group,
    /// The address space of this process.
    AddressSpace,
    /// The memory of the device.
    Device,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Limit::Machine => "this machine",
            Limit::Group => "the control group of this process (a container's limit)",
            Limit::AddressSpace => "the address space of this process (`ulimit -v`)",
            Limit::Device => "the device",
        })
    }
}

/// Available memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Size in bytes.
    pub bytes: u64,
    /// The limit that it follows from.
    pub limit: Limit,
}

/// The memory that this process can still allocate; `None` if the system does not report it.
pub fn room() -> Option<Room> {
    #[cfg(target_os = "linux")]
    {
        let rooms = [
            (Limit::Machine, available()),
            (
                Limit::Group,
                group_room(Path::new("/sys/fs/cgroup"), &read("/proc/self/cgroup").unwrap_or_default()),
            ),
            (Limit::AddressSpace, address_space()),
        ];
        let known = rooms.into_iter().filter_map(|(limit, bytes)| Some(Room { bytes: bytes?, limit }));
        known.min_by_key(|room| room.bytes)
    }
    #[cfg(not(target_os = "linux"))]
    {
        None
    }
}

/// A size with its unit.
pub fn shown(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 10_000.0 { format!("{mib:.0} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

#[cfg(target_os = "linux")]
fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The number after `field` in a text with lines such as `field: 12 kB`, in the unit of the line.
#[cfg(target_os = "linux")]
fn field(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix([':', ' ']))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The memory that the kernel reports as available without swapping.
#[cfg(target_os = "linux")]
fn available() -> Option<u64> {
    Some(field(&read("/proc/meminfo")?, "MemAvailable")? * 1024)
}

/// The minimum of the memory available in the control group of a process and in its ancestors. `membership` is the
/// process's `/proc/self/cgroup`, `root` the mount point. Cached files count as available.
#[cfg(target_os = "linux")]
fn group_room(root: &Path, membership: &str) -> Option<u64> {
    let mut rooms = Vec::new();
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (folders, [limit, usage], files) = match controllers {
            // Version 2 has one tree, mounted beside those of version 1 if both exist.
            "" => (["", "unified"], ["memory.max", "memory.current"], ["inactive_file", "active_file"]),
            _ if controllers.split(',').any(|controller| controller == "memory") => (
                ["memory", "memory"],
                ["memory.limit_in_bytes", "memory.usage_in_bytes"],
                ["total_inactive_file", "total_active_file"],
            ),
            _ => continue,
        };
        // In a container, the path may be the host's; the container's own group is then the root.
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            for folder in folders.map(|folder| root.join(folder).join(group)) {
                let number = |file: &str| read(folder.join(file))?.trim().parse::<u64>().ok();
                let Some((limit, used)) = number(limit).zip(number(usage)) else { continue };
                let stat = read(folder.join("memory.stat")).unwrap_or_default();
                let cached: u64 = files.iter().filter_map(|name| field(&stat, name)).sum();
                rooms.push(limit.saturating_sub(used.saturating_sub(cached)));
            }
        }
    }
    rooms.into_iter().min()
}

/// Address space reserved for a thread, which it hardly uses: its stack and an arena of glibc's allocator.
#[cfg(target_os = "linux")]
const RESERVED_PER_THREAD: u64 = (2 + 64) << 20;

/// The available address space once all threads have started: one for each processor, one of burn, and this one.
#[cfg(target_os = "linux")]
fn address_space() -> Option<u64> {
    let limits = read("/proc/self/limits")?;
    let limit: u64 = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max address space"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    let status = read("/proc/self/status")?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64 + 2;
    let to_start = threads.saturating_sub(field(&status, "Threads")?);
    Some(limit.saturating_sub(field(&status, "VmSize")? * 1024 + to_start * RESERVED_PER_THREAD))
}

/// A size in the process's `/proc/self/status`.
#[cfg(target_os = "linux")]
fn status_bytes(name: &str) -> Option<u64> {
    Some(field(&read("/proc/self/status")?, name)? * 1024)
}

/// Memory that this process uses now, in bytes, if the system reports it.
pub fn resident_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        status_bytes("VmRSS")
    }
    #[cfg(not(target_os = "linux"))]
    {
        None
    }
}

/// Peak memory of this process in bytes, if the system reports it.
pub fn peak_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        status_bytes("VmHWM")
    }
    #[cfg(all(unix, not(target_os = "linux")))]
    {
        use nix::sys::resource::{UsageWho, getrusage};
        // The unit is bytes on macOS and KiB elsewhere.
        let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
        getrusage(UsageWho::RUSAGE_SELF).ok().map(|usage| usage.max_rss() as u64 * unit)
    }
    #[cfg(not(unix))]
    {
        None
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[test]
    fn the_room_of_a_group_is_the_minimum_over_its_ancestors() {
        use super::group_room;
        let root = std::env::temp_dir().join(format!("surgery-groups-{}", std::process::id()));
        let write = |group: &str, files: &[(&str, &str)]| {
            let folder = root.join(group);
            std::fs::create_dir_all(&folder).unwrap();
            files.iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
        };
        let stat = "anon 500\nfile 200\ninactive_file 30\nactive_file 20\n";
        write("a", &[("memory.max", "1000\n"), ("memory.current", "700\n"), ("memory.stat", stat)]);
        write("a/b", &[("memory.max", "max\n"), ("memory.current", "600\n")]);
        assert_eq!(group_room(&root, "0::/a/b\n"), Some(350), "the 50 cached bytes are available");
        write("a/b", &[("memory.max", "650\n")]);
        assert_eq!(group_room(&root, "0::/a/b\n"), Some(50));
        assert_eq!(group_room(&root, "0::/elsewhere\n1:cpu:/a/b\n"), None);
        let one = |limit| [("memory.limit_in_bytes", limit), ("memory.usage_in_bytes", "400")];
        write("memory", &one("500"));
        write("memory/c", &[("memory.stat", "inactive_file 9\ntotal_inactive_file 70\n")]);
        write("memory/c", &one("9223372036854771712"));
        assert_eq!(group_room(&root, "4:cpu:/\n3:hugetlb,memory:/c\n"), Some(100));
        assert_eq!(group_room(&root, "3:memory:/docker/of-the-host\n"), Some(100));
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_reports_room() {
        let room = super::room().unwrap();
        assert!(room.bytes > 1 << 20, "{room:?}");
    }

    #[cfg(unix)]
    #[test]
    fn the_peak_includes_an_allocation() {
        let allocated = vec![1u8; 64 << 20];
        assert!(allocated.iter().map(|&byte| u64::from(byte)).sum::<u64>() == 64 << 20);
        assert!(super::peak_bytes().unwrap() >= 64 << 20);
    }
}
