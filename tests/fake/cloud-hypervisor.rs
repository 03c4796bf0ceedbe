//! A stand-in for cloud-hypervisor where the real one or `/dev/kvm` is missing: the same command
//! line, REST API, states, error words, events and sockets, and no guest. What the guest would do
//! is read from the marker in the test payload (`tests/fixtures/payload.S`): halt, power off, wait
//! for the button, echo, or crash. A kernel without a marker is a guest that says and does nothing.
//!
//! The driver's contract tests run against both, so what is used of the real one is what is here.
//! To pass for another version, put `<program>.version` beside the program (or a link to it).
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

#[path = "cloud_hypervisor/config.rs"]
mod config;
#[path = "cloud_hypervisor/http.rs"]
mod http;
#[path = "cloud_hypervisor/options.rs"]
mod options;
#[path = "cloud_hypervisor/resize.rs"]
mod resize;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::exit;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};

use config::{Config, Net, VhostMode, open_console, validate};
use http::{http, request};
use options::{api_socket, event_monitor, usage};
use resize::{Resize, ResizeDisk};

/// Where the stand-in's guest listens on its line to the host: it sends back what it gets.
const ECHO: &str = "CONNECT 7\n";
const LINE: &[u8] = b"virshle payload\n";
const PRESSED: &[u8] = b"virshle button\n";
const CTRL_R: u8 = 0x12;
const CTRL_O: u8 = 0x0f;

/// As the real one does for a guest that listens at one port: the others are closed.
fn serve_line(line: &UnixListener) {
    for client in line.incoming().map_while(Result::ok) {
        thread::spawn(move || {
            let mut asked = Vec::new();
            let (mut reader, mut writer) = (client.try_clone().unwrap(), client);
            let mut byte = [0];
            while asked.last() != Some(&b'\n') && reader.read_exact(&mut byte).is_ok() {
                asked.push(byte[0]);
            }
            if asked == ECHO.as_bytes() && writer.write_all(b"OK 1073741824\n").is_ok() {
                let _ = std::io::copy(&mut reader, &mut writer);
            }
        });
    }
}

fn main() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let args: Vec<String> = std::env::args().collect();
    let version = fs::read_to_string(format!("{}.version", args[0])).unwrap_or_else(|_| "53.0.0".to_owned());
    let version = version.trim().to_owned();

    let (mut listener, mut events) = (None, None);
    let mut rest = args[1..].iter();
    while let Some(arg) = rest.next() {
        let mut value = || rest.next().cloned().unwrap_or_else(|| usage(&format!("a value is required for '{arg}'")));
        match arg.as_str() {
            "--version" | "-V" => {
                println!("cloud-hypervisor v{version}\nMigration Protocol Versions: 0");
                return;
            }
            "--api-socket" => listener = Some(api_socket(&value())),
            "--event-monitor" => events = Some(event_monitor(&value())),
            "--seccomp" => drop(value()),
            "-v" | "-vv" => {}
            _ => usage(&format!("unexpected argument '{arg}' found")),
        }
    }
    let Some(listener) = listener else { usage("the following required arguments were not provided: --api-socket") };
    let vmm = Arc::new(Vmm {
        version,
        started: Instant::now(),
        events: Mutex::new(events),
        control: Mutex::new(Control::default()),
        guest: Mutex::new(Guest::default()),
        changed: Condvar::new(),
    });
    vmm.event("vmm", "starting");
    let server = Arc::clone(&vmm);
    thread::spawn(move || server.serve(&listener));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate()).unwrap(), signal(SignalKind::interrupt()).unwrap());
        tokio::select! { _ = term.recv() => {} _ = int.recv() => {} }
    });
    // As with the real one, a call that hangs is waited for.
    let control = vmm.control.lock().unwrap();
    vmm.quit(&control);
}

struct Vmm {
    version: String,
    started: Instant,
    events: Mutex<Option<File>>,
    /// Held for the whole of a call: there is one control loop.
    control: Mutex<Control>,
    guest: Mutex<Guest>,
    changed: Condvar,
}

