use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;

use clap::{Args, Parser};

use super::ssh_config::SshConfig;
use super::ui::Ui;
use super::{Cli, Command, config, network, root_of_environment, template, vm};
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Dirs};
use crate::relay::{self, ENCLOSED_FD, Order, Reach, Stdio};
use crate::vm::{DEFAULT_USER, Site};

/// Run commands as root for the members of the group `virshle`
///
/// `virshle.socket` of systemd starts it for each connection; elsewhere root starts it once, with
/// `--listen`.
#[derive(Debug, Args)]
pub(super) struct Relay {
    /// Listen at /run/virshle/virshle.sock until SIGTERM
    #[arg(long, conflicts_with = "run")]
    listen: bool,
    /// Be the command that a member ordered
    #[arg(long, hide = true)]
    run: bool,
    #[arg(last = true, hide = true, requires = "run")]
    words: Vec<String>,
}

/// Where a verb is run for a member of the group who is not root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// By root's helper: it works on the host's VMs, and opens no file that the caller names.
    Helper,
    /// By the caller, who asks the helper for what it needs.
    Split,
    /// By the caller: it is about the caller's own files, or is not for people.
    Caller,
}

/// Every verb is here by name, so that a new one is not given to members before somebody has thought
/// about what it could do for them as root.
fn place(command: &Command) -> Place {
    match command {
        Command::Vm(command) => match command {
            vm::Command::Create(_)
            | vm::Command::Ls(_)
            | vm::Command::Info(_)
            | vm::Command::Start(_)
            | vm::Command::Autostart(_)
            | vm::Command::Stop(_)
            | vm::Command::Restart(_)
            | vm::Command::Pause(_)
            | vm::Command::Resume(_)
            | vm::Command::Rename(_)
            | vm::Command::Protect(_)
            | vm::Command::Export(_)
            | vm::Command::Delete(_)
            | vm::Command::Console(_)
            | vm::Command::Log(_)
            | vm::Command::History(_)
            | vm::Command::SshTarget(_)
            | vm::Command::SshProxy(_)
            | vm::Command::SshHosts(_)
            | vm::Command::Wait(_)
            | vm::Command::ShowLaunch(_) => Place::Helper,
            vm::Command::Ssh(_) => Place::Split,
        },
        // It is a unit's, not a person's.
        Command::Network(network::Command::Up(up)) if up.is_of_a_unit() => Place::Caller,
        Command::Template(template::Command::Ls(_) | template::Command::Show(_))
        | Command::Network(
            network::Command::Ls(_)
            | network::Command::Info(_)
            | network::Command::Up(_)
            | network::Command::Down(_)
            | network::Command::Repair(_),
        )
        | Command::Apply(_)
        | Command::Events(_)
        | Command::Doctor(_)
        | Command::Repair(_) => Place::Helper,
        Command::SshConfig(_) => Place::Split,
        Command::Config(config::Command::Check(check)) if check.is_of_a_file() => Place::Caller,
        Command::Config(config::Command::Check(_)) => Place::Helper,
        Command::Plan(plan) if plan.is_of_a_file() => Place::Caller,
        Command::Plan(_) => Place::Helper,
        Command::Config(config::Command::Schema)
        | Command::Completions(_)
        | Command::Man(_)
        | Command::Units(_)
        | Command::Relay(_)
        | Command::Supervise(_)
        | Command::Gate(_) => Place::Caller,
    }
}

impl Relay {
    pub(super) fn run(&self, site: &Site) -> Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::usage("only root can run commands as root for others")
                .hint("`sudo systemctl enable --now virshle.socket`, or without systemd `sudo v relay --listen`"));
        }
        if self.listen {
            return relay::listen(&site.dirs);
        }
        let stream = host::connection_on_stdin().or_failed(|| "cannot use the connection".to_owned())?;
        let stream = stream.ok_or_else(|| {
            Error::usage("`v relay` needs a connection on its standard input")
                .hint("`systemctl enable --now virshle.socket`, or without systemd `v relay --listen`")
        })?;
        // A config that is wrong stops the commands that need it, and no others.
        let hypervisors = site.config().ok().and_then(|config| config.node.user);
        let hypervisors = hypervisors.as_deref().unwrap_or(DEFAULT_USER);
        relay::serve(&site.dirs, &stream, hypervisors, |words| allowed(words).map(drop))
    }
}

