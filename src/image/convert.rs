use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::content::{self, Memo, Stamp};
use super::format::{Format, ImageInfo, inspect};
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Cancel, Lock, LockError, NewFile, Program, ProgramError, Progress};
use crate::spec::Size;

/// An image as disks are cloned from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawImage {
    /// The source itself when it is raw, else a read-only file of the cache.
    pub path: PathBuf,
    /// Whether this call converted it; `false` when it was raw, or in the cache already.
    pub converted: bool,
    /// The disk's size, as a guest sees it.
    pub virtual_size: u64,
}

/// Converting a large image from a slow disk; and waiting for another process that does.
const CONVERSION: Duration = Duration::from_secs(3600);
/// Reading only what an image says about itself.
const LOOK: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(100);

/// The image as a raw file: itself, or its conversion in `cache`, made at the first call.
///
/// Progress is counted in bytes of the image's file, once for reading its content and once for
/// converting it; it is not started when neither is needed.
pub fn raw_image(source: &Path, cache: &Path, cancel: &Cancel, progress: &dyn Progress) -> Result<RawImage> {
    let info = inspect(source)?;
    if info.format == Format::Raw {
        return Ok(RawImage { path: source.to_owned(), converted: false, virtual_size: info.virtual_size });
    }
    let shown = source.display();
    if let Some(backing) = &info.backing {
        return Err(Error::failed(format!("the image `{shown}` builds upon another file, `{backing}`"))
            .hint("make one file of it: `qemu-img convert -O qcow2 FILE whole.qcow2`"));
    }
    host::make_private(cache)?;
    // An absolute path: qemu-img takes `nbd:…` or `json:…` for something else than a file.
    let path = std::path::absolute(source).or_failed(|| format!("cannot use `{shown}`"))?;
    let file = host::open_image(source)?;
    let stamp = Stamp::of(&file).or_failed(|| format!("cannot read `{shown}`"))?;

    let mut memo = Memo::open(cache);
    let known = memo.get(&stamp);
    let started = known.is_none();
    let sha256 = match known {
        Some(sha256) => sha256,
        None => {
            progress.start(stamp.size.saturating_mul(2));
            let sha256 = content::sha256(source, &file, cancel, progress)?;
            same_file(source, &file, &stamp)?;
            // Without its memo the next call only takes longer.
            if let Err(error) = memo.put(&stamp, &sha256) {
                tracing::warn!(%error, cache = %cache.display(), "cannot remember an image's checksum");
            }
            sha256
        }
    };
    let target = cache.join(format!("{sha256}.raw"));
    let virtual_size = info.virtual_size.next_multiple_of(512);
    let ready = RawImage { path: target.clone(), converted: false, virtual_size };
    let already = || {
        if started {
            progress.advance(stamp.size);
        }
        Ok(ready.clone())
    };
    if is_ready(&target, virtual_size) {
        return already();
    }
    let _lock = wait_for_lock(&cache.join(format!("{sha256}.lock")), cancel)?;
    if is_ready(&target, virtual_size) {
        return already();
    }

    let conversion = Conversion { path: &path, info: &info, len: stamp.size, cancel };
    let data = conversion.check()?;
    enough_room(source, cache, data)?;
    if !started {
        progress.start(stamp.size);
    }
    // Of the right name, yet not of the right size: nothing that a conversion leaves.
    match fs::remove_file(&target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::failed(format!("cannot remove `{}`", target.display())).source(error));
        }
        _ => {}
    }
    let failed = || format!("cannot convert the image `{shown}`");
    let new = NewFile::create(&target, 0o600).or_failed(failed)?;
    conversion.convert(&new, data, progress)?;
    same_file(source, &file, &stamp)?;
    let made = new.partial().metadata().or_failed(failed)?;
    if made.len() != virtual_size || made.ino() != new.file().metadata().or_failed(failed)?.ino() {
        return Err(Error::failed(failed())
            .source(io::Error::other(format!("`qemu-img` made {} bytes of {virtual_size}", made.len()))));
    }
    new.file().set_permissions(Permissions::from_mode(0o444)).or_failed(failed)?;
    new.keep().or_failed(failed)?;
    Ok(RawImage { converted: true, ..ready })
}

fn is_ready(target: &Path, size: u64) -> bool {
    target.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == size)
}

/// What was inspected, hashed and converted must have been one file in one state.
fn same_file(source: &Path, file: &File, stamp: &Stamp) -> Result<()> {
    let now = File::open(source).and_then(|again| Ok((Stamp::of(file)?, Stamp::of(&again)?)));
    if now.is_ok_and(|(held, named)| held == *stamp && named == *stamp) {
        return Ok(());
    }
    Err(Error::failed(format!("the image `{}` was changed while it was read", source.display()))
        .hint("try again when nothing writes to it"))
}

fn wait_for_lock(path: &Path, cancel: &Cancel) -> Result<Lock> {
    let deadline = Instant::now() + CONVERSION;
    loop {
        match Lock::try_take(path) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held) if Instant::now() < deadline => {
                cancel.check()?;
                host::pause(TICK);
            }
            Err(error) => {
                return Err(Error::failed(format!("cannot lock `{}`", path.display())).source(error));
            }
        }
    }
}