#[derive(Default)]
struct Control {
    config: Option<Value>,
    console: Option<UnixListener>,
    /// Descriptors that came with `vm.add-net`, and connections of switches.
    kept: Vec<OwnedFd>,
    switches: Vec<UnixStream>,
    /// How often the guest was given memory.
    slots: usize,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Power {
    #[default]
    Off,
    Running,
    Paused,
}

#[derive(Default)]
struct Guest {
    power: Power,
    /// One boot is told from the next, so that an old one's threads end.
    life: u64,
    does: Does,
    client: Option<UnixStream>,
    unread: Vec<u8>,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Does {
    #[default]
    Nothing,
    Halt,
    PowerOff,
    Button,
    Echo,
    Crash,
}

impl Does {
    fn of(kernel: &[u8]) -> Self {
        let markers = [
            ("virshle:halt", Does::Halt),
            ("virshle:poweroff", Does::PowerOff),
            ("virshle:button", Does::Button),
            ("virshle:echo", Does::Echo),
            ("virshle:crash", Does::Crash),
        ];
        let has = |marker: &str| kernel.windows(marker.len()).any(|window| window == marker.as_bytes());
        markers.into_iter().find(|(marker, _)| has(marker)).map_or(Does::Nothing, |(_, does)| does)
    }
}

struct Reply {
    status: u16,
    body: Option<Value>,
}

fn done() -> Reply {
    Reply { status: 204, body: None }
}

fn refused(status: u16, words: &[&str]) -> Reply {
    Reply { status, body: Some(json!(words)) }
}

/// A refusal with the words before it that every handler's have.
fn failed(what: &str, causes: &[&str]) -> Reply {
    let missing = matches!(causes, ["VM config is missing" | "VM is not created"]);
    refused(if missing { 404 } else { 500 }, &[&["Error from API", what], causes].concat())
}

impl Vmm {
    fn event(&self, source: &str, event: &str) {
        let since = self.started.elapsed();
        let timestamp = json!({ "secs": since.as_secs(), "nanos": since.subsec_nanos() });
        let event = json!({ "timestamp": timestamp, "source": source, "event": event, "properties": null });
        if let Some(file) = &mut *self.events.lock().unwrap() {
            let _ = file.write_all(format!("{event:#}\n\n").as_bytes());
        }
    }

    fn quit(&self, control: &MutexGuard<'_, Control>) -> ! {
        if self.guest.lock().unwrap().power != Power::Off {
            self.event("vm", "shutdown");
        }
        if control.config.is_some() {
            self.event("vm", "deleted");
            self.unlink_console(control);
        }
        self.event("vmm", "shutdown");
        exit(0)
    }

    fn unlink_console(&self, control: &Control) {
        let config = control.config.as_ref().and_then(|config| Config::deserialize(config).ok());
        if let (Some(config), true) = (config, control.console.is_some()) {
            let _ = config.serial.socket.map(fs::remove_file);
        }
    }

    fn serve(self: &Arc<Self>, listener: &UnixListener) {
        for connection in listener.incoming().flatten() {
            let vmm = Arc::clone(self);
            thread::spawn(move || vmm.answer(connection));
        }
    }

    fn answer(self: &Arc<Self>, mut connection: UnixStream) {
        while let Ok(Some((line, body, descriptors))) = request(&connection) {
            let mut words = line.split(' ');
            let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            if !matches!(method, "GET" | "PUT" | "PATCH") {
                let body = "{ \"error\": \"Invalid HTTP Method: Unsupported HTTP method.\nAll previous unanswered requests will be dropped.\" }";
                let _ = connection.write_all(http(400, Some(body)).as_bytes());
                return;
            }
            let mut control = self.control.lock().unwrap();
            let reply =
                self.route(&mut control, method, path.strip_prefix("/api/v1/").unwrap_or(""), &body, descriptors);
            let text = reply.body.map(|body| body.to_string());
            let sent = connection.write_all(http(reply.status, text.as_deref()).as_bytes());
            if method == "PUT" && path == "/api/v1/vmm.shutdown" && reply.status == 200 {
                self.quit(&control);
            }
            if sent.is_err() {
                return;
            }
        }
    }

