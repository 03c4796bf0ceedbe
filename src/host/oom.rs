//! Whether the kernel has killed a process for want of memory. Its end looks like any SIGKILL; the
//! kernel counts such kills for each group of processes, and names the process in its log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// A process, and what the kernel had to say when it was young.
#[derive(Debug)]
pub struct OomWatch {
    pid: i32,
    /// The file with the counter of its group, and how it stood.
    counter: Option<(PathBuf, u64)>,
    /// The kernel's log from then on, where this user may read it.
    log: Option<File>,
}

impl OomWatch {
    /// From now on. A process that is gone, and a kernel that tells nothing, are watched in vain.
    pub fn of(pid: i32) -> Self {
        let counter = counter_of(pid).and_then(|file| {
            let count = oom_kills(&fs::read_to_string(&file).ok()?)?;
            Some((file, count))
        });
        Self { pid, counter, log: kernel_log().ok() }
    }

    /// Whether the kernel says so of this process, or of its group since [`OomWatch::of`]. Asked
    /// about a process that was killed.
    pub fn killed(&mut self) -> bool {
        let grown = self.counter.as_ref().is_some_and(|(file, before)| {
            // A group that is gone took its counter along.
            fs::read_to_string(file).ok().and_then(|text| oom_kills(&text)).is_some_and(|now| now > *before)
        });
        grown || self.log.as_mut().is_some_and(|log| records(log).iter().any(|record| names(record, self.pid)))
    }
}

/// The file that counts the kills in the memory group of a process.
fn counter_of(pid: i32) -> Option<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    candidates(&groups, &mounts).into_iter().find(|file| file.is_file())
}

/// Where the counter may be: the first that is there counts.
fn candidates(groups: &str, mounts: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        // `4:memory:/a/b` of version 1, `0::/a/b` of version 2. A path may hold colons.
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let (is_mount, names): (fn(&Mount<'_>) -> bool, &[&str]) = if controllers.is_empty() {
            // The local one leaves out the groups below, which are other VMs' perhaps.
            (|mount| mount.kind == "cgroup2", &["memory.events.local", "memory.events"])
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (
                |mount| mount.kind == "cgroup" && mount.options.split(',').any(|option| option == "memory"),
                &["memory.oom_control"],
            )
        } else {
            continue;
        };
        for mount in mounts.lines().filter_map(Mount::parse).filter(is_mount) {
            // What is mounted may be a part of the tree: a container's.
            let Ok(below) = Path::new(path).strip_prefix(mount.root) else { continue };
            files.extend(names.iter().map(|name| Path::new(mount.point).join(below).join(name)));
        }
    }
    files
}

/// A line of `/proc/<pid>/mountinfo`.
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut kind = kind.split(' ');
        Some(Self { root: place.next()?, point: place.next()?, kind: kind.next()?, options: kind.nth(1)? })
    }
}

/// The number behind `oom_kill`, which both versions write.
fn oom_kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// The log from its end on: what is read later was written later.
fn kernel_log() -> io::Result<File> {
    let mut log =
        OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open("/dev/kmsg")?;
    log.seek(SeekFrom::End(0))?;
    Ok(log)
}

/// What was written since: each read gives one record.
fn records(log: &mut File) -> Vec<String> {
    // More than the kernel keeps; a log that is written as fast as it is read must have an end too.
    const MOST: usize = 100_000;
    let mut records = Vec::new();
    let mut buffer = [0; 8192];
    for _ in 0..MOST {
        match log.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => records.push(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            // The oldest of them were overwritten: what follows are those that are left.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    records
}

/// Whether a record says that this process was killed for want of memory.
fn names(record: &str, pid: i32) -> bool {
    // `6,339,5140900,-;Memory cgroup out of memory: Killed process 1234 (name) total-vm:…`
    let Some((_, message)) = record.split_once(';') else { return false };
    let (says_why, killed) = match message.split_once(": Killed process ") {
        Some((before, after)) => (before.to_ascii_lowercase().contains("out of memory"), after),
        None => return false,
    };
    says_why && killed.split(' ').next().is_some_and(|number| number.parse() == Ok(pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const UNIFIED: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n";
    const CONTAINER: &str =
        "700 690 0:26 /system.slice/docker-1.scope /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n";

    #[test]
    fn where_the_counter_is() {
        let rows: [(&str, &str, &str, &[&str]); 5] = [
            (
                "version 1 beside an empty version 2",
                "5:devices:/\n4:memory:/vm/a:b\n0::/\n",
                HYBRID,
                &[
                    "/sys/fs/cgroup/memory/vm/a:b/memory.oom_control",
                    "/sys/fs/cgroup/unified/memory.events.local",
                    "/sys/fs/cgroup/unified/memory.events",
                ],
            ),
            ("no memory controller", "5:devices:/\n1:name=systemd:/\n", HYBRID, &[]),
            (
                "version 2",
                "0::/system.slice/virshle-vm@1.service\n",
                UNIFIED,
                &[
                    "/sys/fs/cgroup/system.slice/virshle-vm@1.service/memory.events.local",
                    "/sys/fs/cgroup/system.slice/virshle-vm@1.service/memory.events",
                ],
            ),
            (
                "in a container that sees the host's path",
                "0::/system.slice/docker-1.scope/x\n",
                CONTAINER,
                &["/sys/fs/cgroup/x/memory.events.local", "/sys/fs/cgroup/x/memory.events"],
            ),
            ("rubbish", "0:\n\nx", UNIFIED, &[]),
        ];
        for (what, groups, mounts, expected) in rows {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(candidates(groups, mounts), expected, "{what}");
        }
    }

    #[test]
    fn the_count() {
        let rows = [
            ("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", Some(3)),
            ("low 0\nhigh 0\nmax 12\noom 2\noom_kill 2\noom_group_kill 0\n", Some(2)),
            ("oom_kill_disable 0\nunder_oom 0\n", None),
            ("oom_kill many\n", None),
        ];
        for (text, count) in rows {
            assert_eq!(oom_kills(text), count, "{text:?}");
        }
    }

    #[test]
    fn what_the_log_says() {
        let group = "3,2201,1700123456,-;Memory cgroup out of memory: Killed process 4711 (cloud-hyperviso) total-vm:190312kB, anon-rss:50112kB, file-rss:3072kB, shmem-rss:0kB, UID:0 pgtables:196kB oom_score_adj:0\n";
        let host = "3,91,99,-;Out of memory: Killed process 4711 (qemu-system-x86) total-vm:1kB\n SUBSYSTEM=x\n";
        let rows = [
            (group, 4711, true),
            (host, 4711, true),
            (group, 471, false),
            (group, 47110, false),
            ("6,1,2,-;oom_reaper: reaped process 4711 (vmm), now anon-rss:0kB\n", 4711, false),
            ("6,1,2,-;Tasks state: Killed process 4711 (vmm)\n", 4711, false),
            ("rubbish", 4711, false),
        ];
        for (record, pid, expected) in rows {
            assert_eq!(names(record, pid), expected, "{record:?} {pid}");
        }
    }

    /// Whatever this host has, a process that lives is not taken for killed.
    #[test]
    fn a_living_process() {
        let mut watch = OomWatch::of(std::process::id().cast_signed());
        assert!(!watch.killed(), "{watch:?}");
        assert!(!OomWatch::of(-1).killed());
    }
}