fn enough_room(source: &Path, cache: &Path, data: u64) -> Result<()> {
    let free = host::free_space(cache).or_failed(|| format!("cannot see how much room `{}` has", cache.display()))?;
    if data <= free {
        return Ok(());
    }
    let (needed, free) = (mebibytes(data), mebibytes(free));
    Err(Error::failed(format!(
        "the image `{}` takes {needed} when it is converted, and `{}` has room for {free}",
        source.display(),
        cache.display()
    ))
    .hint("free some room there, or convert it elsewhere with `qemu-img convert -O raw`"))
}

fn mebibytes(bytes: u64) -> Size {
    Size::from_bytes(bytes.next_multiple_of(Size::MIB))
}

/// One image and the program that reads it. The format is always named, never guessed from what
/// the image holds.
struct Conversion<'a> {
    path: &'a Path,
    info: &'a ImageInfo,
    len: u64,
    cancel: &'a Cancel,
}

/// One line of `qemu-img map`.
#[derive(Debug, Deserialize)]
struct Mapped {
    length: u64,
    data: bool,
    /// Where in the image's file, unless it is compressed.
    offset: Option<u64>,
}

impl Conversion<'_> {
    fn qemu_img(&self, command: &str) -> Program {
        Program::new("qemu-img")
            .arg(command)
            .args(["-f", &self.info.format.to_string()])
            .deadline(LOOK)
            .cancel(self.cancel)
    }

    fn failure(&self, message: &str, error: ProgramError) -> Error {
        let failure = Error::failed(format!("{message} `{}`", self.path.display()));
        match &error {
            ProgramError::Missing { .. } => {
                failure.hint("install it (package `qemu-utils` or `qemu-img`), or use a raw image")
            }
            ProgramError::Interrupted { .. } => return Error::failed("interrupted"),
            ProgramError::Failed { stderr, .. } if stderr.contains("No space left") => {
                failure.hint("free some room in the cache")
            }
            _ => failure.hint("see what `qemu-img check` says about it, or fetch it again"),
        }
        .source(error)
    }

    /// Whether the image is whole, and how many bytes of data it has. `qemu-img convert` itself
    /// reads what was cut off a file as zeros, and succeeds.
    fn check(&self) -> Result<u64> {
        match self.qemu_img("check").arg(self.path).run() {
            Ok(_) => {}
            // 3: clusters that nothing uses; 63: this format has no check.
            Err(ProgramError::Failed { code: Some(3 | 63), .. }) => {}
            Err(error) => return Err(self.failure("cannot use the image", error)),
        }
        if self.info.format == Format::Vhdx {
            // qemu-img keeps no map of it, refuses one that was cut off, and nothing in it is compressed.
            return Ok(self.len);
        }
        let output = self.qemu_img("map").args(["--output", "json"]).arg(self.path).run();
        let output = output.map_err(|error| self.failure("cannot use the image", error))?;
        let map: Vec<Mapped> = serde_json::from_slice(&output.stdout)
            .or_failed(|| format!("`qemu-img map` of `{}` gave an answer that cannot be read", self.path.display()))?;
        let data = map.iter().filter(|mapped| mapped.data);
        if data
            .clone()
            .any(|mapped| mapped.offset.is_some_and(|offset| offset.saturating_add(mapped.length) > self.len))
        {
            return Err(Error::failed(format!(
                "the image `{}` is damaged: a part of its data lies behind the end of the file",
                self.path.display()
            ))
            .hint("fetch it again and compare its checksum"));
        }
        Ok(data.map(|mapped| mapped.length).sum())
    }

    /// Converts into the new file, which qemu-img opens and truncates.
    fn convert(&self, new: &NewFile, data: u64, progress: &dyn Progress) -> Result<()> {
        let program = self
            .qemu_img("convert")
            .args(["-O", "raw", "-S", "4k"])
            .arg(self.path)
            .arg(std::path::absolute(new.partial()).unwrap_or_else(|_| new.partial().to_owned()))
            .deadline(CONVERSION);
        let mut told = 0;
        let mut tell = |share: f64| {
            let reached = ((self.len as f64 * share) as u64).clamp(told, self.len);
            progress.advance(reached - told);
            told = reached;
        };
        let output = std::thread::scope(|scope| {
            let running = scope.spawn(|| program.run());
            while !running.is_finished() {
                host::pause(TICK);
                let written = new.file().metadata().map_or(0, |meta| meta.blocks() * 512);
                tell(written as f64 / data.max(1) as f64);
            }
            running.join()
        });
        match output {
            Ok(Ok(_)) => {
                tell(1.0);
                Ok(())
            }
            Ok(Err(error)) => Err(self.failure("cannot convert the image", error)),
            Err(_) => Err(Error::failed(format!("cannot watch the conversion of `{}`", self.path.display()))),
        }
    }
}
