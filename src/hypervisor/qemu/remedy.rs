use crate::error::Error;
use crate::hypervisor::launch_log::LaunchLog;

/// A failure with QEMU's last words as its cause (unless it has one of its own) and what a person
/// can do about them.
pub(super) fn explain(log: &LaunchLog, error: Error) -> Error {
    let words = log.last_words();
    let error = match (error.hint_text(), words.as_deref().and_then(remedy)) {
        (Some(_), _) => error,
        (None, Some(remedy)) => error.hint(remedy),
        (None, None) => error.hint(format!("QEMU's own log is `{}`", log.path().display())),
    };
    let has_cause = std::error::Error::source(&error).is_some();
    match words {
        Some(words) if !has_cause => error.source(words),
        _ => error,
    }
}

/// What to do about the failures that are met most.
pub(super) fn remedy(words: &str) -> Option<&'static str> {
    const REMEDIES: [(&str, &str); 8] = [
        ("Could not access KVM kernel module", "set `accel = \"tcg\"`, or give this user access to `/dev/kvm`"),
        ("failed to initialize kvm", "set `accel = \"tcg\"`, or give this user access to `/dev/kvm`"),
        ("Failed to get \"write\" lock", "another process has the disk open; stop it first"),
        ("Failed to get shared \"write\" lock", "another process has the disk open; stop it first"),
        ("Could not set up host forwarding rule", "a forwarded port is taken by another program"),
        ("Cannot allocate memory", "the host has too little free memory for this VM; give it less `vram`"),
        ("cannot set up guest memory", "the host has too little free memory for this VM; give it less `vram`"),
        ("seccomp support is disabled", "install a QEMU that is built with seccomp"),
    ];
    REMEDIES.iter().find(|(symptom, _)| words.contains(symptom)).map(|(_, remedy)| *remedy)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_last_words_become_the_cause_and_the_hint() {
        let dir = tempfile::tempdir().unwrap();
        let (log, mut file) = LaunchLog::open(&dir.path().join("launch.log")).unwrap();
        assert!(explain(&log, Error::failed("cannot launch")).hint_text().unwrap().contains("launch.log"));
        writeln!(file, "first\n\nqemu: failed to initialize kvm: Permission denied").unwrap();
        let error = explain(&log, Error::failed("cannot launch"));
        assert_eq!(error.chain()[1], "first\nqemu: failed to initialize kvm: Permission denied");
        assert!(error.hint_text().unwrap().contains("accel"), "{error:?}");
        let error = explain(&log, Error::failed("cannot launch").hint("own hint").source("own cause"));
        assert_eq!((error.hint_text(), error.chain()[1].as_str()), (Some("own hint"), "own cause"));
    }
}
