//! The few words of a caller's environment that a command of root's gets: how to paint, and the
//! local time. Their values cannot name a file. Languages are not among them: programs whose
//! output is read would answer in them.

use std::collections::BTreeMap;

const NAMES: [&str; 6] = ["TERM", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "TZ"];

/// Of all variables, those that are passed on.
pub fn passed_on(all: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    all.into_iter().filter(|(name, value)| NAMES.contains(&name.as_str()) && is_harmless(name, value)).collect()
}

fn is_harmless(name: &str, value: &str) -> bool {
    let word = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'_' | b'.'));
    let fits = match name {
        // `Europe/Berlin`: below the host's time zones and nowhere else.
        "TZ" => value.split('/').all(|piece| !piece.is_empty() && !piece.starts_with('.') && word(piece)),
        _ => word(value),
    };
    fits && value.len() <= 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_words_pass() {
        let rows = [
            ("TERM", "xterm-256color", true),
            ("NO_COLOR", "1", true),
            ("NO_COLOR", "", true),
            ("COLUMNS", "120", true),
            ("TZ", "Europe/Berlin", true),
            ("TZ", "UTC", true),
            ("TZ", "Etc/GMT+5", true),
            ("TZ", "/etc/shadow", false),
            ("TZ", ":/etc/shadow", false),
            ("TZ", "../../../etc/shadow", false),
            ("TZ", "Europe/../../shadow", false),
            ("TERM", "../x", false),
            ("TERM", "x\n", false),
            ("LD_PRELOAD", "x", false),
            ("PATH", "x", false),
            ("SUDO_UID", "0", false),
            ("VIRSHLE_ROOT", "x", false),
            ("COMPLETE", "bash", false),
            ("LANG", "C", false),
        ];
        for (name, value, passes) in rows {
            let passed = passed_on([(name.to_owned(), value.to_owned())]);
            assert_eq!(!passed.is_empty(), passes, "{name}={value}");
        }
        assert!(passed_on([("TERM".to_owned(), "x".repeat(65))]).is_empty());
    }
}
