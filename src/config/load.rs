//! From files to a [`Config`]: read, resolve paths, merge, check.

use std::fs::{self, File as FsFile};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::declared::UserDataEntry;
use super::draft::Draft;
use super::file::{Config, File};
use super::paths::{home, resolve};
use super::rules;
use super::source::{Excerpts, Source, position};
use crate::error::{Error, Result};

/// Far more than anybody writes; a device named by mistake does not fill the memory.
const LARGEST: u64 = 4 << 20;

const FIRST_FILE: &str = r#"write one that begins like this:
    [[template.vm]]
    name = "xs"
    vcpu = 1
    vram = 2
    [[template.vm.disk]]
    name = "os"
    path = "/path/to/an/image.qcow2""#;

/// The main file with the drop-ins laid over it, checked as a whole.
pub fn load(file: &Path, drop_ins: &Path) -> Result<Config> {
    load_for(file, drop_ins, home().as_deref())
}

/// One file by itself.
pub fn check(file: &Path) -> Result<Config> {
    let mut draft = Draft::default();
    add(&mut draft, file, home().as_deref())?;
    draft.into_config()
}

fn load_for(file: &Path, drop_ins: &Path, home: Option<&Path>) -> Result<Config> {
    let others = list(drop_ins)?;
    let mut draft = Draft::default();
    // A link that leads nowhere is there all the same: reading it says what is wrong.
    let is_missing = fs::symlink_metadata(file).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if !is_missing {
        add(&mut draft, file, home)?;
    } else if others.is_empty() {
        return Err(Error::usage(format!("there is no config file `{}`", file.display())).hint(FIRST_FILE));
    }
    for other in &others {
        add(&mut draft, other, home)?;
    }
    Ok(Config { missing: is_missing.then(|| file.to_owned()), ..draft.into_config()? })
}

/// The drop-ins in the order of their names. Hidden files are an editor's, not a person's.
fn list(drop_ins: &Path) -> Result<Vec<PathBuf>> {
    let unreadable =
        |error: io::Error| Error::usage(format!("cannot read the folder `{}`", drop_ins.display())).source(error);
    let entries = match fs::read_dir(drop_ins) {
        Ok(entries) => entries,
        // A link that leads nowhere is there all the same: what is mounted there is not gone for good.
        Err(error) if error.kind() == io::ErrorKind::NotFound && drop_ins.symlink_metadata().is_err() => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().map(|name| name.as_encoded_bytes()).unwrap_or_default();
        if name.ends_with(b".toml") && !name.starts_with(b".") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn add(draft: &mut Draft, path: &Path, home: Option<&Path>) -> Result<()> {
    add_text(draft, path, read(path)?, home)
}

fn add_text(draft: &mut Draft, path: &Path, text: String, home: Option<&Path>) -> Result<()> {
    let (mut file, source): (File, Source) = Source::read(path, text, Excerpts::Shown)?;
    let path = std::path::absolute(path)
        .map_err(|error| Error::usage(format!("cannot use `{}`", path.display())).source(error))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    for (key, value) in paths(&mut file) {
        *value = resolve(value, folder, home).map_err(|what| source.wrong(&key, what))?;
    }
    rules::check_node(&file.node, &source)?;
    draft.add(file, source)
}

fn read(path: &Path) -> Result<String> {
    let unreadable = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => Some("make it readable, or name another root with `--root DIR`"),
            io::ErrorKind::IsADirectory => Some("name a file; a folder's `*.toml` are read from `config.d`"),
            _ => None,
        };
        let cannot = Error::usage(format!("cannot read `{}`", path.display())).source(error);
        match hint {
            Some(hint) => cannot.hint(hint),
            None => cannot,
        }
    };
    let mut bytes = Vec::new();
    FsFile::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::usage(format!("`{}` is larger than {} MiB", path.display(), LARGEST >> 20)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let (bad, bytes) = (error.utf8_error(), error.as_bytes());
        let valid = std::str::from_utf8(&bytes[..bad.valid_up_to()]).unwrap_or_default();
        let (line, column) = position(valid, valid.len());
        Error::usage(format!("`{}` line {line}, column {column}: not UTF-8 text", path.display()))
            .hint("save it as UTF-8")
    })
}