    fn route(
        self: &Arc<Self>,
        control: &mut Control,
        method: &str,
        route: &str,
        body: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Reply {
        let bodyless = body.is_empty();
        match (method, route) {
            ("GET", "vmm.ping") => Reply {
                status: 200,
                body: Some(json!({
                    "build_version": format!("v{}", self.version), "version": self.version,
                    "pid": std::process::id(), "features": ["io_uring", "kvm"],
                })),
            },
            ("GET", "vm.info") => self.info(control),
            ("GET", "vm.counters") => match self.power() {
                Power::Off => failed("The VM info is not available", &["VM is not running"]),
                _ => Reply { status: 200, body: Some(json!({})) },
            },
            ("PUT", "vm.create") if !bodyless => self.create(control, body),
            ("PUT", "vm.add-net") if !bodyless => add_net(control, body, descriptors),
            ("PUT", "vmm.shutdown") if bodyless => Reply { status: 200, body: None },
            ("PUT", "vm.boot") if bodyless => self.boot(control),
            ("PUT", "vm.pause") if bodyless => self.pause(),
            ("PUT", "vm.resume") if bodyless => self.resume(),
            ("PUT", "vm.power-button") if bodyless => self.power_button(),
            ("PUT", "vm.resize") if !bodyless => self.resize(control, body),
            ("PUT", "vm.resize-disk") if !bodyless => self.resize_disk(control, body),
            ("PUT", "vm.shutdown") if bodyless => match self.power() {
                Power::Off => failed("The VM could not shutdown", &["VM is not running"]),
                _ => {
                    self.stop(control);
                    done()
                }
            },
            ("PUT", "vm.delete") if bodyless => {
                if self.power() != Power::Off {
                    self.stop(control);
                }
                if control.config.is_some() {
                    self.unlink_console(control);
                    *control = Control::default();
                    self.event("vm", "deleted");
                }
                done()
            }
            (
                "GET" | "PUT",
                "vmm.ping" | "vm.info" | "vm.counters" | "vm.create" | "vm.add-net" | "vmm.shutdown" | "vm.boot"
                | "vm.pause" | "vm.resume" | "vm.power-button" | "vm.resize" | "vm.resize-disk" | "vm.shutdown"
                | "vm.delete",
            ) => refused(400, &["Bad Request"]),
            _ => refused(404, &["Not Found"]),
        }
    }

    fn power(&self) -> Power {
        self.guest.lock().unwrap().power
    }

    fn info(&self, control: &Control) -> Reply {
        let Some(config) = &control.config else {
            return failed("The VM info is not available", &["VM is not created"]);
        };
        let state = match self.power() {
            Power::Off => "Created",
            Power::Running => "Running",
            Power::Paused => "Paused",
        };
        let size = &config["memory"]["size"];
        let body = json!({ "config": config, "state": state, "memory_actual_size": size, "device_tree": {} });
        Reply { status: 200, body: Some(body) }
    }

    fn create(&self, control: &mut Control, body: &[u8]) -> Reply {
        let parsed = serde_json::from_slice::<Config>(body)
            .and_then(|config| serde_json::from_slice::<Map<String, Value>>(body).map(|fields| (config, fields)));
        let (config, mut fields) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return refused(400, &["Failed to deserialize JSON", &error.to_string()]),
        };
        let what = "The VM could not be created";
        if control.config.is_some() {
            return failed(what, &["VM is already created"]);
        }
        for net in fields.get_mut("net").and_then(Value::as_array_mut).into_iter().flatten() {
            net.as_object_mut().map(|net| net.remove("fds"));
        }
        // The configuration stays even when the console cannot be made.
        control.config = Some(Value::Object(fields));
        match open_console(&config.serial) {
            Ok(console) => {
                control.console = console;
                done()
            }
            Err(error) => {
                failed(what, &["Error creating console devices", "Error creating console device", &error.to_string()])
            }
        }
    }

