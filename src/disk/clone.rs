use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::sparse;
use crate::error::{Error, OrFailed, Result};
use crate::host::{self, Cancel, NewFile, Progress};
use crate::spec::Size;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cloned {
    pub method: Method,
    /// What was read and written; nothing for a reflink.
    pub bytes: u64,
    /// The clone's size, as a guest sees it.
    pub size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The clone shares the source's blocks until one of them is written.
    Reflink,
    /// The source's data was copied, its holes are holes.
    Copy,
}

/// Makes `target` a copy of `source`, grown to `size`. The source is only read.
pub fn clone(
    source: &Path,
    target: &Path,
    size: Option<Size>,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<Cloned> {
    let source_file = Source::open(source)?;
    let size = source_file.grown_to(size)?;
    let new = NewFile::create(target, 0o600).map_err(|error| cannot_create(target, error))?;
    let context = || format!("cannot clone `{}` to `{}`", source.display(), target.display());

    let method = match reflink(&source_file.file, new.file()).map_err(|error| io_failure(context(), error))? {
        true => Method::Reflink,
        false => Method::Copy,
    };
    // Before the data: a file that grows as it is written is given room in advance, in its holes too.
    new.file().set_len(size).map_err(|error| io_failure(context(), error))?;
    let mut bytes = 0;
    if method == Method::Copy {
        let extents = sparse::extents(&source_file.file, source_file.size).or_failed(context)?;
        progress.start(sparse::total(&extents));
        sparse::copy(&source_file.file, new.file(), &extents, |step| {
            bytes += step;
            progress.advance(step);
            cancel.check().map_err(Stopped::Cancelled)
        })
        .map_err(|stopped| match stopped {
            Stopped::Cancelled(error) => error.context(context()),
            Stopped::Io(error) => io_failure(context(), error),
        })?;
        source_file.check_unchanged()?;
    }
    cancel.check()?;
    new.keep().map_err(|error| io_failure(context(), error))?;
    Ok(Cloned { method, bytes, size })
}

/// Makes `target` an empty disk, which takes no room until it is written.
pub fn blank(target: &Path, size: Size) -> Result<()> {
    let new = NewFile::create(target, 0o600).map_err(|error| cannot_create(target, error))?;
    let context = || format!("cannot make the blank disk `{}` of {size}", target.display());
    new.file().set_len(size.bytes()).map_err(|error| io_failure(context(), error))?;
    new.keep().map_err(|error| io_failure(context(), error))
}

/// What can still be written to the file system of `dir`.
pub fn free_space(dir: &Path) -> Result<u64> {
    host::free_space(dir).or_failed(|| format!("cannot see how much room is left in `{}`", dir.display()))
}

/// What a clone of `source` into `target_dir` would take: nothing where it can be a reflink, which
/// is tried with a file that has no name, else the source's data without its holes.
pub fn bytes_needed(source: &Path, target_dir: &Path) -> Result<u64> {
    let source_file = Source::open(source)?;
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open(target_dir, flags, Mode::RUSR | Mode::WUSR) {
        Ok(probe) => {
            if matches!(reflink(&source_file.file, &File::from(probe)), Ok(true)) {
                return Ok(0);
            }
        }
        // Every file system that shares blocks has files without a name.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        Err(error) => {
            let message = format!("cannot write in `{}`", target_dir.display());
            return Err(Error::failed(message).source(io::Error::from(error)));
        }
    }
    let extents = sparse::extents(&source_file.file, source_file.size)
        .or_failed(|| format!("cannot read `{}`", source.display()))?;
    Ok(sparse::total(&extents))
}

enum Stopped {
    Cancelled(Error),
    Io(io::Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Stopped::Io(error)
    }
}

