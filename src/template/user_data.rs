//! Who may log into a guest. It is read as strictly as the config, and everything in it is data:
//! odd characters survive as they are, and what would break out of a line is refused.
//!
//! Errors never show a line of this file: it may hold password hashes.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::config::{Excerpts, Source, home, resolve};
use crate::error::{Error, Result};

/// The users of a guest, and raw cloud-init user-data to lay beside them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserData {
    pub users: Vec<User>,
    pub cloud_init: Vec<PathBuf>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub name: String,
    #[serde(default)]
    pub ssh: Ssh,
    /// Whether the user may become root without a password.
    #[serde(default = "yes")]
    pub sudo: bool,
    /// The login shell; the distribution's when none.
    #[serde(default)]
    pub shell: Option<String>,
    /// In crypt's form, `$6$…$…`.
    #[serde(default)]
    pub password_hash: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ssh {
    #[serde(default)]
    pub authorized_keys: Vec<String>,
}

/// The hash is a secret: it stays out of logs.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .field("ssh", &self.ssh)
            .field("sudo", &self.sudo)
            .field("shell", &self.shell)
            .field("password_hash", &self.password_hash.as_ref().map(|_| "…"))
            .finish()
    }
}

fn yes() -> bool {
    true
}

/// The file's own form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    user: Vec<User>,
    #[serde(default, rename = "cloud-init", deserialize_with = "one_or_more")]
    cloud_init: Vec<PathBuf>,
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    struct Visitor;
    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Vec<PathBuf>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a path or a list of paths")
        }

        fn visit_str<E: de::Error>(self, path: &str) -> Result<Vec<PathBuf>, E> {
            Ok(vec![path.into()])
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<PathBuf>, A::Error> {
            let mut paths = Vec::new();
            while let Some(path) = list.next_element()? {
                paths.push(path);
            }
            Ok(paths)
        }
    }
    deserializer.deserialize_any(Visitor)
}

impl UserData {
    /// Reads the text that `origin` holds; paths in it start at `origin`'s folder.
    pub fn parse(text: &str, origin: &Path) -> Result<Self> {
        let (file, source): (File, Source) = Source::read(origin, text.to_owned(), Excerpts::Hidden)?;
        let mut seen = HashSet::new();
        for (index, user) in file.user.iter().enumerate() {
            check(user).map_err(|wrong| wrong.at(&source, &format!("user[{index}]")))?;
            if !seen.insert(&user.name) {
                let wrong = Wrong::new("name", format!("is `{}`, which another user has already", user.name));
                return Err(wrong.at(&source, &format!("user[{index}]")));
            }
        }
        let origin = std::path::absolute(origin)
            .map_err(|error| Error::usage(format!("cannot use `{}`", origin.display())).source(error))?;
        let folder = origin.parent().unwrap_or(Path::new("/"));
        let home = home();
        let single = file.cloud_init.len() == 1;
        let cloud_init = file.cloud_init.iter().enumerate().map(|(index, path)| {
            let key = if single { "cloud-init".to_owned() } else { format!("cloud-init[{index}]") };
            resolve(path, folder, home.as_deref()).map_err(|what| source.wrong(&key, what))
        });
        Ok(Self { cloud_init: cloud_init.collect::<Result<_>>()?, users: file.user })
    }

    /// Checks users that came another way than in a file, as strictly.
    pub fn check(&self) -> Result<()> {
        let mut names = HashSet::new();
        for (index, user) in self.users.iter().enumerate() {
            if !names.insert(&user.name) {
                return Err(Error::usage(format!("two users are called `{}`", user.name.escape_debug())));
            }
            check(user).map_err(|wrong| {
                let error = Error::usage(format!("`user[{index}].{}` {}", wrong.key, wrong.what));
                match wrong.hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                }
            })?;
        }
        Ok(())
    }

    /// For a VM made without a user-data file: the caller's own name and public keys, each as a
    /// line of a `.pub` or `authorized_keys` file.
    pub fn of_caller(user: &str, keys: Vec<String>) -> Self {
        let lines = keys.iter().flat_map(|text| text.lines()).map(str::trim);
        let authorized_keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned);
        let ssh = Ssh { authorized_keys: authorized_keys.collect() };
        Self {
            users: vec![User { name: user.to_owned(), ssh, sudo: true, shell: None, password_hash: None }],
            cloud_init: Vec::new(),
        }
    }
}