    fn boot(self: &Arc<Self>, control: &mut Control) -> Reply {
        self.event("vm", "booting");
        let Some(value) = &control.config else { return failed("The VM could not boot", &["VM config is missing"]) };
        let refuse = |causes: &[&str]| failed("The VM could not boot", causes);
        if self.power() != Power::Off {
            return refuse(&["VM is already created"]);
        }
        let Ok(config) = Config::deserialize(value) else { return refuse(&["Failed to validate config"]) };
        if control.console.is_none() {
            match open_console(&config.serial) {
                Ok(console) => control.console = console,
                Err(error) => {
                    let causes =
                        ["Error creating console devices", "Error creating console device", &error.to_string()];
                    return refuse(&causes);
                }
            }
        }
        if let Err(causes) = validate(&config) {
            return refuse(
                &[&["Failed to validate config"], &*causes.iter().map(String::as_str).collect::<Vec<_>>()].concat(),
            );
        }
        for disk in &config.disks {
            let path = disk.path.clone().unwrap_or_default();
            if let Err(error) = File::options().read(true).write(!disk.readonly).open(&path) {
                let op = format!("I/O error (path={} op=open)", path.display());
                return refuse(&["Error from device manager", "Cannot open disk path", &op, &error.to_string()]);
            }
        }
        for net in config.net.iter().filter(|net| net.vhost_user && net.vhost_mode == VhostMode::Server) {
            let socket = net.vhost_socket.clone().unwrap_or_default();
            let connected = UnixListener::bind(&socket).and_then(|listener| listener.accept());
            match connected {
                Ok((switch, _)) => control.switches.push(switch),
                Err(error) => {
                    let what = "Cannot create vhost-user-net device";
                    let error = error.to_string();
                    return refuse(&["Error from device manager", what, "Failed binding vhost-user socket", &error]);
                }
            }
        }
        // Whoever listens there is there already.
        for net in config.net.iter().filter(|net| net.vhost_user && net.vhost_mode == VhostMode::Client) {
            match UnixStream::connect(net.vhost_socket.clone().unwrap_or_default()) {
                Ok(served) => control.switches.push(served),
                Err(error) => {
                    let what = "Cannot create vhost-user-net device";
                    return refuse(&["Error from device manager", what, &error.to_string()]);
                }
            }
        }
        if let Some(vsock) = &config.vsock {
            match UnixListener::bind(&vsock.socket) {
                Ok(line) => drop(thread::spawn(move || serve_line(&line))),
                Err(error) => {
                    let what = "Cannot create virtio-vsock backend";
                    return refuse(&["Error from device manager", what, &error.to_string()]);
                }
            }
        }
        let Some(payload) = &config.payload else { return refuse(&["Failed to validate config"]) };
        let (file, what) = match (&payload.kernel, &payload.firmware) {
            (Some(kernel), _) => (kernel, "Cannot open kernel file"),
            (None, Some(firmware)) => (firmware, "Cannot open firmware file"),
            (None, None) => return refuse(&["Failed to validate config"]),
        };
        let kernel = match fs::read(file) {
            Ok(kernel) => kernel,
            Err(error) => return refuse(&[what, &error.to_string()]),
        };
        let is_kernel = kernel.starts_with(b"\x7fELF") || kernel.get(0x202..0x206) == Some(b"HdrS");
        if payload.kernel.is_some() && !is_kernel {
            return refuse(&["Cannot load the kernel into memory", "Kernel Loader: Invalid bzImage"]);
        }
        if let Some(Err(error)) = payload.initramfs.as_ref().map(File::open) {
            return refuse(&["Cannot open initramfs file", &error.to_string()]);
        }
        self.run(control, Does::of(&kernel));
        self.event("vm", "booted");
        done()
    }

    /// Starts the guest's threads: one for its console, one for what it does by itself.
    fn run(self: &Arc<Self>, control: &Control, does: Does) {
        let life = {
            let mut guest = self.guest.lock().unwrap();
            *guest = Guest { power: Power::Running, life: guest.life + 1, does, ..Guest::default() };
            guest.life
        };
        if let Some(console) = control.console.as_ref().and_then(|console| console.try_clone().ok()) {
            // Who is already waiting gets the guest's first words, even if they are its last.
            console.set_nonblocking(true).unwrap();
            if let Ok((client, _)) = console.accept() {
                self.attach(client, life);
            }
            console.set_nonblocking(false).unwrap();
            let vmm = Arc::clone(self);
            thread::spawn(move || console.incoming().flatten().all(|client| vmm.attach(client, life)));
        }
        if does == Does::Nothing {
            return;
        }
        self.print(LINE);
        if matches!(does, Does::PowerOff | Does::Crash) {
            if does == Does::Crash {
                eprintln!("cloud-hypervisor: <vcpu0> ERROR -- VCPU generated error: VcpuRun(Failed to run vcpu)");
            }
            let vmm = Arc::clone(self);
            thread::spawn(move || {
                let control = vmm.control.lock().unwrap();
                vmm.quit(&control);
            });
        }
    }

