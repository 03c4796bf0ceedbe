//! A host in a namespace: what is on it, to the last setting, and that nothing of ours is left.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::fixtures::netns::in_private_network;
use crate::world::{Outcome, Skip, World, exercised, need_program, need_root};

/// A network of four lines.
pub const LAN: &str =
    "[[network]]\nname = \"lan\"\ntype = \"bridge\"\nbridge = \"vtest0\"\nsubnet = \"10.44.0.0/24\"\n";

/// Runs `test` on a host of its own, with a way out over `eth0`, and takes down what it leaves up.
pub fn on_a_host(world: &World, test: impl FnOnce() + Send) -> Outcome {
    need_root()?;
    for program in ["ip", "nft", "dnsmasq"] {
        need_program(program)?;
    }
    exercised("networks", "ip, nft and dnsmasq in a namespace");
    in_private_network(|| {
        // Nothing changes by itself, later.
        for which in ["all", "default"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{which}/accept_dad"), "0").expect("a setting");
        }
        ip("link set lo up");
        ip("link add eth0 type veth peer name far0");
        ip("addr add 192.0.2.2/24 dev eth0");
        ip("addr add 2001:db8::2/64 dev eth0 nodad");
        ip("link set eth0 up");
        ip("link set far0 up");
        ip("route add default via 192.0.2.1");
        let _down = TakenDown(world);
        test();
    })
    .map_err(Skip)
}

struct TakenDown<'a>(&'a World);

impl Drop for TakenDown<'_> {
    fn drop(&mut self) {
        if self.0.state().join("virshle.sqlite").is_file() {
            self.0.v(["vm", "delete", "--force", "--all"]);
            self.0.v(["network", "down", "--all"]);
        }
    }
}

pub fn run(program: &str, args: &str) -> String {
    let output = Command::new(program).args(args.split_whitespace()).output().expect("the program runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {args}: {err}");
    out.into_owned()
}

pub fn ip(args: &str) -> String {
    run("ip", args)
}

pub fn ruleset() -> String {
    run("nft", "list ruleset")
}

/// All of the host that a network can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    rules: String,
    links: String,
    settings: String,
}

impl Snapshot {
    /// Without what a new device gets a new number for.
    pub fn without_links(&self) -> Self {
        Self { links: String::new(), ..self.clone() }
    }

    /// The host is now as it was then.
    #[track_caller]
    pub fn still_holds(&self, when: &str) {
        snapshot().is(self, when);
    }

    #[track_caller]
    pub fn is(&self, before: &Self, when: &str) {
        if self == before {
            return;
        }
        let lines = |snapshot: &Self| -> Vec<String> {
            let parts = [&snapshot.rules, &snapshot.links, &snapshot.settings];
            parts.into_iter().flat_map(|part| part.lines().map(str::to_owned)).collect()
        };
        let (was, is) = (lines(before), lines(self));
        let gone: Vec<_> = was.iter().filter(|line| !is.contains(line)).collect();
        let new: Vec<_> = is.iter().filter(|line| !was.contains(line)).collect();
        panic!("{when}: the host is not as it was: gone {gone:#?}, new {new:#?}");
    }
}

pub fn snapshot() -> Snapshot {
    let mut settings = String::new();
    for dir in ["ipv4", "ipv6"] {
        read_below(&Path::new("/proc/sys/net").join(dir), &mut settings);
    }
    let looks = ["link show", "address show", "route show table all", "-6 route show table all"];
    Snapshot { rules: ruleset(), links: looks.map(ip).concat(), settings }
}

fn read_below(dir: &Path, settings: &mut String) {
    let mut entries: Vec<_> =
        fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        // The kernel makes it up when the first server listens, here or anywhere.
        if path.ends_with("tcp_fastopen_key") {
            continue;
        }
        if path.is_dir() {
            read_below(&path, settings);
        } else if let Ok(value) = fs::read_to_string(&path) {
            *settings += &format!("{} = {value}", path.display());
        }
    }
}

impl World {
    /// The row of `v network ls`.
    pub fn network(&self, name: &str) -> Value {
        let run = self.v(["network", "ls", "-o", "json"]).ok();
        let rows: Vec<Value> = serde_json::from_str(&run.stdout).expect("ls prints JSON");
        rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no `{name}` in {rows:#?}")).clone()
    }

    pub fn network_info(&self, name: &str) -> Value {
        let run = self.v(["network", "info", name, "-o", "json"]).ok();
        serde_json::from_str::<Vec<Value>>(&run.stdout).expect("info prints JSON").remove(0)
    }

    /// No process serves a network of this world, and no record is there of one.
    pub fn assert_no_network(&self) {
        let conf = self.root().join("run/virshle/net");
        assert_eq!(servers(&conf), Vec::<i32>::new(), "no name server is left");
        let left: Vec<_> =
            fs::read_dir(&conf).into_iter().flatten().map(|entry| entry.expect("an entry").path()).collect();
        assert_eq!(left, Vec::<std::path::PathBuf>::new(), "no folder is left");
        let rows: Vec<Value> =
            serde_json::from_str(&self.v(["network", "ls", "-o", "json"]).ok().stdout).expect("ls prints JSON");
        assert!(rows.iter().all(|row| row["state"] != "up"), "{rows:#?}");
    }
}

/// Processes that were told to read something below `folder`.
pub fn servers(folder: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains("dnsmasq") && line.contains(&folder.display().to_string()) {
            found.push(pid);
        }
    }
    found
}
