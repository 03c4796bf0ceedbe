//! For hosts without systemd: what `virshle.socket` does, in a process of ours. Each connection
//! gets a process of its own, so that none can be in another's way.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use super::admit::GROUP;
use super::client::{Reach, reach};
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Child, Dirs, Spawn};

/// Processes at once, of all users together; each user's share is far smaller.
const MOST: usize = 1024;

/// Listens until SIGTERM or Ctrl-C. Commands that run then run on.
pub fn listen(dirs: &Dirs) -> Result<()> {
    let group = host::group(GROUP).ok_or_else(|| {
        Error::failed(format!("there is no group `{GROUP}`")).hint("make it with `groupadd --system virshle`")
    })?;
    let path = dirs.helper_socket();
    let failed = || format!("cannot listen on `{}`", path.display());
    prepare(dirs).or_failed(failed)?;
    match reach(&path) {
        Reach::Connected(_) => {
            return Err(Error::refused(format!("{}: another helper does", failed())).hint("is `virshle.socket` on?"));
        }
        Reach::Absent => {}
        Reach::Closed | Reach::Dead(_) => fs::remove_file(&path).or_failed(failed)?,
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().or_failed(failed)?;
    // By its path, so that connections get the new program once it was replaced.
    let program = std::env::current_exe().or_failed(failed)?;
    let ended = runtime.block_on(accept(dirs, &path, group, &program));
    let _ = fs::remove_file(&path);
    ended.or_failed(failed)
}

/// Lets the members reach the socket: they may pass through the folder, and look at nothing in it.
fn prepare(dirs: &Dirs) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o711).create(&dirs.runtime)?;
    let above = dirs.root().and(dirs.runtime.parent());
    for folder in above.into_iter().chain([dirs.runtime.as_path()]) {
        let mode = fs::metadata(folder)?.permissions().mode();
        fs::set_permissions(folder, Permissions::from_mode(mode & 0o7777 | 0o711))?;
    }
    Ok(())
}

async fn accept(dirs: &Dirs, path: &Path, group: u32, program: &Path) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut ended = signal(SignalKind::child())?;
    // Nobody else's until its group is set.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener?;
    std::os::unix::fs::chown(path, None, Some(group))?;
    fs::set_permissions(path, Permissions::from_mode(0o660))?;
    tracing::info!("listening on `{}`", path.display());

    let mut children: Vec<Child> = Vec::new();
    loop {
        tokio::select! {
            connection = listener.accept() => {
                let started = connection.and_then(|(stream, _)| {
                    if children.len() >= MOST {
                        return Err(io::Error::other("too many connections"));
                    }
                    start(dirs, program, stream.into_std()?)
                });
                match started {
                    Ok(child) => children.push(child),
                    Err(error) => {
                        tracing::warn!(%error, "connection dropped");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
            // Dropped, they leave no zombie.
            _ = ended.recv() => children.retain(|child| matches!(child.try_wait(), Ok(None))),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    children.into_iter().for_each(Child::leave);
    Ok(())
}

fn start(dirs: &Dirs, program: &Path, stream: std::os::unix::net::UnixStream) -> io::Result<Child> {
    stream.set_nonblocking(false)?;
    let mut spawn = Spawn::new(program).keep_env().stdin(stream.into());
    if let Some(root) = dirs.root() {
        spawn = spawn.args(["--root".as_ref(), root.as_os_str()]);
    }
    let log = io::stderr().as_fd().try_clone_to_owned()?;
    spawn.args(["relay"]).log(log.into()).start()
}