    fn print(&self, bytes: &[u8]) {
        let mut guest = self.guest.lock().unwrap();
        match &mut guest.client {
            Some(client) => drop(client.write_all(bytes)),
            None => guest.unread.extend_from_slice(bytes),
        }
    }

    /// One client at a time; a new one puts the old one out and gets what nobody has read.
    fn attach(self: &Arc<Self>, client: UnixStream, life: u64) -> bool {
        let mut guest = self.guest.lock().unwrap();
        if guest.life != life {
            return false;
        }
        if let Some(old) = guest.client.take() {
            let _ = old.shutdown(Shutdown::Both);
        }
        let unread = std::mem::take(&mut guest.unread);
        let _ = (&client).write_all(&unread);
        guest.client = client.try_clone().ok();
        let vmm = Arc::clone(self);
        thread::spawn(move || vmm.receive(client, life));
        true
    }

    fn receive(self: &Arc<Self>, mut client: UnixStream, life: u64) {
        let mut bytes = [0; 64];
        while let Ok(length @ 1..) = client.read(&mut bytes) {
            let mut guest = self.guest.lock().unwrap();
            while guest.power == Power::Paused {
                guest = self.changed.wait(guest).unwrap();
            }
            if guest.life != life {
                return;
            }
            let does = guest.does;
            drop(guest);
            if does != Does::Echo {
                continue;
            }
            if bytes[..length].contains(&CTRL_O) {
                // As pages of the guest would: until the end of the process.
                std::mem::forget(vec![1_u8; 48 << 20]);
            }
            let input = if bytes[..length] == *b"\n" { &b"\r"[..] } else { &bytes[..length] };
            match input.iter().position(|&byte| byte == CTRL_R) {
                None => self.print(input),
                Some(at) => {
                    self.print(&input[..at]);
                    let mut control = self.control.lock().unwrap();
                    return self.reboot(&mut control);
                }
            }
        }
        let mut guest = self.guest.lock().unwrap();
        if guest.life == life {
            guest.client = None;
        }
    }

    fn reboot(self: &Arc<Self>, control: &mut Control) {
        self.event("vm", "rebooting");
        let does = self.guest.lock().unwrap().does;
        self.close_console(control);
        let config = control.config.as_ref().and_then(|config| Config::deserialize(config).ok());
        control.console = config.and_then(|config| open_console(&config.serial).ok().flatten());
        control.slots = 0;
        self.run(control, does);
        self.event("vm", "rebooted");
    }

