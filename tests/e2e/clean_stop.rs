//! A guest that writes while it is stopped: what it was told is on the disk must be on the disk,
//! and the disk must be whole. All is read from the raw disk, without booting it again.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Stage;
use crate::world::{World, eventually, exercised, run};

/// What a guest writes into its journal when its power button is pressed and it shuts down.
pub const ORDERLY: [&str; 2] = ["Power key pressed", "Reached target poweroff.target"];

const READ: Duration = Duration::from_secs(60);

/// Appends numbered lines in the guest, each with `fsync`, and acknowledges each over ssh.
pub struct Writer {
    ssh: Child,
    file: String,
    acknowledged: PathBuf,
}

impl Writer {
    pub fn start(stage: &Stage, name: &str, which: &str) -> Self {
        let file = format!("/var/tmp/lines-{which}");
        let program = format!(
            "import os, time\n\
             f = os.open({file:?}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)\n\
             i = 0\n\
             while True:\n    i += 1\n    os.write(f, b'%d\\n' % i)\n    os.fsync(f)\n    os.write(1, b'%d\\n' % i)\n    time.sleep(0.01)\n"
        );
        let acknowledged = stage.world.dir().join(format!("acknowledged-{which}"));
        let key = stage.key.to_str().expect("a path");
        let mut command = stage.world.command(["vm", "ssh", name, "-i", key, "--", "exec", "python3", "-u", "-"]);
        let input = stage.world.file(&format!("writer-{which}"), program);
        command.stdin(File::open(input).expect("the program")).stderr(Stdio::null());
        command.stdout(File::create(&acknowledged).expect("a file"));
        let writer = Self { ssh: command.spawn().expect("v starts"), file, acknowledged };
        eventually("the guest writes", Duration::from_secs(60), || writer.lines() >= 20);
        writer
    }

    /// How many lines are acknowledged.
    fn lines(&self) -> usize {
        let text = fs::read_to_string(&self.acknowledged).unwrap_or_default();
        text.matches('\n').count()
    }

    /// After the VM has ended.
    pub fn check(mut self, stage: &Stage, name: &str, which: &str) {
        // Its other end is gone.
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
        let count = self.lines();
        let disk = Disk::of(&stage.world, name);
        let text = disk.debugfs(&format!("cat {}", self.file));
        let written: Vec<usize> = text.lines().map(|line| line.parse().expect("a number")).collect();
        assert_eq!(written, (1..=written.len()).collect::<Vec<_>>(), "{which}: the lines are whole and in order");
        assert!(written.len() >= count, "{which}: {count} lines were acknowledged, {} are there", written.len());
        disk.check(which);
        disk.check_journal(stage, which);
        exercised(&format!("acknowledged writes, stopped by {which}"), &format!("{count}, all there, disk clean"));
    }
}

/// The guest's root file system in its raw disk, in the form that e2fsprogs take.
struct Disk(String);

impl Disk {
    fn of(world: &World, name: &str) -> Self {
        let uuid = world.row(name)["uuid"].as_str().expect("a uuid").to_owned();
        let disk = world.state().join("vm").join(uuid).join("os.raw");
        let mut command = Command::new("sfdisk");
        command.arg("--json").arg(&disk);
        let table: serde_json::Value = serde_json::from_str(&run(command, READ).ok().stdout).expect("JSON");
        let partitions = table["partitiontable"]["partitions"].as_array().expect("partitions");
        let root = partitions.iter().find(|partition| partition["name"] == "root").expect("the root partition");
        let offset = root["start"].as_u64().expect("a sector") * 512;
        Self(format!("{}?offset={offset}", disk.display()))
    }

    fn debugfs(&self, request: &str) -> String {
        let mut command = Command::new("debugfs");
        command.args(["-R", request, &self.0]);
        run(command, READ).ok().stdout
    }

    fn check(&self, which: &str) {
        let mut command = Command::new("e2fsck");
        command.args(["-f", "-n", &self.0]);
        let checked = run(command, READ);
        assert_eq!(checked.code, Some(0), "{which}:\n{}{}", checked.stdout, checked.stderr);
        let head = self.debugfs("stats -h");
        let features = head.lines().find(|line| line.starts_with("Filesystem features")).expect("features");
        assert!(!features.contains("needs_recovery"), "{which}: it was unmounted: {features}");
        assert!(head.lines().any(|line| line.starts_with("Filesystem state:") && line.ends_with(" clean")), "{head}");
    }

    fn check_journal(&self, stage: &Stage, which: &str) {
        let dir = stage.world.dir().join(format!("journal-{which}"));
        fs::create_dir(&dir).expect("a folder");
        self.debugfs(&format!("rdump /var/log/journal {}", dir.display()));
        let mut bytes = Vec::new();
        for entry in walk(&dir) {
            bytes.extend(fs::read(entry).expect("a journal"));
        }
        let text = String::from_utf8_lossy(&bytes);
        for words in ORDERLY {
            assert!(text.contains(words), "{which}: {words:?} is not in the journal");
        }
    }
}

fn walk(dir: &std::path::Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