/// The command line that a member ordered, if members may.
fn allowed(words: &[String]) -> Result<Cli> {
    let line = std::iter::once("v").chain(words.iter().map(String::as_str));
    let cli = Cli::try_parse_from(line)
        .map_err(|error| Error::usage("this is no command line of `v`").source(Error::usage(error.to_string())))?;
    if cli.root.is_some() || cli.session {
        return Err(Error::refused("root's helper works on its own folders only"));
    }
    match place(&cli.command) {
        Place::Helper => Ok(cli),
        Place::Split | Place::Caller => Err(Error::refused("this command is not one that root's helper runs")),
    }
}

/// The command line as it is meant: behind `relay --run` stands the one that a member ordered.
pub(super) fn ordered(cli: Cli) -> Result<Cli> {
    let Command::Relay(Relay { run: true, words, .. }) = &cli.command else { return Ok(cli) };
    let failed = || "cannot run the command for another user".to_owned();
    host::as_a_servant().or_failed(failed)?;
    let mut enclosed = Vec::new();
    host::inherited_file(ENCLOSED_FD).and_then(|mut file| file.read_to_end(&mut enclosed)).or_failed(failed)?;
    let mut inner = Cli { root: cli.root, ..allowed(words)? };
    match &mut inner.command {
        Command::Vm(vm::Command::Create(create)) => create.take_enclosed(&enclosed)?,
        Command::Apply(apply) => apply.take_enclosed(enclosed),
        Command::Doctor(doctor) => doctor.asked_by_member(),
        _ => {}
    }
    Ok(inner)
}

/// The folders of the helper that this caller could ask: of the host, or of a root that is not the
/// caller's to write in.
pub(super) fn helper(root: Option<&Path>) -> Option<Dirs> {
    if rustix::process::geteuid().is_root() {
        return None;
    }
    let Some(root) = root else { return Some(Dirs::of_the_host()) };
    let dirs = Dirs::find(Some(root)).ok()?;
    let there = dirs.state.ancestors().find(|path| path.exists())?;
    rustix::fs::access(there, rustix::fs::Access::WRITE_OK).is_err().then_some(dirs)
}

/// Has root's helper do it, when the caller is one for whom it does: breaks with the exit code.
pub(super) fn elsewhere(cli: Cli, ui: &Ui) -> Result<ControlFlow<u8, Cli>> {
    let place = place(&cli.command);
    if cli.session || place == Place::Caller {
        return Ok(ControlFlow::Continue(cli));
    }
    let root = cli.root.clone().or_else(root_of_environment);
    let Some(dirs) = helper(root.as_deref()) else {
        return Ok(ControlFlow::Continue(cli));
    };
    let path = dirs.helper_socket();
    let stream = match relay::reach(&path) {
        Reach::Connected(stream) => stream,
        Reach::Absent | Reach::Closed => return Ok(ControlFlow::Continue(cli)),
        // It says so itself.
        Reach::Dead(_) if matches!(cli.command, Command::Doctor(_)) => return Ok(ControlFlow::Continue(cli)),
        Reach::Dead(error) => {
            return Err(Error::failed(format!("root's helper does not answer on `{}`", path.display()))
                .source(error)
                .hint(
                    "root restarts it with `systemctl restart virshle.socket`; your own VMs are in `v --session …`",
                ));
        }
    };
    let failed = || "cannot pass on standard input and output".to_owned();
    match cli.command {
        Command::Vm(vm::Command::Ssh(ssh)) => {
            let (code, answer) = ask(stream, ssh.question().to_vec(), Stdio::inherited().or_failed(failed)?)?;
            if code != 0 {
                return Ok(ControlFlow::Break(code));
            }
            let target = serde_json::from_str(&answer).or_failed(|| "root's helper answered oddly".to_owned())?;
            ssh.run_from_afar(target, &Dirs::find(None)?, root.as_deref(), ui)?;
            Ok(ControlFlow::Break(0))
        }
        Command::SshConfig(_) => {
            let question = ["vm", "ssh-hosts"].map(str::to_owned).to_vec();
            let (code, answer) = ask(stream, question, Stdio::inherited().or_failed(failed)?)?;
            if code != 0 {
                return Ok(ControlFlow::Break(code));
            }
            let hosts: Vec<vm::Host> =
                serde_json::from_str(&answer).or_failed(|| "root's helper answered oddly".to_owned())?;
            SshConfig::run_from_afar(&hosts, &Dirs::find(None)?, root.as_deref(), ui)?;
            Ok(ControlFlow::Break(0))
        }
        command => {
            let enclosed = match &command {
                Command::Vm(vm::Command::Create(create)) => create.enclose()?,
                Command::Apply(apply) => apply.enclose()?,
                _ => Vec::new(),
            };
            let stdio = Stdio::inherited().or_failed(failed)?;
            relay::run(stream, &order(words()?), &enclosed, stdio).map(ControlFlow::Break)
        }
    }
}

