//! What every guest is told beside its own words, at each boot.

use serde_json::json;

use super::cloud_init::{HEAD, document};
use super::mime::{self, BOOTHOOK, Body, CLOUD_CONFIG};

/// Serves ssh over vsock in guests whose systemd is too old to do so.
///
/// A boothook, and not a cloud-config: the keys of one (`write_files`, `runcmd`) give way to the
/// same keys of the user's, and its modules may be switched off in the image.
const SSH_OVER_VSOCK: &str = include_str!("vendor_data.sh");

/// Takes into use what is added while the guest runs. A boothook for the same reasons.
const ONLINE: &str = include_str!("vendor_online.sh");

/// The same for every guest, so that nothing is put into its text. It is vendor data, so who does not
/// want any says `vendor_data: { enabled: false }`.
pub(super) fn vendor_data() -> String {
    // Other NICs are taken over at the next boot, and not by new machines alone.
    let updates = json!({ "updates": { "network": { "when": ["boot-new-instance", "boot"] } } });
    let updates = format!("{HEAD}{}", document(&updates));
    let part = |name: &str, kind, content| Body { name: name.to_owned(), kind, content };
    mime::multipart(&[
        part("virshle-ssh-vsock.sh", BOOTHOOK, SSH_OVER_VSOCK.as_bytes()),
        part("virshle-online.sh", BOOTHOOK, ONLINE.as_bytes()),
        part("virshle-updates.cfg", CLOUD_CONFIG, updates.as_bytes()),
    ])
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::*;
    use crate::host;

    const UNITS: &str = "etc/systemd/system";
    const GENERATOR: &str = "usr/lib/systemd/system-generators/systemd-ssh-generator";

    #[test]
    fn what_is_added_is_used_by_a_rule_that_a_person_may_empty() {
        let script = ONLINE.strip_prefix("#cloud-boothook\n").unwrap();
        assert!(script.starts_with("#!/bin/sh\n"), "cloud-init runs what follows its own line");
        let sh = host::find_program("sh").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let hook = dir.path().join("hook");
        fs::write(&hook, script.replace("/etc/udev", &format!("{}/udev", dir.path().display()))).unwrap();
        let rules = dir.path().join("udev/rules.d/80-virshle-online.rules");
        let run = || host::Program::new(&sh).arg(&hook).run().unwrap();
        run();
        assert!(!rules.exists(), "a guest without udev");
        fs::create_dir(dir.path().join("udev")).unwrap();
        run();
        assert_eq!(fs::read_to_string(&rules).unwrap().matches("ACTION==\"add\"").count(), 2);
        fs::write(&rules, "").unwrap();
        run();
        assert_eq!(fs::read_to_string(&rules).unwrap(), "");
    }

    /// Both parts as cloud-init finds them: what it does not take for one of its own it ignores.
    #[test]
    fn the_vendor_data_is_two_boothooks_and_a_cloud_config() {
        let text = vendor_data();
        let renamed = mime::edit_first(&text, |hook| {
            assert!(hook.starts_with("#cloud-boothook\n#!/bin/sh\n"), "{hook}");
            Some(String::new())
        });
        assert!(renamed.is_some());
        let kinds: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("Content-Type: text/")).collect();
        let hook = "cloud-boothook; charset=\"utf-8\"";
        assert_eq!(kinds, [hook, hook, "cloud-config; charset=\"utf-8\""]);
    }

    /// It is run as a guest would, with every path in a folder and a `systemctl` that tells.
    #[test]
    fn ssh_over_vsock_is_installed_once_and_only_where_it_is_needed() {
        let script = SSH_OVER_VSOCK.strip_prefix("#cloud-boothook\n").unwrap();
        assert!(script.starts_with("#!/bin/sh\n"), "cloud-init runs what follows its own line");
        let sh = host::find_program("sh").unwrap();
        type Guest = (&'static str, fn(&Path), bool);
        let rows: [Guest; 6] = [
            ("a usual guest", |_| {}, true),
            ("no vsock", |root| fs::remove_file(root.join("dev/vsock")).unwrap(), false),
            ("no systemd", |root| fs::remove_dir(root.join("run/systemd/system")).unwrap(), false),
            ("no sshd", |root| fs::remove_file(root.join("usr/sbin/sshd")).unwrap(), false),
            ("systemd does it", |root| fs::write(root.join(GENERATOR), "").unwrap(), false),
            ("masked", |root| symlink("/dev/null", root.join(UNITS).join("virshle-ssh-vsock.socket")).unwrap(), false),
        ];
        for (what, prepare, installed) in rows {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path();
            for folder in ["dev", "run/systemd/system", "usr/sbin", "usr/bin", UNITS, GENERATOR] {
                fs::create_dir_all(root.join(folder)).unwrap();
            }
            fs::remove_dir(root.join(GENERATOR)).unwrap();
            fs::write(root.join("dev/vsock"), "").unwrap();
            for (name, text) in [
                ("sbin/sshd", "#!/bin/sh\n".to_owned()),
                ("bin/systemctl", format!("#!/bin/sh\necho \"$@\" >>{}/told\n", root.display())),
            ] {
                let program = root.join("usr").join(name);
                fs::write(&program, text).unwrap();
                fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            }
            for tool in ["cat", "mkdir", "ln"] {
                symlink(host::find_program(tool).unwrap(), root.join("usr/bin").join(tool)).unwrap();
            }
            prepare(root);
            let moved = ["/etc/systemd", "/run/systemd", "/dev/vsock", "/usr/lib/systemd"]
                .iter()
                .fold(script.to_owned(), |text, path| text.replace(path, &format!("{}{path}", root.display())));
            let path = format!("PATH={0}/usr/sbin:{0}/usr/bin\n", root.display());
            let moved =
                moved.lines().map(|line| if line.starts_with("PATH=") { path.clone() } else { format!("{line}\n") });
            let hook = root.join("hook");
            fs::write(&hook, moved.collect::<String>()).unwrap();
            // At every boot.
            for _ in 0..2 {
                host::Program::new(&sh).arg(&hook).run().unwrap_or_else(|error| panic!("{what}: {error:?}"));
            }

            let units = root.join(UNITS);
            let read = |name: &str| fs::read_to_string(units.join(name));
            let told = fs::read_to_string(root.join("told")).unwrap_or_default();
            if !installed {
                assert_eq!(told, "", "{what}");
                assert!(read("virshle-ssh-vsock@.service").is_err(), "{what}");
                continue;
            }
            assert_eq!(
                told, "--no-block start virshle-ssh-vsock.socket\n",
                "{what}: the second time there is nothing to do"
            );
            let socket = read("sockets.target.wants/virshle-ssh-vsock.socket").unwrap();
            assert_eq!(socket, read("virshle-ssh-vsock.socket").unwrap(), "{what}: enabled");
            assert!(socket.contains("\nListenStream=vsock::22\nAccept=yes\n"), "{socket}");
            let service = read("virshle-ssh-vsock@.service").unwrap();
            assert!(service.contains(&format!("\nExecStart=-{}/usr/sbin/sshd -i\n", root.display())), "{service}");
            if let Some(analyze) = host::find_program("systemd-analyze") {
                let unit = units.join("virshle-ssh-vsock.socket");
                host::Program::new(analyze).arg("verify").arg("--man=no").arg(unit).run().unwrap();
            } else {
                eprintln!("skipped: systemd-analyze is not installed");
            }
        }
    }
}
