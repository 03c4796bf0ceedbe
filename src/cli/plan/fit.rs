//! Two values side by side in a table: of long ones, what differs.

/// As many characters as need no shortening, and as many of an old value as are shown.
const LONG: usize = 40;
/// The same of a new one.
const LONGEST: usize = 60;

pub(super) fn fit(old: Option<&str>, new: Option<&str>) -> (Option<String>, Option<String>) {
    let is_long = |text: &&str| text.chars().count() > LONG;
    match (old, new) {
        (Some(old), Some(new)) if [old, new].iter().any(is_long) => {
            let word = label(old, new);
            let start = word + common(&old[word..], &new[word..]);
            let (old, new) = (cut(old, word, start), cut(new, word, start));
            (Some(clip(&old, LONG)), Some(clip(&new, LONGEST)))
        }
        _ => (old.map(|old| clip(old, LONG)), new.map(|new| clip(new, LONGEST))),
    }
}

/// How long the word is that both have before a path, to say whose it is: it stays.
fn label(old: &str, new: &str) -> usize {
    let word = |text: &str| text.find(' ').filter(|end| text[end + 1..].starts_with('/'));
    match word(old) {
        Some(end) if word(new) == Some(end) && old[..end] == new[..end] => end + 1,
        _ => 0,
    }
}

/// Where the first word begins that differs, or the first part of a path.
fn common(old: &str, new: &str) -> usize {
    let alike = old.char_indices().zip(new.chars()).take_while(|((_, old), new)| old == new);
    let is_path = old.starts_with('/');
    let ends = |letter: char| letter == ' ' || is_path && letter == '/';
    alike.filter(|((_, letter), _)| ends(*letter)).last().map_or(0, |((index, letter), _)| index + letter.len_utf8())
}

fn cut(text: &str, word: usize, start: usize) -> String {
    if start > word + 1 { format!("{}…{}", &text[..word], &text[start..]) } else { text.to_owned() }
}

fn clip(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_show_what_differs() {
        let line = "root=/dev/vda1 console=ttyS0 quiet loglevel=4 tsc=reliable";
        let long = "ä".repeat(61);
        let (short, clipped) = (format!("{}…", "ä".repeat(39)), format!("{}…", "ä".repeat(59)));
        let image = |name: &str| format!("/srv/images/debian/bookworm/generic/{name}.qcow2");
        let rows = [
            (
                Some("/boot/vmlinuz-6.1"),
                Some("/boot/vmlinuz-6.12"),
                Some("/boot/vmlinuz-6.1"),
                Some("/boot/vmlinuz-6.12"),
            ),
            (Some(line), Some(&*format!("{line} x=1")), Some("…tsc=reliable"), Some("…tsc=reliable x=1")),
            (None, Some(line), None, Some(line)),
            (Some(&image("12")), Some(&image("13")), Some("…12.qcow2"), Some("…13.qcow2")),
            (
                Some(&format!("vars {}", image("12"))),
                Some(&format!("vars {}", image("13"))),
                Some("vars …12.qcow2"),
                Some("vars …13.qcow2"),
            ),
            (None, Some(&long), None, Some(&clipped)),
            (Some(&long), Some("b"), Some(&short), Some("b")),
            (None, None, None, None),
        ];
        for (old, new, shown_old, shown_new) in rows {
            let shown = fit(old, new);
            assert_eq!((shown.0.as_deref(), shown.1.as_deref()), (shown_old, shown_new), "{old:?} {new:?}");
        }
    }
}