/// Every path a file holds, with its dotted path.
fn paths(file: &mut File) -> Vec<(String, &mut PathBuf)> {
    let mut found: Vec<(String, &mut PathBuf)> = Vec::new();
    let mut add = |key: String, path: Option<_>| found.extend(path.map(|path| (key, path)));
    let node = &mut file.node;
    add("node.cloud-hypervisor.program".to_owned(), node.cloud_hypervisor.program.as_mut());
    add("node.cloud-hypervisor.firmware".to_owned(), node.cloud_hypervisor.firmware.as_mut());
    add("node.qemu.program".to_owned(), node.qemu.program.as_mut());
    add("node.qemu.firmware".to_owned(), node.qemu.firmware.as_mut());
    add("node.qemu.vars".to_owned(), node.qemu.vars.as_mut());
    add("node.hosts-file".to_owned(), node.hosts_file.as_mut());
    for (index, image) in file.image.iter_mut().enumerate() {
        add(format!("image[{index}].path"), Some(&mut image.path));
    }
    for (index, vm) in file.vm.iter_mut().enumerate() {
        add(format!("vm[{index}].kernel"), vm.kernel.as_mut());
        add(format!("vm[{index}].initramfs"), vm.initramfs.as_mut());
        add(format!("vm[{index}].firmware"), vm.firmware.as_mut());
        for (number, disk) in vm.disks.iter_mut().enumerate() {
            add(format!("vm[{index}].disk[{number}].path"), disk.path.as_mut());
        }
        match &mut vm.user_data {
            UserDataEntry::One(path) => add(format!("vm[{index}].user-data"), Some(path)),
            UserDataEntry::Several(paths) => {
                for (number, path) in paths.iter_mut().enumerate() {
                    add(format!("vm[{index}].user-data[{number}]"), Some(path));
                }
            }
        }
    }
    for (index, template) in file.template.vm.iter_mut().enumerate() {
        add(format!("template.vm[{index}].kernel"), template.kernel.as_mut());
        add(format!("template.vm[{index}].initramfs"), template.initramfs.as_mut());
        add(format!("template.vm[{index}].firmware"), template.firmware.as_mut());
        for (number, disk) in template.disks.iter_mut().enumerate() {
            add(format!("template.vm[{index}].disk[{number}].path"), disk.path.as_mut());
        }
    }
    found
}

