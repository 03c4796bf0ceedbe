//! The table in `src/lib.rs` says who may use whom; the code is held to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;

use crate::trials;
use crate::world::Outcome;

pub fn trials() -> Vec<Trial> {
    trials![every_edge_is_in_the_table, only_one_place, no_file_is_too_long, docs_on_every_part]
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The files of modules that are built for tests only: `#[cfg(test)]` above `mod name;`.
fn test_modules(found: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut modules = BTreeSet::new();
    for path in found {
        let text = fs::read_to_string(path).expect("a source");
        let mut for_tests = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'))
                && for_tests
            {
                let dir = path.parent().expect("a folder");
                modules.extend([dir.join(format!("{name}.rs")), dir.join(name)]);
            }
            for_tests = line == "#[cfg(test)]" || (for_tests && line.starts_with("#["));
        }
    }
    modules
}

/// Each source file with its part's name and its text, tests left out.
fn sources() -> Vec<(String, PathBuf, String)> {
    let mut found = Vec::new();
    files(&source(), &mut found);
    let tests = test_modules(&found);
    found
        .into_iter()
        .filter(|path| !path.ancestors().any(|path| tests.contains(path)))
        .map(|path| {
            let inside = path.strip_prefix(source()).expect("below src");
            let first = inside.components().next().expect("a part").as_os_str().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("a source");
            let text = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
            (first.trim_end_matches(".rs").to_owned(), path, text)
        })
        .filter(|(part, ..)| part != "lib" && part != "main")
        .collect()
}

/// `part -> what it may use`, from the table of the crate's doc.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let lib = fs::read_to_string(source().join("lib.rs")).expect("lib.rs");
    let rows = lib.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("//! | `")?.split('|');
        let part = cells.next()?.trim().trim_end_matches('`').to_owned();
        let allowed = cells.next()?.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        Some((part, allowed.collect()))
    });
    rows.collect()
}

/// The parts named in `crate::…` paths, also in `use crate::{a, b::c}`.
fn used(text: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut parts = BTreeSet::new();
    for (index, _) in code.match_indices("crate::") {
        let rest = &code[index + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => drop(parts.insert(word(rest))),
            Some(group) => {
                let mut depth = 0;
                let group = group.chars().take_while(|c| {
                    depth += i32::from(*c == '{') - i32::from(*c == '}');
                    depth >= 0
                });
                let mut inner = 0;
                let mut piece = String::new();
                for c in group.chain([',']) {
                    inner += i32::from(c == '{') - i32::from(c == '}');
                    if c == ',' && inner == 0 {
                        parts.insert(word(piece.trim()));
                        piece.clear();
                    } else {
                        piece.push(c);
                    }
                }
            }
        }
    }
    parts.remove("");
    parts
}

fn every_edge_is_in_the_table() -> Outcome {
    let table = table();
    assert!(table.len() > 10, "the table of lib.rs was not read: {table:?}");
    assert_eq!(used("use crate::{a, b::{c, d}, e::f};\ncrate::g::h()"), ["a", "b", "e", "g"].map(str::to_owned).into());
    let mut wrong = Vec::new();
    for (part, path, text) in sources() {
        let allowed = table.get(&part).unwrap_or_else(|| panic!("`{part}` is not in the table of lib.rs"));
        for other in used(&text) {
            let open = other == part || other == "error" || other == "spec";
            if !open && !allowed.contains(&other) {
                wrong.push(format!("{}: `{part}` uses `{other}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn only_one_place() -> Outcome {
    let rows = [
        ("only `store` has SQL", &["store"][..], &["SELECT ", "INSERT INTO", "PRAGMA "][..]),
        ("only `host` starts processes", &["host"], &["std::process::Command", "Command::new("]),
        ("only `host` is unsafe", &["host"], &["unsafe {", "allow(unsafe_code)"]),
        ("only `cli` prints", &["cli"], &["println!(", "print!("]),
        ("nothing is left to do", &[], &["todo!(", "unimplemented!(", "TODO", "FIXME"]),
    ];
    for (rule, places, words) in rows {
        for (part, path, text) in sources() {
            let found = words.iter().find(|word| text.contains(**word));
            assert!(found.is_none() || places.contains(&part.as_str()), "{rule}: {} has {found:?}", path.display());
        }
    }
    Ok(())
}

fn no_file_is_too_long() -> Outcome {
    let mut found = Vec::new();
    files(&source(), &mut found);
    for path in found {
        let lines = fs::read_to_string(&path).expect("a source").lines().count();
        assert!(lines <= 650, "{} has {lines} lines: what is it two of?", path.display());
        let depth = path.strip_prefix(source()).expect("below src").components().count();
        assert!(depth <= 3, "{} lies deeper than three folders", path.display());
    }
    Ok(())
}

fn docs_on_every_part() -> Outcome {
    for part in table().keys() {
        let folder = source().join(part).join("mod.rs");
        let path = if folder.exists() { folder } else { source().join(format!("{part}.rs")) };
        let text = fs::read_to_string(&path).unwrap_or_else(|_| panic!("`{part}` of the table does not exist"));
        assert!(text.starts_with("//! "), "{} does not begin with what it is", path.display());
    }
    Ok(())
}
