use std::fs::{self, File};
use std::io::{BufRead, BufReader, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use libtest_mimic::Trial;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::{Club, LIMIT, MEMBER, STRANGER};
use crate::trials;
use crate::world::{Outcome, eventually, run};

pub fn trials() -> Vec<Trial> {
    trials![
        one_who_is_no_member_is_refused,
        only_some_verbs_are_for_members,
        nonsense_is_refused,
        one_member_cannot_take_it_all,
    ]
}

/// What a client of another make sends.
pub struct Order {
    pub line: String,
    pub enclosed: Vec<u8>,
    fds: Vec<File>,
}

impl Order {
    pub fn of(words: &[&str]) -> Self {
        let line = serde_json::json!({ "protocol": 1, "words": words, "environment": {}, "enclosed": 0 });
        let null = || File::options().read(true).write(true).open("/dev/null").expect("/dev/null");
        Self { line: line.to_string(), enclosed: Vec::new(), fds: vec![null(), null(), null()] }
    }

    /// The helper's answers, as root's who may always ask.
    pub fn send(&self, club: &Club) -> Vec<String> {
        self.send_over(UnixStream::connect(club.socket()).expect("the helper listens"))
    }

    fn send_over(&self, mut stream: UnixStream) -> Vec<String> {
        stream.set_read_timeout(Some(LIMIT)).expect("a deadline");
        let line = self.line.replace("\"enclosed\":0", &format!("\"enclosed\":{}", self.enclosed.len()));
        let bytes = [line.as_bytes(), b"\n", &self.enclosed].concat();
        let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        let sent = sendmsg(&stream, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL).expect("it is sent");
        // One that refuses need not read to the end.
        let _ = stream.write_all(&bytes[sent..]);
        BufReader::new(stream).lines().map_while(Result::ok).collect()
    }
}

/// Connects as a user, as often as wished.
fn connect_as(uid: u32, club: &Club, count: usize) -> Vec<UnixStream> {
    let socket = club.socket();
    // Root's rights are a thread's own.
    let connecting = std::thread::spawn(move || {
        let (user, group) = (rustix::thread::Uid::from_raw(uid), rustix::thread::Gid::from_raw(4242));
        set_thread_groups(&[]).expect("no groups");
        set_thread_res_gid(group, group, group).expect("the group");
        set_thread_res_uid(user, user, user).expect("the user");
        (0..count).map(|_| UnixStream::connect(&socket).expect("the helper listens")).collect()
    });
    connecting.join().expect("they connect")
}

fn one_who_is_no_member_is_refused() -> Outcome {
    let club = Club::new()?;
    club.v(["vm", "create", "-t", "halt", "-n", "web"]).ok();
    let doctor = |command| run(command, LIMIT).stdout;
    // The socket is closed to one whose session has not the group: what is left is the caller's own.
    run(club.of(STRANGER, "", ["vm", "start", "web"]), LIMIT).fails(1, &["Permission denied"]);
    let told = doctor(club.of(STRANGER, "", ["doctor", "-o", "json"]));
    assert!(told.contains("usermod -aG virshle"), "{told}");
    // One whose session has it, or who gets hold of the socket in another way, is no member by that.
    run(club.of(STRANGER, "4242", ["vm", "ls"]), LIMIT).fails(4, &["`daemon` is not one of the group", "usermod"]);
    fs::set_permissions(club.socket(), fs::Permissions::from_mode(0o666)).expect("open to all");
    run(club.of(STRANGER, "", ["vm", "delete", "web"]), LIMIT).fails(4, &["`daemon` is not one of the group"]);
    run(club.of(4_000_000, "", ["vm", "ls"]), LIMIT).fails(4, &["uid 4000000 is not one of the group"]);
    // Also not one who pretends to have been started by sudo.
    let mut command = club.of(STRANGER, "", ["vm", "ls"]);
    run(
        {
            command.env("SUDO_UID", "0");
            command
        },
        LIMIT,
    )
    .fails(4, &["`daemon` is not one of the group"]);
    assert_eq!(club.state_of("web"), "stopped");
    // Nor the user that hypervisors run as, whatever group somebody put it in.
    club.stage.config("");
    let text = fs::read_to_string(club.world().config_file()).expect("the config");
    club.world().config(&text.replacen("[node]\n", "[node]\nuser = \"nobody\"\n", 1));
    club.v(["vm", "ls"]).fails(4, &["`nobody` is not one of the group"]);
    club.world().config(&text);
    // A member's own VMs are where they were.
    let mut command = club.member(["--session", "vm", "ls", "-o", "json"]);
    assert_eq!(
        run(
            {
                command.env_remove("VIRSHLE_ROOT");
                command
            },
            LIMIT
        )
        .ok()
        .stdout
        .trim(),
        "[]"
    );
    club.v(["vm", "delete", "web"]).ok();
    club.close();
    Ok(())
}

fn only_some_verbs_are_for_members() -> Outcome {
    let club = Club::new()?;
    let uuid = "8f2f8a3e-0000-4000-8000-000000000000";
    for words in [
        &["supervise", uuid][..],
        &["relay", "--run", "--", "vm", "ls"],
        &["--root", "/tmp", "vm", "ls"],
        &["vm", "ls", "--root=/tmp"],
        &["--session", "vm", "ls"],
        &["config", "check", "/etc/shadow"],
        &["man", "--dir", "/etc"],
        &["vm", "ssh", "web"],
        &["--help"],
        &[],
    ] {
        let answers = Order::of(words).send(&club);
        assert!(answers.len() == 1 && answers[0].contains("refused"), "{words:?}: {answers:?}");
    }
    let answers = Order::of(&["vm", "ls"]).send(&club);
    assert!(answers.len() == 2 && answers[1].contains("\"code\":0"), "{answers:?}");
    // Of the environment, the helper takes what is harmless, whatever is sent.
    let mut order = Order::of(&["vm", "ls"]);
    order.line = order.line.replace("{}", r#"{"COMPLETE":"bash","LD_PRELOAD":"/x","SUDO_UID":"0"}"#);
    assert!(order.send(&club)[1].contains("\"code\":0"));
    // Writing where the kernel takes a write for a command is not done for anybody.
    order.fds[1] = File::options().write(true).open("/proc/self/oom_score_adj").expect("a file of /proc");
    assert!(order.send(&club)[0].contains("plain files"));
    club.close();
    Ok(())
}

fn nonsense_is_refused() -> Outcome {
    let club = Club::new()?;
    let good = Order::of(&["vm", "ls"]);
    let long = "x".repeat(100_000);
    for line in ["GET / HTTP/1.1", "{}", "\0", &good.line.replace(":1", ":9"), &good.line.replace("vm", &long)] {
        let answers = Order { line: line.to_owned(), ..Order::of(&[]) }.send(&club);
        assert!(answers.len() == 1 && answers[0].contains("refused"), "{line:.40}: {answers:?}");
    }
    for count in [1, 2, 4, 16] {
        let fds = (0..count).map(|_| File::open("/dev/null").expect("/dev/null")).collect();
        let answers = Order { fds, ..Order::of(&["vm", "ls"]) }.send(&club);
        assert!(answers.len() == 1 && answers[0].contains("refused"), "{count}: {answers:?}");
    }
    // One who talks nonsense later has cancelled the command.
    club.v(["vm", "create", "-t", "halt", "-n", "still", "--start"]).ok();
    let mut stream = UnixStream::connect(club.socket()).expect("the helper listens");
    let mut other = stream.try_clone().expect("a second handle");
    let waiting = std::thread::spawn(move || {
        Order::of(&["vm", "wait", "still", "--for", "stopped", "--timeout", "600"])
            .send_over(other.try_clone().expect("a third"));
        let _ = other.flush();
    });
    eventually("the command runs", LIMIT, || club.commands().len() == 1);
    stream.write_all(b"what?").expect("it is sent");
    waiting.join().expect("it is answered");
    eventually("the command is gone", LIMIT, || club.commands().is_empty());
    club.v(["vm", "ls"]).ok();
    club.close();
    Ok(())
}

fn one_member_cannot_take_it_all() -> Outcome {
    let club = Club::new()?;
    // They connect and say nothing.
    let idle = connect_as(MEMBER, &club, 100);
    let refused = |stream: &UnixStream| {
        stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a deadline");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).is_ok() && line.contains("commands already")
    };
    let mut told = vec![false; idle.len()];
    eventually("those above the limit are told", LIMIT, || {
        idle.iter().zip(&mut told).for_each(|(stream, told)| *told = *told || refused(stream));
        told.iter().filter(|told| **told).count() == 100 - 64
    });
    club.v(["vm", "ls"]).fails(4, &["64 commands already"]);
    assert!(Order::of(&["vm", "ls"]).send(&club)[1].contains("\"code\":0"), "others are served meanwhile");
    drop(idle);
    eventually("there is room again", LIMIT, || run(club.member(["vm", "ls"]), LIMIT).code == Some(0));
    club.close();
    Ok(())
}