/// The config that a text is, as if it stood in `/etc/virshle/config.toml`.
#[cfg(test)]
pub(crate) fn of_text(text: &str) -> Result<Config> {
    let mut draft = Draft::default();
    add_text(&mut draft, Path::new("/etc/virshle/config.toml"), text.to_owned(), Some(Path::new("/home/anon")))?;
    draft.into_config()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Accelerator, HypervisorSetting, Running};
    use crate::error::Kind;
    use crate::spec::Size;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new(files: &[(&str, &str)]) -> Self {
            let files_here = Self(tempfile::tempdir().unwrap());
            for (name, text) in files {
                files_here.write(name, text.as_bytes());
            }
            files_here
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, bytes: &[u8]) {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }

        fn load(&self) -> Result<Config> {
            load_for(&self.path("config.toml"), &self.path("config.d"), Some(Path::new("/home/anon")))
        }
    }

    const XS: &str = r#"
        [[template.vm]]
        name = "xs"
        vcpu = 1
        vram = 2
        disk = [{ name = "os", path = "~/os.img" }]
    "#;

    #[test]
    fn drop_ins_replace_by_name_and_merge_the_node() {
        let files = Files::new(&[
            (
                "config.toml",
                &format!("node = {{ hypervisor = 'qemu', qemu.program = 'qemu', ovs-db = 'unix:/a' }}\n{XS}"),
            ),
            (
                "config.d/20-b.toml",
                "node = { accel = 'tcg', qemu.vars = '/v', ovs-db = 'unix:/20' }\n[[network]]\nname = 'lan'\ntype = 'bridge'",
            ),
            ("config.d/10-a.toml", "node.ovs-db = 'unix:/10'\n[[network]]\nname = 'main'\n[[network]]\nname = 'lan'"),
            ("config.d/30-c.toml", &XS.replace("vcpu = 1", "vcpu = 3").replace("~/os.img", "os.img")),
            ("config.d/.40-d.toml", "this is not read"),
            ("config.d/README", "neither is this"),
        ]);
        let config = files.load().unwrap();
        assert_eq!((config.node.hypervisor, config.node.accel), (HypervisorSetting::Qemu, Accelerator::Tcg));
        assert_eq!(config.node.qemu.program, Some(files.path("qemu")));
        assert_eq!(config.node.qemu.vars, Some("/v".into()));
        assert_eq!(config.node.ovs_db.as_deref(), Some("unix:/20"));
        let networks: Vec<_> = config.networks.iter().map(|n| (n.name.as_str(), n.kind.as_str())).collect();
        assert_eq!(networks, [("main", "ovs"), ("lan", "bridge")]);
        assert_eq!((config.templates.len(), config.templates[0].vcpu), (1, 3));
        assert_eq!(config.templates[0].disks[0].path, Some(files.path("config.d/os.img")));
    }

    #[test]
    fn a_default_that_a_drop_in_writes_out_counts() {
        let files =
            Files::new(&[("config.toml", "node.hypervisor = 'qemu'"), ("config.d/a.toml", "node.hypervisor = 'auto'")]);
        assert_eq!(files.load().unwrap().node.hypervisor, HypervisorSetting::Auto);
    }

    #[test]
    fn references_are_checked_over_all_files_and_told_in_their_own() {
        let files = Files::new(&[
            ("config.toml", &XS.replace("path = \"~/os.img\"", "image = \"debian\"")),
            ("config.d/a.toml", "[[image]]\nname = 'debian'\npath = '~/d.raw'"),
        ]);
        assert_eq!(files.load().unwrap().images[0].path, Path::new("/home/anon/d.raw"));
        files.write("config.d/a.toml", b"[[image]]\nname = 'debain'\npath = '~/d.raw'");
        let error = files.load().unwrap_err();
        let place = format!("`{}` line 6, column ", files.path("config.toml").display());
        assert!(error.message().starts_with(&place), "{error}");
        assert!(error.message().contains("`template.vm[0].disk[0].image` is `debian`"), "{error}");
        assert_eq!(error.hint_text(), Some("did you mean `debain`?"));
        files.write("config.d/b.toml", b"node = { acel = 'kvm' }");
        let error = files.load().unwrap_err();
        assert!(error.message().contains("b.toml` line 1, column 10: unknown key `acel` in `node`"), "{error}");
    }

    #[test]
    fn paths_are_resolved_against_the_file() {
        let files = Files::new(&[("config.toml", XS)]);
        assert_eq!(files.load().unwrap().templates[0].disks[0].path, Some("/home/anon/os.img".into()));
        files.write("config.toml", XS.replace("~/os.img", "../os.img").as_bytes());
        assert_eq!(files.load().unwrap().templates[0].disks[0].path, Some(files.path("../os.img")));
        files.write("config.toml", XS.replace("~/os.img", "~root/os.img").as_bytes());
        let error = files.load().unwrap_err();
        assert!(
            error.message().contains("line 6, column 39: `template.vm[0].disk[0].path` begins with `~root`"),
            "{error}"
        );
    }

    #[test]
    fn every_path_of_the_grammar_is_resolved() {
        let config = of_text(
            r#"
            [node]
            hosts-file = "a"
            [node.cloud-hypervisor]
            program = "a"
            firmware = "a"
            [node.qemu]
            program = "a"
            firmware = "a"
            vars = "a"
            [[image]]
            name = "i"
            path = "a"
            [[template.vm]]
            name = "k"
            vcpu = 1
            vram = 1
            kernel = "a"
            initramfs = "a"
            disk = [{ name = "x", path = "a" }]
            [[template.vm]]
            name = "f"
            vcpu = 1
            vram = 1
            firmware = "a"
            disk = [{ name = "x", image = "i" }]
            [[vm]]
            name = "one"
            template = "f"
            kernel = "b"
            initramfs = "b"
            disk = [{ name = "y", path = "b" }]
            user-data = "b"
            [[vm]]
            name = "two"
            template = "f"
            firmware = "b"
            user-data = ["b", "b"]
            "#,
        );
        let config = config.unwrap();
        let json = serde_json::to_string(&Config { vms: Vec::new(), ..config.clone() }).unwrap();
        assert_eq!(json.matches("\"/etc/virshle/a\"").count(), 11, "{json}");
        let json = serde_json::to_string(&config.vms).unwrap();
        assert_eq!(json.matches("\"/etc/virshle/b\"").count(), 7, "{json}");
    }

    #[test]
    fn a_drop_in_replaces_a_vm_and_the_template_below_one() {
        let files = Files::new(&[
            (
                "config.toml",
                &format!(
                    "vm = [{{ name = 'a', template = 'xs', vcpu = 2, labels = {{ x = '' }} }}, {{ name = 'b', template = 'xs' }}]{XS}"
                ),
            ),
            (
                "config.d/10.toml",
                "[[vm]]\nname = 'c'\ntemplate = 'xs'\nuser-data = ['c.toml', '~/c.toml']\n[[vm]]\nname = 'a'\ntemplate = 'xs'\nrunning = false",
            ),
        ]);
        let said = |config: &Config| {
            let vm =
                |vm: &crate::config::DeclaredVm| (vm.name.to_string(), vm.template.vcpu, vm.template.labels.is_empty());
            config.vms.iter().map(vm).collect::<Vec<_>>()
        };
        let config = files.load().unwrap();
        assert_eq!(said(&config), [("a".to_owned(), 1, true), ("b".to_owned(), 1, true), ("c".to_owned(), 1, true)]);
        assert_eq!(config.vms[0].running, Running::No);
        assert_eq!(config.vms[2].user_data, [files.path("config.d/c.toml"), "/home/anon/c.toml".into()]);
        files.write("config.d/20.toml", XS.replace("vcpu = 1", "vcpu = 3").as_bytes());
        assert_eq!(files.load().unwrap().vms[1].template.vcpu, 3);

        // What one file makes wrong in another is told in the one that says it.
        files.write("config.d/20.toml", XS.replace("vcpu = 1", "vcpu = 1\nvcpu-max = 1").as_bytes());
        files.write("config.d/30.toml", b"[[vm]]\nname = 'b'\ntemplate = 'xs'\nvcpu = 2");
        let error = files.load().unwrap_err();
        let place = format!(
            "`{}` line 5, column 12: `template.vm[0].vcpu-max` is 1, less",
            files.path("config.d/20.toml").display()
        );
        assert!(error.message().starts_with(&place) && error.message().ends_with("in the VM `b`"), "{error}");
        files.write("config.d/30.toml", b"[[vm]]\nname = 'b'\ntemplate = 'xs'\nkernel = 'k'\nfirmware = 'f'");
        let error = files.load().unwrap_err();
        let place = format!(
            "`{}` line 5, column 12: `vm[0].firmware` is set together",
            files.path("config.d/30.toml").display()
        );
        assert!(error.message().starts_with(&place), "{error}");
    }

    #[test]
    fn user_data_is_resolved_where_it_is_written() {
        let vm = |user_data: &str| format!("{XS}\n[[vm]]\nname = 'a'\ntemplate = 'xs'\nuser-data = {user_data}");
        for (user_data, place) in [
            ("'~root/x'", "line 11, column 13: `vm[0].user-data` begins with `~root`"),
            ("['a', '~root/x']", "line 11, column 19: `vm[0].user-data[1]` begins with `~root`"),
            ("''", "line 11, column 13: `vm[0].user-data` must not be empty"),
        ] {
            let error = of_text(&vm(user_data)).unwrap_err();
            assert!(error.message().contains(place), "{error}");
        }
    }

    #[test]
    fn a_thousand_vms() {
        let vms: String =
            (0..1000).map(|n| format!("[[vm]]\nname = 'vm-{n}'\ntemplate = 'xs'\nlabels.n = '{n}'\n")).collect();
        let config = of_text(&format!("{XS}{vms}")).unwrap();
        assert_eq!(config.vms.len(), 1000);
        let last = config.vm(&"vm-999".parse().unwrap()).unwrap();
        assert_eq!(last.template.labels.get("n"), Some("999"));
    }

    #[test]
    fn an_empty_file_is_an_empty_config() {
        for text in
            ["", "\n", "# nothing", "\u{feff}# nothing\r\n", "[template]\nvm = []", "template.vm = []\nnetwork = []"]
        {
            let files = Files::new(&[("config.toml", text)]);
            assert_eq!(files.load().unwrap(), Config::default(), "{text:?}");
        }
    }

    #[test]
    fn no_file_at_all() {
        let files = Files::new(&[]);
        let error = files.load().unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        let missing = format!("there is no config file `{}`", files.path("config.toml").display());
        assert_eq!(error.message(), missing);
        // What the hint says to write is a config.
        let hint = error.hint_text().unwrap();
        let (_, text) = hint.split_once('\n').unwrap();
        assert_eq!(of_text(text).unwrap().templates[0].vram, Size::gib(2), "{hint}");
        files.write("config.d/a.toml", XS.as_bytes());
        let config = files.load().unwrap();
        assert_eq!((config.templates.len(), config.missing), (1, Some(files.path("config.toml"))));
        files.write("config.toml", b"");
        assert_eq!(files.load().unwrap().missing, None);
    }

    #[test]
    fn files_that_cannot_be_read() {
        let files = Files::new(&[]);
        fs::create_dir(files.path("config.toml")).unwrap();
        let error = files.load().unwrap_err();
        let cannot = format!("cannot read `{}`", files.path("config.toml").display());
        assert_eq!((error.kind(), error.message()), (Kind::Usage, cannot.as_str()));
        assert!(error.chain()[1].contains("directory"), "{error:?}");

        let files = Files::new(&[]);
        files.write("config.toml", b"# fine\nname = 'a\xff'");
        let error = files.load().unwrap_err();
        assert!(error.message().ends_with("line 2, column 10: not UTF-8 text"), "{error}");
        assert_eq!(error.kind(), Kind::Usage);

        let files = Files::new(&[]);
        std::os::unix::fs::symlink("/no/such/file", files.path("config.toml")).unwrap();
        assert_eq!(files.load().unwrap_err().kind(), Kind::Usage);

        let files = Files::new(&[("config.toml", ""), ("config.d", "a file where the folder belongs")]);
        assert!(files.load().unwrap_err().message().starts_with("cannot read the folder"));

        let files = Files::new(&[("config.toml", "")]);
        std::os::unix::fs::symlink("/no/such/folder", files.path("config.d")).unwrap();
        assert!(files.load().unwrap_err().message().starts_with("cannot read the folder"));

        let error = check(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.message(), "`/dev/zero` is larger than 4 MiB");
        assert_eq!(check(Path::new("/no/such/file")).unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn one_file_alone() {
        let files = Files::new(&[("one.toml", XS), ("config.d/bad.toml", "bad")]);
        assert_eq!(check(&files.path("one.toml")).unwrap().templates.len(), 1);
    }

    #[test]
    fn every_example_is_right() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
        let mut seen = Vec::new();
        for path in list(&folder).unwrap() {
            let config = check(&path).unwrap_or_else(|error| panic!("{:?}", error.chain()));
            assert!(!config.templates.is_empty(), "{}", path.display());
            seen.push(path.file_stem().unwrap().to_owned());
        }
        assert_eq!(
            seen,
            ["blank-data-disk", "bridge", "kernel", "minimal", "network", "service", "sizes", "user", "vm"]
        );
    }
}