    fn close_console(&self, control: &mut Control) {
        let mut guest = self.guest.lock().unwrap();
        guest.life += 1;
        guest.power = Power::Off;
        if let Some(client) = guest.client.take() {
            let _ = client.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
        drop(guest);
        self.unlink_console(control);
        control.console = None;
    }

    fn stop(&self, control: &mut Control) {
        self.close_console(control);
        control.switches.clear();
        self.event("vm", "shutdown");
    }

    fn pause(&self) -> Reply {
        let mut guest = self.guest.lock().unwrap();
        if guest.power == Power::Off {
            return failed("The VM could not be paused", &["VM is not running"]);
        }
        self.event("vm", "pausing");
        if guest.power == Power::Paused {
            let causes = [
                "Cannot pause VM",
                "Failed to pause migratable component",
                "Invalid transition: InvalidStateTransition(Paused, Paused)",
            ];
            return failed("The VM could not be paused", &causes);
        }
        guest.power = Power::Paused;
        self.event("vm", "paused");
        done()
    }

    fn resume(&self) -> Reply {
        let mut guest = self.guest.lock().unwrap();
        if guest.power == Power::Off {
            return failed("The VM could not resume", &["VM is not running"]);
        }
        self.event("vm", "resuming");
        if guest.power == Power::Running {
            let causes = [
                "Cannot resume VM",
                "Failed to resume migratable component",
                "Invalid transition: InvalidStateTransition(Running, Running)",
            ];
            return failed("The VM could not resume", &causes);
        }
        guest.power = Power::Running;
        self.changed.notify_all();
        self.event("vm", "resumed");
        done()
    }

    fn power_button(self: &Arc<Self>) -> Reply {
        let guest = self.guest.lock().unwrap();
        if guest.power == Power::Off {
            return failed("Error triggering power button", &["VM is not running"]);
        }
        let (does, life) = (guest.does, guest.life);
        drop(guest);
        if matches!(does, Does::Button | Does::Echo) {
            let vmm = Arc::clone(self);
            thread::spawn(move || vmm.pressed(life));
        }
        done()
    }

    fn resize(self: &Arc<Self>, control: &mut Control, body: &[u8]) -> Reply {
        let what = "The VM could not be resized";
        let resize = match serde_json::from_slice::<Resize>(body) {
            Ok(resize) => resize,
            Err(error) => return refused(400, &["Failed to deserialize JSON", &error.to_string()]),
        };
        let Some(config) = &mut control.config else { return failed(what, &["VM is not created"]) };
        self.event("vm", "resizing");
        match resize.apply(config, &mut control.slots) {
            Ok(new) => {
                self.event("vm", "resized");
                // As the payload does, which takes every word from the hypervisor for its button.
                if new && self.power() != Power::Off { self.power_button() } else { done() }
            }
            Err(causes) => failed(what, &causes.iter().map(String::as_str).collect::<Vec<_>>()),
        }
    }

    fn resize_disk(&self, control: &Control, body: &[u8]) -> Reply {
        let what = "The disk could not be resized";
        let resize = match serde_json::from_slice::<ResizeDisk>(body) {
            Ok(resize) => resize,
            Err(error) => return refused(400, &["Failed to deserialize JSON", &error.to_string()]),
        };
        let Some(config) = &control.config else { return failed(what, &["VM is not created"]) };
        if self.power() == Power::Off {
            return failed(what, &["Failed resizing a disk image"]);
        }
        match resize.apply(config) {
            Ok(()) => done(),
            Err(causes) => failed(what, &causes.iter().map(String::as_str).collect::<Vec<_>>()),
        }
    }

    /// A paused guest acts when it is resumed.
    fn pressed(&self, life: u64) {
        let mut guest = self.guest.lock().unwrap();
        while guest.power == Power::Paused {
            guest = self.changed.wait(guest).unwrap();
        }
        let same = guest.life == life;
        drop(guest);
        if same {
            self.print(PRESSED);
            let control = self.control.lock().unwrap();
            self.quit(&control);
        }
    }
}

fn add_net(control: &mut Control, body: &[u8], descriptors: Vec<OwnedFd>) -> Reply {
    let what = "The network device could not be added to the VM";
    let mut net = match serde_json::from_slice::<Net>(body).and(serde_json::from_slice::<Map<String, Value>>(body)) {
        Ok(net) => net,
        Err(error) => return refused(400, &["Failed to deserialize JSON", &error.to_string()]),
    };
    let Some(config) = &control.config else { return failed(what, &["VM is not created"]) };
    net.remove("fds");
    if !descriptors.is_empty() {
        net.insert("fds".to_owned(), (3..3 + descriptors.len()).collect());
    }
    let mut changed = config.clone();
    match &mut changed["net"] {
        Value::Array(nets) => nets.push(net.into()),
        none => *none = json!([net]),
    }
    let verdict =
        Config::deserialize(&changed).map_err(|error| vec![error.to_string()]).and_then(|config| validate(&config));
    if let Err(causes) = verdict {
        let causes = causes.iter().map(String::as_str);
        return failed(what, &["Failed to validate config"].into_iter().chain(causes).collect::<Vec<_>>());
    }
    control.config = Some(changed);
    control.kept.extend(descriptors);
    done()
}
