use crate::error::{Error, Result};

/// The memory of this host, in bytes.
pub fn memory_size() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// How many descriptors this process may have open at once.
pub fn descriptor_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Refuses at once what would fail half way for want of descriptors.
pub fn check_descriptors(needed: usize) -> Result<()> {
    let limit = descriptor_limit();
    if limit >= needed {
        return Ok(());
    }
    Err(Error::failed(format!("only {limit} files may be open at once, and {needed} are needed"))
        .hint("raise the limit, as with `ulimit -n 1024`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts() {
        assert!(memory_size().unwrap() > 16 << 20);
        assert!(descriptor_limit() >= 16);
        check_descriptors(16).unwrap();
        assert!(check_descriptors(usize::MAX).unwrap_err().message().contains("only "));
    }
}
