use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;

use super::{Club, LIMIT, MEMBER};
use crate::trials;
use crate::world::{Outcome, run};

pub fn trials() -> Vec<Trial> {
    trials![what_the_caller_may_read_is_read, what_the_caller_may_not_read_is_not, what_a_member_applies]
}

/// The text of a VM's first-boot volume, with what its MIME parts hold behind it.
pub fn seed(club: &Club, name: &str) -> String {
    let rows = club.rows();
    let row = rows.iter().find(|row| row["name"] == name).expect("the VM");
    let folder = club.world().state().join("vm").join(row["uuid"].as_str().expect("a uuid"));
    let mut files = fs::read_dir(folder).expect("its folder").flatten();
    let seed = files.find(|file| file.file_name().to_string_lossy().starts_with("seed")).expect("a seed");
    let mut text = String::from_utf8_lossy(&fs::read(seed.path()).expect("it is read")).into_owned();
    let parts: Vec<String> = text.split("\n\n").filter_map(|part| part.split("\n--=").next()).map(base64).collect();
    text.extend(parts);
    text
}

fn base64(text: &str) -> String {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for value in text.chars().filter_map(|c| DIGITS.find(c)) {
        bits = bits << 6 | u32::try_from(value).expect("six bits");
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A file in the member's home.
fn file(club: &Club, name: &str, text: &str, owner: u32) -> PathBuf {
    let path = club.world().home().join(name);
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("its mode");
    chown(&path, Some(owner), Some(owner)).expect("its owner");
    path
}

fn create(club: &Club, name: &str, user_data: &Path) -> crate::world::Run {
    club.v([
        "vm".as_ref(),
        "create".as_ref(),
        "-t".as_ref(),
        "halt".as_ref(),
        "-n".as_ref(),
        name.as_ref(),
        "-u".as_ref(),
        user_data.as_os_str(),
    ])
}

fn what_the_caller_may_read_is_read() -> Outcome {
    let club = Club::new()?;
    file(&club, "own.toml", "cloud-init = \"more.yaml\"\n[[user]]\nname = \"gardener\"\n", MEMBER);
    file(&club, "more.yaml", "#cloud-config\nruncmd: [ 'echo marmalade' ]\n", MEMBER);
    // By a path that starts where the caller stands.
    create(&club, "one", Path::new("own.toml")).ok();
    let text = seed(&club, "one");
    assert!(text.contains("gardener") && text.contains("marmalade"), "{text}");
    // Also from a pipe, as a shell's `<(…)` makes one.
    let v = club.member(["vm", "create", "-t", "halt", "-n", "two", "-u", "/dev/stdin"]);
    let words: Vec<_> = v.get_args().collect();
    let (as_member, v_and_words) = words.split_at(words.len() - 9);
    let mut command = Command::new(v.get_program());
    command.args(as_member).args(["sh", "-c", "printf '#cloud-config\\nruncmd: [ echo piped ]\\n' | \"$0\" \"$@\""]);
    command.args(v_and_words).env_clear().envs(v.get_envs().filter_map(|(name, value)| Some((name, value?))));
    run(command, LIMIT).ok();
    assert!(seed(&club, "two").contains("piped"));
    club.v(["vm", "delete", "--all"]).ok();
    club.close();
    Ok(())
}

fn what_the_caller_may_not_read_is_not() -> Outcome {
    let club = Club::new()?;
    let secret = file(&club, "roots", "#cloud-config\nsecret: 1\n", 0);
    let link = club.world().home().join("link");
    symlink(&secret, &link).expect("a link");
    let names_it = file(&club, "naming.toml", "cloud-init = \"roots\"\n", MEMBER);
    for path in [Path::new("/etc/shadow"), &secret, &link, &names_it, Path::new("roots")] {
        create(&club, "web", path).fails(2, &["cannot read", "Permission denied"]);
    }
    create(&club, "web", Path::new("/dev/zero")).fails(2, &["/dev/zero", "not a plain file"]);
    create(&club, "web", &club.world().home()).fails(2, &["cannot read", "directory"]);

    // One who does not use `v` to talk to the helper gets no further: the file is not opened.
    let mut order = super::strangers::Order::of(&["vm", "create", "-t", "halt", "-n", "web", "-u", "/etc/shadow"]);
    let answers = order.send(&club);
    assert!(answers[0].contains("accepted") && answers[1].contains("\"code\":2"), "{answers:?}");
    order.enclosed = br#"{"users":{"users":[],"cloud_init":["/etc/shadow"]},"parts":[]}"#.to_vec();
    assert!(order.send(&club)[1].contains("\"code\":2"));
    order.enclosed = br#"{"users":{"users":[]},"parts":[]}"#.to_vec();
    assert!(order.send(&club)[1].contains("\"code\":0"));
    assert!(!seed(&club, "web").contains("root:"));
    // A config file of the caller's is checked by the caller.
    club.v(["config", "check", "/etc/shadow"]).fails(2, &["Permission denied"]);
    club.v(["vm", "delete", "web"]).ok();
    club.world().assert_empty();
    club.close();
    Ok(())
}

/// A guest that the config tells nothing gets the member's own keys, and not root's.
fn what_a_member_applies() -> Outcome {
    let club = Club::new()?;
    file(&club, ".ssh/id.pub", "ssh-ed25519 AAAAmember12 member@here\n", MEMBER);
    let config = fs::read_to_string(club.world().config_file()).expect("the config");
    let declared = format!("{config}\n[[vm]]\nname = \"web\"\ntemplate = \"halt\"\nrunning = false\n");
    club.world().config(&declared);
    club.v(["plan"]).fails(10, &["1 VM to create"]);
    let applied = club.v(["apply", "--yes"]).ok();
    assert!(applied.stderr.contains("created `web`"), "{applied:?}");
    let text = seed(&club, "web");
    assert!(text.contains("AAAAmember"), "{text}");
    assert_eq!(club.v(["apply", "--yes"]).ok().stderr, "nothing to do\n");
    club.v(["vm", "protect", "web"]).ok();
    club.v(["vm", "delete", "web"]).fails(4, &["protected"]);
    assert!(club.v(["vm", "export", "web"]).ok().stdout.contains("template = \"halt\""));
    club.v(["vm", "protect", "--off", "web"]).ok();
    club.v(["vm", "delete", "web"]).ok();
    club.world().assert_empty();
    club.close();
    Ok(())
}