/// What a command prints, for one who is typing; nothing when the helper cannot be asked.
pub(super) fn answer(dirs: &Dirs, words: &[&str]) -> Option<String> {
    let Reach::Connected(stream) = relay::reach(&dirs.helper_socket()) else { return None };
    let stdio = Stdio::inherited().and_then(Stdio::silent).ok()?;
    let (code, answer) = ask(stream, words.iter().map(|word| (*word).to_owned()).collect(), stdio).ok()?;
    (code == 0).then_some(answer)
}

/// Has the helper run a command, and reads what it prints.
fn ask(stream: std::os::unix::net::UnixStream, words: Vec<String>, stdio: Stdio) -> Result<(u8, String)> {
    let failed = || "cannot read the answer of root's helper".to_owned();
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).or_failed(failed)?;
    let reader = std::thread::spawn(move || std::io::read_to_string(File::from(read)));
    let code = relay::run(stream, &order(words), &[], stdio.stdout(write))?;
    let answer = reader.join().map_err(|_| Error::failed(failed()))?;
    Ok((code, answer.or_failed(failed)?))
}

fn order(words: Vec<String>) -> Order {
    Order::new(
        words,
        relay::passed_on(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        ),
    )
}

/// This command line without `--root`, which the helper knows itself.
fn words() -> Result<Vec<String>> {
    let words = std::env::args_os().skip(1).map(|word| {
        word.into_string().map_err(|word| {
            Error::usage(format!("`{}` is not UTF-8, and root's helper reads nothing else", word.display()))
        })
    });
    Ok(without_root(words.collect::<Result<_>>()?))
}

fn without_root(words: Vec<String>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--" => {
                kept.push(word);
                kept.extend(words.by_ref());
            }
            "--root" => drop(words.next()),
            other if other.starts_with("--root=") => {}
            _ => kept.push(word),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_members_may_order() {
        let rows = [
            ("vm create -t xs -u /etc/shadow --start", true),
            ("vm ls -o json", true),
            ("-v vm delete --force --all", true),
            ("vm console web", true),
            ("vm protect --off web", true),
            ("vm export web", true),
            ("vm ssh-target -- web", true),
            ("vm ssh-proxy -- vm/web", true),
            ("vm ssh-hosts", true),
            ("ssh-config", false),
            ("template show xs", true),
            ("config check", true),
            ("network ls", true),
            ("network up --all", true),
            ("network up --as-unit main", false),
            ("plan --restart --replace web -o json", true),
            ("plan --config /root/secret", false),
            ("apply --yes --adopt web", true),
            ("doctor", true),
            ("vm ssh web", false),
            ("config check /etc/shadow", false),
            ("config schema", false),
            ("man --dir /etc", false),
            ("completions bash", false),
            ("supervise 8f2f8a3e-0000-4000-8000-000000000000", false),
            ("relay --listen", false),
            ("relay", false),
            ("relay --run -- vm ls", false),
            ("--root /tmp/x vm ls", false),
            ("vm ls --root /tmp/x", false),
            ("--session vm ls", false),
            ("--help", false),
            ("vm explode", false),
            ("", false),
        ];
        for (line, may) in rows {
            assert_eq!(allowed(&split(line)).is_ok(), may, "{line}");
        }
    }

    #[test]
    fn the_root_is_not_sent() {
        let rows = [
            ("--root /x vm ls", "vm ls"),
            ("vm ls --root=/x -v", "vm ls -v"),
            ("vm --root /x info -- --root", "vm info -- --root"),
        ];
        for (line, sent) in rows {
            assert_eq!(without_root(split(line)), split(sent), "{line}");
        }
    }
}
