//! What a test stands in: a private root, a private home, and `v`.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;
use tempfile::TempDir;

use crate::fixtures::mount::Mounted;

/// Why a test did not run.
#[derive(Debug)]
pub struct Skip(pub String);

pub type Outcome = Result<(), Skip>;

/// A trial of a test function. A panic fails it, [`Skip`] is counted as skipped, with its reason.
pub fn trial(name: String, test: impl FnOnce() -> Outcome + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || -> Result<Completion, Failed> {
        match test() {
            Ok(()) => Ok(Completion::Completed),
            Err(Skip(reason)) => Ok(Completion::ignored_with(reason)),
        }
    })
}

/// `trials![one, two]`: the named test functions of this module.
#[macro_export]
macro_rules! trials {
    ($($test:ident),* $(,)?) => {
        vec![$($crate::world::trial(
            format!("{}::{}", module_path!().trim_start_matches("it::"), stringify!($test)), $test)),*]
    };
}

pub fn skip<T>(reason: impl Into<String>) -> Result<T, Skip> {
    Err(Skip(reason.into()))
}

pub fn need_root() -> Result<(), Skip> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { skip("needs root") }
}

/// A program on `PATH`, or the reason to skip.
pub fn need_program(name: &str) -> Result<PathBuf, Skip> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .map_or_else(|| skip(format!("`{name}` is not installed")), Ok)
}

/// Notes what real thing a test ran on; the suite prints the list at its end.
pub fn exercised(kind: &str, what: &str) {
    let Some(report) = std::env::var_os("VIRSHLE_TEST_REPORT") else { return };
    let mut file = fs::OpenOptions::new().create(true).append(true).open(report).expect("the report opens");
    writeln!(file, "{kind}: {what}").expect("the report is written");
}

/// The program under test.
pub fn v() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_v"))
}

pub struct World {
    /// Before the folder it lies in.
    mounted: Option<Mounted>,
    dir: TempDir,
    /// The `PATH` of every `v` run here.
    path: std::ffi::OsString,
    user: Option<(u32, u32)>,
    program: PathBuf,
}

