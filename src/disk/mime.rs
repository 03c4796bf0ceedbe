//! User data of several parts, in the form that cloud-init reads: a MIME multipart message with
//! base64 bodies, so that no byte of a part can end it or be taken for a header.

use std::fmt::Write;

use crate::error::{Error, Result};

/// One piece of raw cloud-init user data, as its file holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The file's name, for cloud-init's log and its copy in the guest.
    pub name: String,
    pub content: Vec<u8>,
}

/// How a cloud-config joins those before it: lists are added to, what is said first stays. A part
/// that says `merge_how` itself is obeyed by cloud-init.
const MERGE: &str = "list(append)+dict(recurse_array)+str()";

pub(super) const CLOUD_CONFIG: &str = "text/cloud-config";
pub(super) const BOOTHOOK: &str = "text/cloud-boothook";

/// The beginnings that cloud-init knows, longer ones before those they begin with. It ignores
/// their case and white space before them.
const BEGINNINGS: [(&str, &str); 9] = [
    ("#cloud-config-archive", "text/cloud-config-archive"),
    ("#cloud-config-jsonp", "text/cloud-config-jsonp"),
    ("## template: jinja", "text/jinja2"),
    ("#cloud-boothook", BOOTHOOK),
    ("#include-once", "text/x-include-once-url"),
    ("#part-handler", "text/part-handler"),
    ("#cloud-config", CLOUD_CONFIG),
    ("#include", "text/x-include-url"),
    ("#!", "text/x-shellscript"),
];

/// A part's MIME type, by its first line. What cloud-init would ignore in silence is refused here.
pub(super) fn content_type(part: &Part) -> Result<&'static str> {
    let refuse = |what: &str, hint: &str| {
        Err(Error::usage(format!("the cloud-init file `{}` {what}", part.name)).hint(hint.to_owned()))
    };
    if part.content.starts_with(&[0x1f, 0x8b]) {
        return refuse("is compressed", "decompress it first: `gunzip`");
    }
    let Ok(text) = std::str::from_utf8(&part.content) else {
        return refuse("is not UTF-8 text", "save it as UTF-8");
    };
    let text = text.trim_start();
    if text.is_empty() {
        return refuse("is empty", "remove it from `cloud_init`, or begin it with `#cloud-config`");
    }
    let begins =
        |beginning: &str| text.get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning));
    if let Some((_, kind)) = BEGINNINGS.iter().find(|(beginning, _)| begins(beginning)) {
        return Ok(kind);
    }
    if begins("content-type:") || begins("mime-version:") {
        return refuse("is a MIME archive already", "list the files it was made of, each by itself");
    }
    refuse(
        "does not begin as cloud-init user data does",
        "its first line must be `#cloud-config`, `#!` and an interpreter, `#include`, `#cloud-boothook`, \
         `#cloud-config-archive` or `## template: jinja`",
    )
}

/// One body with the name and type it is announced with.
pub(super) struct Body<'a> {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) content: &'a [u8],
}