/// What is wrong with a user; `what` completes the sentence "`key` …" and holds no secret.
struct Wrong {
    key: String,
    what: String,
    hint: Option<&'static str>,
}

impl Wrong {
    fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { key: key.into(), what: what.into(), hint: None }
    }

    fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    fn at(self, source: &Source, user: &str) -> Error {
        let error = source.wrong(&format!("{user}.{}", self.key), self.what);
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

fn check(user: &User) -> Result<(), Wrong> {
    if !is_login_name(&user.name) {
        let what = format!("is `{}`, which is not a login name", user.name.escape_debug());
        return Err(Wrong::new("name", what)
            .hint("use 1 to 32 letters, digits, `.`, `_` or `-`, not only digits, and no `-` in front"));
    }
    if let Some(shell) = &user.shell
        && (!shell.starts_with('/') || shell.chars().any(|c| c.is_control() || c == ':'))
    {
        let what = format!("must be a shell's absolute path, not `{}`", shell.escape_debug());
        return Err(Wrong::new("shell", what));
    }
    if user.password_hash.as_deref().is_some_and(|hash| !is_crypt_hash(hash)) {
        return Err(Wrong::new("password_hash", "is not a crypt hash, which looks like `$6$salt$hash`")
            .hint("make one with `mkpasswd -m yescrypt` or `openssl passwd -6`; a plain password is never taken"));
    }
    for (index, key) in user.ssh.authorized_keys.iter().enumerate() {
        check_key(key).map_err(|(what, hint)| Wrong::new(format!("ssh.authorized_keys[{index}]"), what).hint(hint))?;
    }
    Ok(())
}

/// POSIX's portable set, in Linux's length; digits alone would be read as a uid.
fn is_login_name(name: &str) -> bool {
    let portable = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=32).contains(&name.len())
        && name.bytes().all(portable)
        && !name.starts_with('-')
        && !name.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// `$id$…$hash`: what crypt(5) makes, and nothing that `/etc/shadow` would take apart.
fn is_crypt_hash(hash: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'$' | b'.' | b'/' | b'=' | b',' | b'+' | b'-' | b'_');
    let Some(rest) = hash.strip_prefix('$') else { return false };
    let parts: Vec<&str> = rest.split('$').collect();
    hash.bytes().all(legal)
        && parts.len() >= 3
        && !parts[0].is_empty()
        // The shortest hash that is still in use, MD5's, has 22 characters.
        && parts.last().is_some_and(|hash| hash.len() >= 22)
}