/// Shares the source's blocks. `false`: these two files cannot.
fn reflink(source: &File, target: &File) -> io::Result<bool> {
    match rustix::fs::ioctl_ficlone(target, source) {
        Ok(()) => Ok(true),
        // Another file system, one without reflinks, one that forbids it for this file, a filter.
        Err(
            Errno::OPNOTSUPP
            | Errno::NOTTY
            | Errno::XDEV
            | Errno::INVAL
            | Errno::NOSYS
            | Errno::PERM
            | Errno::ACCESS
            | Errno::TXTBSY,
        ) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A plain file with something in it, open for reading.
struct Source<'a> {
    path: &'a Path,
    file: File,
    size: u64,
    modified: (i64, i64),
}

impl<'a> Source<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let file = host::open_image(path)?;
        let meta = file.metadata().or_failed(|| format!("cannot read `{}`", path.display()))?;
        Ok(Self { path, size: meta.len(), modified: (meta.mtime(), meta.mtime_nsec()), file })
    }

    fn grown_to(&self, size: Option<Size>) -> Result<u64> {
        let Some(size) = size else { return Ok(self.size) };
        if size.bytes() >= self.size {
            return Ok(size.bytes());
        }
        let own = Size::from_bytes(self.size);
        Err(Error::usage(format!(
            "the disk's size {size} is smaller than its image `{}`, which has {own}",
            self.path.display()
        ))
        .hint(format!("a disk is never shrunk: ask for {own} or more, or leave `size` out")))
    }

    /// A copy made while somebody wrote is a copy of nothing that ever was.
    fn check_unchanged(&self) -> Result<()> {
        let shown = self.path.display();
        let meta = self.file.metadata().or_failed(|| format!("cannot read `{shown}`"))?;
        if meta.len() == self.size && (meta.mtime(), meta.mtime_nsec()) == self.modified {
            return Ok(());
        }
        Err(Error::failed(format!("the image `{shown}` was changed while it was copied"))
            .hint("try again when nothing writes to it"))
    }
}

fn cannot_create(target: &Path, error: io::Error) -> Error {
    let shown = target.display();
    if error.kind() == io::ErrorKind::AlreadyExists {
        return Error::failed(format!("the disk `{shown}` exists already"));
    }
    io_failure(format!("cannot create the disk `{shown}`"), error)
}

