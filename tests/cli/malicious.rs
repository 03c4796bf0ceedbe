//! Templates and folders that would have `v` read, write or wait for what it should not: each is
//! refused in words, at once, with nothing made and nothing given away.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::{config, world};
use crate::trials;
use crate::world::{Outcome, World, need_program, need_root, run};

pub fn trials() -> Vec<Trial> {
    trials![
        disks_that_are_no_images,
        images_that_lead_elsewhere,
        names_that_lead_elsewhere,
        kernels_and_firmware,
        user_data_without_an_end,
        what_only_root_may_read,
        what_was_put_into_a_vms_folder
    ]
}

/// Long enough for a busy machine; what waits for a pipe or reads a device without an end does not end.
const AT_ONCE: Duration = Duration::from_secs(60);

fn create(world: &World, more: &[&str]) -> crate::world::Run {
    run(world.command([&["vm", "create", "-t", "xs", "-n", "a"], more].concat()), AT_ONCE)
}

fn pipe(path: &Path) -> PathBuf {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe");
    path.to_owned()
}

fn disks_that_are_no_images() -> Outcome {
    let world = world();
    let right = config(&world, "");
    let image = format!("path = {:?}", world.dir().join("os.img"));
    let link = world.dir().join("link");
    symlink("/dev/zero", &link).expect("a link");
    let fifo = pipe(&world.dir().join("fifo"));
    let through_link = world.dir().join("through-link");
    symlink(&fifo, &through_link).expect("a link");
    let mut rows = vec![
        (PathBuf::from("/dev/zero"), "not a plain file"),
        ("/dev/null".into(), "not a plain file"),
        (link, "not a plain file"),
        (fifo, "not a plain file"),
        (through_link, "not a plain file"),
        ("/dev".into(), "is a directory"),
        ("/proc/self/environ".into(), "is empty"),
        ("/proc/self/fd/0".into(), "not a plain file"),
        (world.dir().join("os.img/../os.img"), "cannot open"),
    ];
    if need_root().is_ok() {
        let block = world.dir().join("block");
        mknodat(CWD, &block, FileType::BlockDevice, Mode::from_raw_mode(0o600), makedev(7, 200)).expect("a device");
        assert!(fs::metadata(&block).expect("a device").file_type().is_block_device());
        rows.push((block, "is a block device"));
        // A plain file, it says, of 128 TiB: this host's memory.
        rows.push(("/proc/kcore".into(), "/proc/kcore"));
    }
    for (path, words) in rows {
        world.config(&right.replace(&image, &format!("path = {path:?}")));
        let failed = create(&world, &[]);
        assert!(matches!(failed.code, Some(1 | 2)), "{}: {}", path.display(), failed.stderr);
        assert!(failed.stderr.contains(words), "{}: {words:?} is missing in: {}", path.display(), failed.stderr);
        world.assert_empty();
    }
    Ok(())
}

fn images_that_lead_elsewhere() -> Outcome {
    need_program("qemu-img")?;
    let world = world();
    let image = world.dir().join("os.img");
    let secret = world.file("secret", vec![b'S'; 1 << 20]);
    let qemu_img = |args: &[&str]| {
        let _ = fs::remove_file(&image);
        let mut command = Command::new("qemu-img");
        command.args(args);
        run(command, AT_ONCE).ok();
    };
    let (image_name, secret_name) = (image.to_str().expect("a path"), secret.to_str().expect("a path"));
    let refused = |words: &str| {
        create(&world, &[]).fails(1, &["os.img", words]);
        world.assert_empty();
        let cache = world.state().join("cache");
        let copies = fs::read_dir(cache).into_iter().flatten().map(|entry| entry.expect("an entry").path());
        for copy in copies.filter(|path| path.extension().is_some_and(|extension| extension != "lock")) {
            let bytes = fs::read(&copy).expect("a file");
            assert!(!bytes.windows(64).any(|window| window == [b'S'; 64]), "the secret is in {}", copy.display());
        }
    };
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret_name, image_name]);
    refused("another file");
    qemu_img(&["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow", image_name, "1M"]);
    refused("another file");
    let data = world.dir().join("data.raw");
    let option = format!("data_file={},data_file_raw=on", data.display());
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", &option, image_name, "1M"]);
    fs::remove_file(&data).expect("it goes");
    symlink(&secret, &data).expect("a link");
    refused("another file");
    qemu_img(&["create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", image_name, "1M"]);
    let text = fs::read_to_string(&image).expect("a descriptor");
    let flat = text.lines().find(|line| line.contains("FLAT")).expect("an extent").to_owned();
    fs::write(&image, text.replace(&flat, &format!("RW 2048 FLAT \"{secret_name}\" 0"))).expect("it is changed");
    let failed = create(&world, &[]);
    if failed.code == Some(0) {
        // Taken for what its bytes are, not for what they say: no more than the text itself is read.
        let disk = fs::read(PathBuf::from(world.info("a")["folder"].as_str().expect("a folder")).join("os.raw"));
        assert!(!disk.expect("a disk").windows(64).any(|window| window == [b'S'; 64]), "the secret was read");
    }
    Ok(())
}

fn names_that_lead_elsewhere() -> Outcome {
    let world = world();
    let right = config(&world, "");
    for name in ["../../../../etc/passwd", "/etc/passwd", "..", "a/b", "a\\u0000b", "-rf", "$(id)", "a b"] {
        for key in
            ["[[template.vm.disk]]\nname = \"os\"", "[[template.vm]]\nname = \"xs\"", "[[network]]\nname = \"main\""]
        {
            let (table, old) = key.split_once('\n').expect("two lines");
            let text = right.replace(key, &format!("{table}\n{} = \"{name}\"", old.split(' ').next().expect("a key")));
            assert_ne!(text, right);
            world.config(&text);
            create(&world, &[]).fails(2, &["config.toml"]);
        }
        world.config(&right);
        if !name.contains("u0000") {
            let failed = world.v(["vm", "create", "-t", "xs", &format!("--name={name}")]);
            assert_eq!(failed.code, Some(2), "{name}: {}", failed.stderr);
        }
    }
    world.assert_empty();
    Ok(())
}

