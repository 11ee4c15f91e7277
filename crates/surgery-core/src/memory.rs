//! How much memory this process has held.

/// A size that Linux tells of this process.
#[cfg(target_os = "linux")]
fn status_bytes(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The memory that this process holds now, in bytes, where the system tells.
pub fn resident_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        status_bytes("VmRSS:")
    }
    #[cfg(not(target_os = "linux"))]
    {
        None
    }
}

/// The most memory that this process has held at once, in bytes, where the system tells.
pub fn peak_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        status_bytes("VmHWM:")
    }
    #[cfg(all(unix, not(target_os = "linux")))]
    {
        use nix::sys::resource::{UsageWho, getrusage};
        // macOS counts bytes, the other systems KiB.
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
    #[cfg(unix)]
    #[test]
    fn the_peak_covers_what_was_held() {
        let held = vec![1u8; 64 << 20];
        assert!(held.iter().map(|&byte| u64::from(byte)).sum::<u64>() == 64 << 20);
        assert!(super::peak_bytes().unwrap() >= 64 << 20);
    }
}