fn io_failure(message: String, error: io::Error) -> Error {
    let failure = Error::failed(message);
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            failure.hint("free some room there (`v vm delete` of what is not needed), or use another folder")
        }
        io::ErrorKind::FileTooLarge => failure.hint("the file system there has no files of that size"),
        _ => failure,
    }
    .source(error)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;
    use std::os::unix::fs::{FileExt, PermissionsExt};
    use std::path::PathBuf;

    use super::*;
    use crate::error::Kind;
    use crate::host::Quiet;

    const MIB: u64 = 1 << 20;

    /// 256 MiB with data at its beginning, in its middle and at its end.
    fn sparse_image(dir: &Path) -> PathBuf {
        let path = dir.join("image.raw");
        let file = File::create(&path).unwrap();
        file.set_len(256 * MIB).unwrap();
        for start in [0, 100 * MIB, 255 * MIB] {
            file.write_all_at(&[0xa5; MIB as usize], start).unwrap();
        }
        path
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn quiet(source: &Path, target: &Path, size: Option<Size>) -> Result<Cloned> {
        clone(source, target, size, &Cancel::default(), &Quiet)
    }

    #[derive(Default)]
    struct Told(RefCell<Vec<u64>>);

    impl Progress for Told {
        fn start(&self, bytes: u64) {
            self.0.borrow_mut().push(bytes);
        }

        fn advance(&self, bytes: u64) {
            self.0.borrow_mut().push(bytes);
        }
    }

    #[test]
    fn a_clone_is_equal_grown_sparse_and_private_and_its_source_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let source = sparse_image(dir.path());
        fs::set_permissions(&source, fs::Permissions::from_mode(0o444)).unwrap();
        let before = source.metadata().unwrap();
        let target = dir.path().join("os.raw");
        let told = Told::default();
        let cloned = clone(&source, &target, Some(Size::mib(300)), &Cancel::default(), &told).unwrap();
        assert_eq!(cloned.size, 300 * MIB);

        let mut content = fs::read(&target).unwrap();
        assert!(content.split_off(256 * MIB as usize).iter().all(|byte| *byte == 0), "what is grown is zeros");
        assert!(content == fs::read(&source).unwrap());
        let meta = target.metadata().unwrap();
        assert!(meta.blocks() * 512 < 8 * MIB, "holes are holes: {} blocks", meta.blocks());
        assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
        let after = source.metadata().unwrap();
        assert_eq!((before.mtime_nsec(), before.mode()), (after.mtime_nsec(), after.mode()));
        assert_eq!(names(dir.path()), ["image.raw", "os.raw"]);
        if cloned.method == Method::Copy {
            let told = told.0.take();
            assert_eq!(told[0], cloned.bytes);
            assert_eq!(told[1..].iter().sum::<u64>(), cloned.bytes);
        }
    }

    #[test]
    fn what_cannot_be_cloned_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let source = sparse_image(dir.path());
        fs::write(at("empty"), "").unwrap();
        fs::create_dir(at("folder")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let before = names(dir.path());
        let rows: [(&Path, Option<Size>, Kind, &str); 6] = [
            (&at("nothing"), None, Kind::Failed, "cannot open the image"),
            (&at("empty"), None, Kind::Failed, "is empty"),
            (&at("folder"), None, Kind::Failed, "is a directory"),
            (&at("pipe"), None, Kind::Failed, "is not a plain file"),
            (Path::new("/dev/null"), None, Kind::Failed, "is not a plain file"),
            (&source, Some(Size::mib(255)), Kind::Usage, "size 255MiB is smaller than its image"),
        ];
        for (source, size, kind, words) in rows {
            let error = quiet(source, &at("os.raw"), size).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.message().contains(words), "{error}");
            assert_eq!(names(dir.path()), before, "{error}");
        }
        assert!(quiet(&source, &at("os.raw"), Some(Size::mib(255))).unwrap_err().message().contains("256MiB"));

        fs::write(at("os.raw"), "mine").unwrap();
        let error = quiet(&source, &at("os.raw"), None).unwrap_err();
        assert!(error.message().contains("exists already"), "{error}");
        assert_eq!(fs::read(at("os.raw")).unwrap(), b"mine");
        assert!(quiet(&source, &at("no/such/folder"), None).is_err());
    }

    #[test]
    fn an_unreadable_source_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let source = sparse_image(dir.path());
        fs::set_permissions(&source, fs::Permissions::from_mode(0o000)).unwrap();
        if File::open(&source).is_ok() {
            eprintln!("skipped: this user reads every file");
            return;
        }
        let error = quiet(&source, &dir.path().join("os.raw"), None).unwrap_err();
        assert!(error.hint_text().unwrap().contains("readable"), "{error}");
    }

    struct CancelsAtOnce(Cancel);

    impl Progress for CancelsAtOnce {
        fn start(&self, _: u64) {}

        fn advance(&self, _: u64) {
            self.0.set();
        }
    }

    #[test]
    fn a_cancelled_clone_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let source = sparse_image(dir.path());
        let cancel = Cancel::default();
        let stopped = clone(&source, &dir.path().join("os.raw"), None, &cancel, &CancelsAtOnce(cancel.clone()));
        if let Ok(Cloned { method: Method::Reflink, .. }) = stopped {
            eprintln!("skipped: the temporary folder's file system shares blocks, so nothing is copied");
            return;
        }
        assert_eq!(stopped.unwrap_err().chain().last().unwrap(), "interrupted");
        assert_eq!(names(dir.path()), ["image.raw"]);
    }

    struct WritesMeanwhile(PathBuf);

    impl Progress for WritesMeanwhile {
        fn start(&self, _: u64) {
            std::thread::sleep(std::time::Duration::from_millis(20));
            File::options().write(true).open(&self.0).unwrap().write_all_at(b"changed", 50 * MIB).unwrap();
        }

        fn advance(&self, _: u64) {}
    }

    #[test]
    fn a_source_that_changes_meanwhile_is_not_cloned() {
        let dir = tempfile::tempdir().unwrap();
        let source = sparse_image(dir.path());
        let writer = WritesMeanwhile(source.clone());
        let changed = clone(&source, &dir.path().join("os.raw"), None, &Cancel::default(), &writer);
        if let Ok(Cloned { method: Method::Reflink, .. }) = changed {
            eprintln!("skipped: the temporary folder's file system shares blocks, so nothing is copied");
            return;
        }
        assert!(changed.unwrap_err().message().contains("was changed while"));
        assert_eq!(names(dir.path()), ["image.raw"]);
    }

    #[test]
    fn blank_disks_and_room() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("data.raw");
        blank(&target, Size::gib(3)).unwrap();
        let meta = target.metadata().unwrap();
        assert_eq!((meta.len(), meta.blocks(), meta.mode() & 0o7777), (3 << 30, 0, 0o600));
        assert!(blank(&target, Size::gib(1)).unwrap_err().message().contains("exists already"));
        assert_eq!(target.metadata().unwrap().len(), 3 << 30);

        assert!(free_space(dir.path()).unwrap() > 0);
        assert!(free_space(&dir.path().join("nothing")).is_err());
        let needed = bytes_needed(&sparse_image(dir.path()), dir.path()).unwrap();
        assert!(needed == 0 || needed == 3 * MIB, "{needed}");
        assert_eq!(names(dir.path()), ["data.raw", "image.raw"]);
    }
}