impl World {
    pub fn new() -> Self {
        // Sockets lie below it, and their paths are limited: a short name.
        let dir = tempfile::Builder::new().prefix("v-").tempdir_in("/tmp").expect("a temporary folder");
        let world =
            Self { mounted: None, dir, path: std::env::var_os("PATH").unwrap_or_default(), user: None, program: v() };
        fs::create_dir_all(world.home().join(".ssh")).expect("a home");
        fs::create_dir_all(world.root().join("etc/virshle")).expect("a config folder");
        world
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn root(&self) -> PathBuf {
        self.dir().join("r")
    }

    pub fn home(&self) -> PathBuf {
        self.dir().join("home")
    }

    /// `var/lib/virshle`.
    pub fn state(&self) -> PathBuf {
        self.root().join("var/lib/virshle")
    }

    /// Puts the state on a file system of its own, of that size.
    pub fn mount_state(&mut self, size: &str) -> Result<(), Skip> {
        self.mounted = Some(Mounted::tmpfs(&self.state(), size)?);
        Ok(())
    }

    pub fn config_file(&self) -> PathBuf {
        self.root().join("etc/virshle/config.toml")
    }

    pub fn config(&self, text: &str) {
        fs::write(self.config_file(), text).expect("the config is written");
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir().join(name);
        fs::write(&path, content).expect("a file is written");
        path
    }

    /// A raw image of `mib` MiB with data at its beginning and end, and a hole between.
    pub fn image(&self, name: &str, mib: u64) -> PathBuf {
        let path = self.file(name, vec![0xA5; 65536]);
        let file = fs::OpenOptions::new().write(true).open(&path).expect("the image opens");
        file.set_len(mib << 20).expect("the image grows");
        std::os::unix::fs::FileExt::write_all_at(&file, &[0x5A; 4096], (mib << 20) - 4096).expect("its end is written");
        path
    }

    /// A switch with the bridge `vsbr0` and no ports, as `ovs-vsctl` shows it: for tests in which
    /// no VM runs.
    pub fn switch(&mut self) {
        let programs = self.dir().join("bin");
        fs::create_dir(&programs).expect("a folder");
        let script = programs.join("ovs-vsctl");
        let answer = |headings: &str, data: &str| format!("echo '{{\"data\":{data},\"headings\":{headings}}}'");
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in\n--version) echo 'ovs-vsctl (Open vSwitch) 3.1.0';;\n*dpdk_initialized*) {};;\n*'find Bridge'*) {};;\n*'list Bridge'*) {}; {};;\n*) {};;\nesac\n",
            answer(r#"["dpdk_initialized","dpdk_version"]"#, r#"[[true,"DPDK"]]"#),
            answer(r#"["name","datapath_type"]"#, r#"[["vsbr0","netdev"]]"#),
            answer(r#"["_uuid","name","external_ids"]"#, "[]"),
            answer(r#"["name","ports"]"#, r#"[["vsbr0",["set",[]]]]"#),
            answer(r#"["name","external_ids","ports","interfaces"]"#, "[]"),
        );
        fs::write(&script, text).expect("a script");
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it may run");
        self.prepend_path(&programs);
    }

    /// Runs this copy of `v` from now on.
    pub fn use_program(&mut self, program: &Path) {
        self.program = program.to_owned();
    }

    /// Puts a folder before `PATH`.
    pub fn prepend_path(&mut self, dir: &Path) {
        let rest = self.path.clone();
        self.path =
            std::env::join_paths(std::iter::once(dir.to_owned()).chain(std::env::split_paths(&rest))).expect("a PATH");
    }

    pub fn path(&self) -> &OsStr {
        &self.path
    }

    /// Makes `PATH` nothing but a folder.
    pub fn only_path(&mut self, dir: &Path) {
        self.path = dir.as_os_str().to_owned();
    }

    /// Runs every `v` from now on as an ordinary user, who owns this world.
    pub fn become_user(&mut self, uid: u32, gid: u32) {
        let status =
            Command::new("chown").arg("-R").arg(format!("{uid}:{gid}")).arg(self.dir()).status().expect("chown runs");
        assert!(status.success(), "chown");
        self.user = Some((uid, gid));
    }

    pub fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        self.other(&self.program, args)
    }

    /// Another program than `v`, run as `v` is.
    pub fn other(&self, program: impl AsRef<OsStr>, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(program);
        command.args(args).env_clear();
        command.env("PATH", &self.path).env("HOME", self.home()).env("VIRSHLE_ROOT", self.root());
        command.env("USER", "tester").env("LANG", "C.UTF-8").env("TZ", "UTC").stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            std::os::unix::process::CommandExt::uid(&mut command, uid);
            std::os::unix::process::CommandExt::gid(&mut command, gid);
        }
        command
    }

    /// Runs `v`, with a deadline that only a hang can miss.
    pub fn v(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Run {
        run(self.command(args), Duration::from_secs(300))
    }

    /// The rows of `v vm ls -o json`.
    pub fn ls(&self) -> Vec<Value> {
        let run = self.v(["vm", "ls", "-o", "json"]).ok();
        serde_json::from_str(&run.stdout).expect("ls prints JSON")
    }

    pub fn row(&self, name: &str) -> Value {
        let rows = self.ls();
        rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no `{name}` in {rows:#?}")).clone()
    }

    pub fn state_of(&self, name: &str) -> String {
        self.row(name)["state"].as_str().expect("a state").to_owned()
    }

    pub fn info(&self, name: &str) -> Value {
        let run = self.v(["vm", "info", name, "-o", "json"]).ok();
        let rows: Vec<Value> = serde_json::from_str(&run.stdout).expect("info prints JSON");
        rows[0].clone()
    }

    /// Nothing is left of any VM: no row, no folder, no socket.
    pub fn assert_empty(&self) {
        assert_eq!(self.ls(), Vec::<Value>::new(), "no VM is recorded");
        for dir in [self.state().join("vm"), self.root().join("run/virshle/vm")] {
            let left: Vec<_> =
                fs::read_dir(&dir).into_iter().flatten().map(|entry| entry.expect("an entry").path()).collect();
            assert_eq!(left, Vec::<PathBuf>::new(), "nothing is left in {}", dir.display());
        }
    }
}

impl Drop for World {
    /// Ends what the test left running, also when it failed half way.
    fn drop(&mut self) {
        if self.state().join("virshle.sqlite").is_file() {
            let limit = Duration::from_secs(120);
            if run(self.command(["vm", "delete", "--force", "--all"]), limit).code != Some(0) {
                // One that is protected stays, and goes with the folder; it must not run on.
                let _ = run(self.command(["vm", "stop", "--force", "--timeout", "0", "--all"]), limit);
            }
            // Their name servers outlive both the VMs and a test's own network namespace.
            if self.root().join("run/virshle/net").is_dir() {
                let _ = run(self.command(["network", "down", "--all"]), limit);
            }
        }
    }
}

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

pub fn run(mut command: Command, deadline: Duration) -> Run {
    let started = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let (mut out, mut err) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let collect = |pipe: &mut dyn std::io::Read| {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("the pipe is read");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let stdout = std::thread::spawn(move || collect(&mut out));
    let stderr = std::thread::spawn(move || collect(&mut err));
    let status = loop {
        if let Some(status) = child.try_wait().expect("the program is waited for") {
            break status;
        }
        if started.elapsed() > deadline {
            child.kill().expect("it is killed");
            panic!("{command:?} hangs: not done after {deadline:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let took = started.elapsed();
    Run {
        code: status.code(),
        stdout: stdout.join().expect("stdout is read"),
        stderr: stderr.join().expect("stderr is read"),
        took,
    }
}

impl Run {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// It failed with this exit code, and every one of `words` is in what it said.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing in:\n{}", self.stderr);
        }
        self
    }
}

/// Polls until `condition` holds; fails the test at the deadline.
#[track_caller]
pub fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