pub(super) fn multipart(bodies: &[Body<'_>]) -> String {
    // `=` and `_` together never occur in base64, so no body can hold the boundary.
    const BOUNDARY: &str = "=_virshle_part_=";
    let mut text = format!("Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\nMIME-Version: 1.0\n\n");
    for body in bodies {
        let _ = writeln!(text, "--{BOUNDARY}");
        let _ = writeln!(text, "Content-Type: {}; charset=\"utf-8\"", body.kind);
        let _ = writeln!(text, "MIME-Version: 1.0");
        let _ = writeln!(text, "Content-Transfer-Encoding: base64");
        let _ = writeln!(text, "Content-Disposition: attachment; filename=\"{}\"", header_safe(&body.name));
        if matches!(body.kind, CLOUD_CONFIG | "text/jinja2") {
            let _ = writeln!(text, "Merge-Type: {MERGE}");
        }
        text.push('\n');
        base64_lines(body.content, &mut text);
    }
    let _ = writeln!(text, "--{BOUNDARY}--");
    text
}

/// The message with another content of its first body; `None` when it is not as [`multipart`] makes it.
pub(super) fn edit_first(message: &str, change: impl FnOnce(&str) -> Option<String>) -> Option<String> {
    let (_, parts) = message.split_once("\n\n")?;
    let (_, body) = parts.split_once("\n\n")?;
    // base64 has no hyphen.
    let end = body.find("--")?;
    let mut text = message[..message.len() - body.len()].to_owned();
    let content = String::from_utf8(decode(&body[..end])?).ok()?;
    base64_lines(change(&content)?.as_bytes(), &mut text);
    text.push_str(&body[end..]);
    Some(text)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut word, mut bits) = (0_u32, 0);
    for c in text.bytes().filter(|c| !matches!(c, b'\n' | b'=')) {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        word = (word << 6) | u32::from(digit);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    Some(bytes)
}

/// A file name as a header may hold it, and as a guest may save it under.
fn header_safe(name: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let name: String = name.chars().map(|c| if safe(c) { c } else { '_' }).take(64).collect();
    if name.trim_matches('.').is_empty() { "part".to_owned() } else { name }
}

fn base64_lines(bytes: &[u8], text: &mut String) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // 57 bytes are the 76 characters that MIME allows in a line.
    for line in bytes.chunks(57) {
        for group in line.chunks(3) {
            let word = group.iter().fold(0, |word, &byte| (word << 8) | u32::from(byte)) << (8 * (3 - group.len()));
            for digit in 0..4 {
                let index = (word >> (18 - 6 * digit)) & 63;
                text.push(if digit <= group.len() { DIGITS[index as usize].into() } else { '=' });
            }
        }
        text.push('\n');
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The bodies of a message as cloud-init would see them: headers and decoded content.
    pub(in crate::disk) fn read_back(text: &str) -> Vec<(String, Vec<u8>)> {
        let (head, rest) = text.split_once("\n\n").unwrap();
        let boundary = head.split_once("boundary=\"").unwrap().1.split_once('"').unwrap().0;
        let rest = rest.strip_suffix(&format!("--{boundary}--\n")).expect("the archive is closed");
        rest.split(&format!("--{boundary}\n"))
            .skip(1)
            .map(|part| {
                let (headers, body) = part.split_once("\n\n").unwrap();
                (headers.to_owned(), decode(body).expect("base64"))
            })
            .collect()
    }

    #[test]
    fn base64_as_in_its_rfc() {
        let rows =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in rows {
            let mut text = String::new();
            base64_lines(plain.as_bytes(), &mut text);
            assert_eq!(text.trim_end(), encoded, "{plain}");
        }
    }

    #[test]
    fn any_byte_comes_back() {
        let all: Vec<u8> = (0..=255).cycle().take(5_000).collect();
        let evil = b"\n--=_virshle_part_=--\nContent-Type: text/x-shellscript\n\n#!/bin/sh\n".to_vec();
        let body = |content| Body { name: "a\"\r\nX: y".into(), kind: CLOUD_CONFIG, content };
        let read = read_back(&multipart(&[body(&all), body(&evil), body(b"")]));
        assert_eq!(read.len(), 3);
        assert_eq!(read[0].1, all);
        assert_eq!(read[1].1, evil);
        assert_eq!(read[2].1, b"");
        assert!(read[0].0.contains("filename=\"a___X__y\""), "{}", read[0].0);
    }

    #[test]
    fn the_first_body_is_changed_and_the_others_stay() {
        let body = |content| Body { name: "x".into(), kind: CLOUD_CONFIG, content };
        let message = multipart(&[body(b"one"), body(b"two--"), body(b"")]);
        let longer = "a much longer content ".repeat(20);
        let edited = edit_first(&message, |content| (content == "one").then(|| longer.clone())).unwrap();
        assert_eq!(edited, multipart(&[body(longer.as_bytes()), body(b"two--"), body(b"")]));
        assert_eq!(edit_first(&edited, |_| Some("one".to_owned())).unwrap(), message, "and back");
        for other in ["", "no message", "a\n\nb\n\nnot base64: é--"] {
            assert_eq!(edit_first(other, |_| Some(String::new())), None, "{other:?}");
        }
    }

    #[test]
    fn kinds() {
        let rows: [(&str, Option<&str>); 17] = [
            ("#cloud-config\nusers: []", Some("text/cloud-config")),
            ("\n  #Cloud-Config\n", Some("text/cloud-config")),
            ("#!/bin/sh\n", Some("text/x-shellscript")),
            ("#include\nhttp://x/", Some("text/x-include-url")),
            ("#include-once http://x/", Some("text/x-include-once-url")),
            ("## template: jinja\n#cloud-config", Some("text/jinja2")),
            ("#cloud-boothook\n", Some("text/cloud-boothook")),
            ("#cloud-config-archive\n- x", Some("text/cloud-config-archive")),
            ("#cloud-config-jsonp\n[]", Some("text/cloud-config-jsonp")),
            ("#part-handler\n", Some("text/part-handler")),
            ("Content-Type: multipart/mixed\n", None),
            ("MIME-Version: 1.0\n", None),
            ("", None),
            (" \n", None),
            ("users: []\n", None),
            ("#c", None),
            ("é", None),
        ];
        for (text, kind) in rows {
            let part = Part { name: "x.yaml".into(), content: text.into() };
            assert_eq!(content_type(&part).ok(), kind, "{text:?}");
        }
        for bytes in [&[0x1f, 0x8b, 8][..], &[b'#', 0xff]] {
            let part = Part { name: "x.yaml".into(), content: bytes.into() };
            assert!(content_type(&part).is_err(), "{bytes:?}");
        }
    }
}