fn kernels_and_firmware() -> Outcome {
    let world = world();
    let right = config(&world, "");
    let fifo = pipe(&world.dir().join("fifo"));
    let fifo = fifo.to_str().expect("a path");
    let kernel = world.file("kernel", "x");
    let kernel = kernel.to_str().expect("a path");
    let vcpu = "vcpu = 1\n";
    for (keys, words) in [
        ("kernel = \"/dev/null\"".to_owned(), &["/dev/null", "a device"][..]),
        ("kernel = \"/dev/zero\"".to_owned(), &["/dev/zero", "a device"]),
        (format!("kernel = \"{fifo}\""), &["the kernel", "a named pipe"]),
        ("kernel = \"/etc\"".to_owned(), &["/etc", "a directory"]),
        (format!("kernel = \"{kernel}\"\ninitramfs = \"/dev/zero\""), &["the initramfs", "a device"]),
        (format!("kernel = \"{kernel}\"\ninitramfs = \"{fifo}\""), &["the initramfs", "a named pipe"]),
        (format!("firmware = \"{fifo}\""), &["the firmware", "not a file"]),
        ("firmware = \"/dev/zero\"".to_owned(), &["the firmware", "not a file"]),
    ] {
        world.config(&right.replacen(vcpu, &format!("{vcpu}{keys}\n"), 1));
        create(&world, &[]).fails(2, words);
        world.assert_empty();
    }
    let vars = format!("vars = {:?}", world.dir().join("vars.fd"));
    world.config(&right.replace(&vars, &format!("vars = \"{fifo}\"")));
    create(&world, &[]).fails(2, &["not a file"]);

    // A kernel that becomes something else between create and start.
    world.config(
        &right
            .replacen(vcpu, &format!("{vcpu}kernel = \"{kernel}\"\n"), 1)
            .replace("[[template.vm.net]]\nname = \"main\"\ntype = \"tap\"\n", ""),
    );
    create(&world, &[]).ok();
    fs::remove_file(kernel).expect("it goes");
    pipe(Path::new(kernel));
    run(world.command(["vm", "start", "a"]), AT_ONCE).fails(2, &["cannot start `a`", "a named pipe"]);
    Ok(())
}

fn user_data_without_an_end() -> Outcome {
    let world = world();
    let fifo = pipe(&world.dir().join("fifo"));
    for (path, words) in [("/dev/zero", "a device"), ("/etc", "a directory")] {
        create(&world, &["-u", path]).fails(2, &["user data", path, words]);
        let naming = world.file("naming.toml", format!("cloud-init = {path:?}\n"));
        create(&world, &["-u", naming.to_str().expect("a path")]).fails(2, &[path, words]);
    }
    let large = world.dir().join("large");
    fs::File::create(&large).and_then(|file| file.set_len(1 << 40)).expect("a large file");
    create(&world, &["-u", large.to_str().expect("a path")]).fails(2, &["larger than 16 MiB"]);
    world.assert_empty();
    // A pipe that nobody writes to says nothing; it is not waited for.
    let _ = create(&world, &["-u", fifo.to_str().expect("a path")]);
    Ok(())
}

/// An ordinary user's templates reach what the kernel lets that user reach, and no more.
fn what_only_root_may_read() -> Outcome {
    need_root()?;
    let mut world = world();
    let secret = tempfile::NamedTempFile::new().expect("a file");
    fs::write(secret.path(), vec![b'S'; 1 << 20]).expect("a secret");
    let link = world.dir().join("link.img");
    symlink(secret.path(), &link).expect("a link");
    let right = config(&world, "");
    let image = format!("path = {:?}", world.dir().join("os.img"));
    for path in [secret.path(), &link] {
        world.config(&right.replace(&image, &format!("path = {path:?}")));
        world.become_user(65534, 65534);
        // `chown -R` does not follow the link.
        create(&world, &[]).fails(1, &["Permission denied"]);
        world.assert_empty();
        world.become_user(0, 0);
    }
    Ok(())
}

/// Its owner alone can do it; it is refused all the same, before anything is started.
fn what_was_put_into_a_vms_folder() -> Outcome {
    let world = world();
    world.config(&config(&world, "").replace("[[template.vm.net]]\nname = \"main\"\ntype = \"tap\"\n", ""));
    create(&world, &[]).ok();
    let folder = PathBuf::from(world.info("a")["folder"].as_str().expect("a folder"));
    let secret = world.file("secret", "not to be written");
    for file in ["os.raw", "seed.img", "efivars.fd", "supervisor.log", "hypervisor.log", "lock"] {
        let (path, kept) = (folder.join(file), folder.join("kept"));
        let there = path.exists();
        if there {
            fs::rename(&path, &kept).expect("it is moved");
        }
        symlink(&secret, &path).expect("a link");
        let started = run(world.command(["vm", "start", "a"]), AT_ONCE);
        assert_eq!(started.code, Some(1), "{file}: {}", started.stderr);
        if file != "hypervisor.log" {
            assert!(started.stderr.contains(file), "{file}: {}", started.stderr);
        }
        assert_eq!(fs::read_to_string(&secret).expect("the secret"), "not to be written", "{file}");
        let _ = fs::remove_file(&path);
        if there {
            fs::rename(&kept, &path).expect("it is put back");
        }
    }
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("a mode");
    Ok(())
}