/// A public key as ssh-keygen writes it. The text of a wrong one is not repeated: it may be private.
fn check_key(key: &str) -> Result<(), (&'static str, &'static str)> {
    const PUBLIC: &str = "write the line of a `.pub` file: `ssh-ed25519 AAAA… comment`";
    if key.contains("PRIVATE KEY") {
        return Err(("is a private key", "write the public one, from the file that ends in `.pub`"));
    }
    if key.chars().any(char::is_control) {
        return Err(("holds a line break or another control character; a key is one line", PUBLIC));
    }
    let mut words = key.split(' ').filter(|word| !word.is_empty());
    let kind = words.next().unwrap_or_default();
    let known = ["ssh-", "ecdsa-", "sk-"].iter().any(|prefix| kind.starts_with(prefix));
    if !known || !kind.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'@'))
    {
        return Err(("does not begin with a key's type; options in front of it are not taken", PUBLIC));
    }
    let blob = words.next().unwrap_or_default();
    let digits = blob.trim_end_matches('=');
    let base64 = digits.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
    // A key begins with the length of its type's name, a big-endian number below 256.
    if !base64 || !blob.starts_with("AAAA") || !blob.len().is_multiple_of(4) || blob.len() - digits.len() > 2 {
        return Err(("has no whole base64 text after the key's type", PUBLIC));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0Jf0bTzQ0mPz3m4nq8b5kKQ4rWw2x3w6yq0h1v9u7t";
    const HASH: &str =
        "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/";

    fn parse(text: &str) -> Result<UserData> {
        UserData::parse(text, Path::new("/srv/user-data.toml"))
    }

    #[test]
    fn a_whole_file() {
        let data = parse(&format!(
            r#"
            cloud-init = "extra.yaml"
            [[user]]
            name = "anon"
            shell = "/bin/zsh"
            password_hash = '{HASH}'
            [user.ssh]
            authorized_keys = ["{KEY} anon@host"]
            [[user]]
            name = "plain.user_2"
            sudo = false
            "#
        ));
        let data = data.unwrap();
        assert_eq!(data.cloud_init, [PathBuf::from("/srv/extra.yaml")]);
        assert_eq!(data.users[0].shell.as_deref(), Some("/bin/zsh"));
        assert_eq!(data.users[0].ssh.authorized_keys, [format!("{KEY} anon@host")]);
        assert_eq!((data.users[0].sudo, data.users[1].sudo), (true, false));
        assert!(!format!("{data:?}").contains("saltsalt"), "a hash in the debug form");
        let json = serde_json::to_string(&data).unwrap();
        assert_eq!(serde_json::from_str::<UserData>(&json).unwrap(), data);
        assert_eq!(parse("").unwrap(), UserData::default());
        let several = parse("cloud-init = ['a.yaml', '/b.yaml']").unwrap();
        assert_eq!(several.cloud_init, [PathBuf::from("/srv/a.yaml"), PathBuf::from("/b.yaml")]);
    }

    #[test]
    fn odd_characters_in_a_comment_survive() {
        for comment in [
            r#"it's "quoted": yes # not a comment"#,
            r"C:\new\table",
            "$(reboot) `id` ${HOME}",
            "Zoë 鍵 🔑",
            "- {a: [b]}",
            "%",
        ] {
            let line = format!("{KEY} {comment}");
            let written = toml::Value::from(line.as_str());
            let mut data = parse(&format!("[[user]]\nname = 'anon'\nssh.authorized_keys = [{written}]")).unwrap();
            assert_eq!(data.users.remove(0).ssh.authorized_keys, [line], "{comment}");
        }
    }

    #[test]
    fn what_is_refused_and_where() {
        let user = |rest: &str| format!("[[user]]\nname = 'anon'\n{rest}");
        let keys = |key: &str| user(&format!("ssh.authorized_keys = [{}]", toml::Value::from(key)));
        let rows: Vec<(String, &str)> = vec![
            ("users = []".into(), "line 1, column 1: unknown key `users` at the top level"),
            (user("keys = []"), "line 3, column 1: unknown key `keys` in `user[0]`"),
            (user("ssh.authorised_keys = []"), "line 3, column 5: unknown key `authorised_keys` in `user[0].ssh`"),
            (user("sudo = 'yes'"), "line 3, column 8: `user[0].sudo` must be true or false, not a text"),
            ("[user]\nname = 'anon'".into(), "`user` must be a list, not a table"),
            ("[[user]]\nsudo = true".into(), "`user[0]` lacks `name`"),
            (user("[[user]]\nname = 'anon'"), "line 4, column 8: `user[1].name` is `anon`"),
            ("[[user]]\nname = '-x'".into(), "`user[0].name` is `-x`, which is not a login name"),
            ("[[user]]\nname = ''".into(), "not a login name"),
            ("[[user]]\nname = '1000'".into(), "not a login name"),
            ("[[user]]\nname = '..'".into(), "not a login name"),
            ("[[user]]\nname = 'a b'".into(), "not a login name"),
            ("[[user]]\nname = 'a:b'".into(), "not a login name"),
            ("[[user]]\nname = \"a\\nb\"".into(), "`a\\nb`, which is not a login name"),
            (format!("[[user]]\nname = '{}'", "a".repeat(33)), "not a login name"),
            (user("shell = 'zsh'"), "`user[0].shell` must be a shell's absolute path"),
            (user("shell = \"/bin/sh\\nroot\""), "`user[0].shell` must be"),
            (
                keys(&format!("{KEY}\nssh-rsa AAAA")),
                "line 3, column 24: `user[0].ssh.authorized_keys[0]` holds a line break",
            ),
            (keys(&format!("command=\"id\" {KEY}")), "does not begin with a key's type"),
            (keys("ssh-ed25519"), "no whole base64"),
            (keys("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5A"), "no whole base64"),
            (keys("ssh-ed25519 not/base64!!"), "no whole base64"),
            (keys(""), "does not begin with a key's type"),
            ("cloud-init = 3".into(), "`cloud-init` must be a path or a list of paths, not a whole number"),
            ("cloud-init = '~root/x'".into(), "`cloud-init` begins with `~root`"),
            ("cloud-init = ['a', '']".into(), "`cloud-init[1]` must not be empty"),
        ];
        for (text, expected) in rows {
            let error = parse(&text).expect_err(&text);
            assert_eq!(error.kind(), Kind::Usage, "{text}");
            assert!(error.message().starts_with("`/srv/user-data.toml` line "), "{text}: {error}");
            assert!(error.message().contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn secrets_are_not_repeated() {
        let long = format!("{HASH}:x");
        for secret in [
            "hunter2-hunter2-hunter2",
            "$hunter2$hunter2",
            "",
            "!",
            "$6$hunter2$x",
            &long,
            "$6$a b$hunter2hunter2hunter2hunter2",
        ] {
            let error = parse(&format!("[[user]]\nname = 'anon'\npassword_hash = '{secret}'")).unwrap_err();
            assert!(
                error.message().contains("line 3, column 17: `user[0].password_hash` is not a crypt hash"),
                "{error}"
            );
            assert!(secret.is_empty() || secret == "!" || !format!("{error:?}").contains(secret), "{error:?}");
        }
        let faults = [
            "password_hash = 'hunter2' nonsense",
            "password_hash = ['hunter2']",
            "password_hsah = 'hunter2'",
            "ssh.authorized_keys = ['-----BEGIN OPENSSH PRIVATE KEY----- hunter2']",
            "ssh.authorized_keys = ['hunter2']",
        ];
        for fault in faults {
            let error = parse(&format!("[[user]]\nname = 'anon'\n{fault}")).unwrap_err();
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        for hash in [
            HASH,
            "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7",
            "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
            "$1$salt$qJH7.N4xYta3aEG/dfqo/0",
        ] {
            assert!(is_crypt_hash(hash), "{hash}");
        }
    }

    #[test]
    fn users_that_came_without_a_file_are_checked_as_strictly() {
        let named = |name: &str| UserData::of_caller(name, vec![KEY.to_owned()]).users.remove(0);
        let data = |users: Vec<User>| UserData { users, cloud_init: Vec::new() };
        data(vec![named("anon"), named("eve")]).check().unwrap();
        let mut bad_key = named("anon");
        bad_key.ssh.authorized_keys.push("ssh-ed25519 AAAA\nx".to_owned());
        for (users, word) in [
            (vec![named("-oProxyCommand=x")], "login name"),
            (vec![named("anon"), named("anon")], "two users"),
            (vec![bad_key], "authorized_keys[1]"),
        ] {
            let error = data(users).check().unwrap_err();
            assert!(error.message().contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn the_callers_keys_are_taken_line_by_line() {
        let data = UserData::of_caller("anon", vec![format!("{KEY} a\n"), format!("# mine\n\n{KEY} b\r\n{KEY} c")]);
        assert_eq!(data.users[0].ssh.authorized_keys, [format!("{KEY} a"), format!("{KEY} b"), format!("{KEY} c")]);
        assert_eq!((data.users[0].name.as_str(), data.users[0].sudo), ("anon", true));
    }
}
