use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use crate::fixtures::guest::guest;
use crate::fixtures::systemd::Host;
use crate::trials;
use crate::world::{Outcome, eventually, exercised, need_program, run};

pub fn trials() -> Vec<Trial> {
    trials![a_guest_that_writes_loses_nothing_when_its_host_goes_down]
}

/// Under emulation on two cores, with other tests beside it.
const BOOT: Duration = Duration::from_secs(400);

/// Writes, makes sure that it is on the disk, and only then says so on the console.
const WRITER: &str = "#cloud-config\nbootcmd:\n- |\n  systemd-run --no-block --unit=writer sh -c \
    'n=0; while :; do n=$((n+1)); echo $n >>/var/written; sync /var/written; echo \"written $n.\" >/dev/ttyS0; sleep 0.1; done'\n";

/// Where the guest's root file system begins on its disk.
const ROOT: u64 = 65 << 20;

/// A real Debian guest, in the middle of its writes when the host is shut down.
fn a_guest_that_writes_loses_nothing_when_its_host_goes_down() -> Outcome {
    for program in ["debugfs", "e2fsck"] {
        need_program(program)?;
    }
    let mut host = Host::new("")?;
    let qemu = host.borrow_qemu()?;
    let guest = guest().unwrap_or_else(|reason| panic!("{reason}"));
    host.show(guest.disk.parent().expect("its folder"), "/guest");
    host.configure(&format!(
        "[node]\nhypervisor = \"qemu\"\naccel = \"tcg\"\n[node.qemu]\nprogram = {qemu:?}\n\
         [[template.vm]]\nname = \"xs\"\nvcpu = 1\nvram = \"512MiB\"\nstop-timeout = 300\n\
         kernel = \"/guest/vmlinuz\"\ninitramfs = \"/guest/initrd\"\ncmdline = '''{}'''\n\
         [[template.vm.disk]]\nname = \"os\"\npath = \"/guest/debian.raw\"\nsize = \"2G\"\n",
        guest.cmdline
    ));
    fs::write(host.path("opt/writer.yaml"), WRITER).expect("user data");
    host.boot();
    host.v(["vm", "create", "-t", "xs", "-n", "web", "-u", "/opt/virshle/writer.yaml"]).ok();
    let began = Instant::now();
    host.v(["vm", "start", "web"]).ok();
    let console = || host.v(["vm", "log", "web"]).stdout;
    eventually("the guest writes", BOOT, || {
        std::thread::sleep(Duration::from_millis(500));
        last_written(&console()) >= 5
    });
    exercised("seconds from start to a guest that writes (TCG)", &began.elapsed().as_secs().to_string());
    let row = host.row("web");
    let folder = host.path(&format!("state/vm/{}", row["uuid"].as_str().expect("a uuid")));
    host.shut_down();
    let row = host.row_when_off("web");
    assert_eq!((&row["state"], &row["last_exit"]["reason"]), (&"stopped".into(), &"stopped".into()));

    let console = String::from_utf8_lossy(&fs::read(folder.join("console.log")).expect("its console")).into_owned();
    let said = last_written(&console);
    let disk = disk(&folder);
    let at = format!("{}?offset={ROOT}", disk.display());
    let mut read = Command::new("debugfs");
    read.args(["-R", "cat /var/written", &at]);
    let written = run(read, Duration::from_secs(60)).ok().stdout;
    let numbers: Vec<u64> = written.lines().map(|line| line.parse().expect("a number")).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "nothing is missing or torn: {written:?}");
    assert!(numbers.len() as u64 >= said, "the guest was told that {said} is on the disk: {}", numbers.len());
    let mut check = Command::new("e2fsck");
    check.args(["-f", "-n", &at]);
    let check = run(check, Duration::from_secs(120));
    assert_eq!(check.code, Some(0), "the file system is whole, and was unmounted: {}{}", check.stdout, check.stderr);
    Ok(())
}

fn last_written(console: &str) -> u64 {
    let numbers = console.split("written ").skip(1).filter_map(|rest| rest.split_once('.')?.0.parse().ok());
    numbers.max().unwrap_or(0)
}

fn disk(folder: &Path) -> std::path::PathBuf {
    let mut files = fs::read_dir(folder).expect("the VM's folder").map(|entry| entry.expect("an entry").path());
    files.find(|path| path.metadata().is_ok_and(|file| file.len() == 2 << 30)).expect("its disk")
}
