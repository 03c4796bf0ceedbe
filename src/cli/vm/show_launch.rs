use clap::Args;

use super::select::One;
use crate::cli::ui::{Format, Ui};
use crate::error::{OrFailed, Result};
use crate::hypervisor::{Call, Script};
use crate::vm::{self, Site};

/// Print what a start would run and send: the argv, and each call with its JSON
#[derive(Debug, Args)]
pub(crate) struct ShowLaunch {
    #[command(flatten)]
    vm: One,
    /// How to print it: `table` is for a shell, `json` is exact
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl ShowLaunch {
    pub(super) fn run(self, site: &Site, ui: &Ui) -> Result<()> {
        let store = site.store()?;
        let spec = self.vm.find(&store)?.spec;
        let script = vm::show_launch(site, &spec)?;
        match self.output {
            Format::Json => ui.data(serde_json::to_string_pretty(&script).or_failed(|| "cannot write JSON".into())?),
            Format::Yaml => ui.data(serde_yaml_ng::to_string(&script).or_failed(|| "cannot write YAML".into())?),
            Format::Table => {
                for helper in &script.helpers {
                    ui.data(format!("{} &\n", command_line(helper)));
                }
                ui.data(command_line(&script.by_hand));
                for call in &script.calls {
                    ui.data(self::call(&script, call)?);
                }
            }
        }
        Ok(())
    }
}

/// One option to a line, with its value.
fn command_line(argv: &[String]) -> String {
    let mut text = String::new();
    for (index, word) in argv.iter().enumerate() {
        let separator = match index {
            0 => "",
            _ if word.starts_with('-') => " \\\n  ",
            _ => " ",
        };
        text += separator;
        text += &quote(word);
    }
    text
}

/// A call as a command where `curl` can make it (cloud-hypervisor), else as its JSON (QMP).
fn call(script: &Script, call: &Call) -> Result<String> {
    let note = call.note.as_ref().map(|note| format!("\n# {note}")).unwrap_or_default();
    let Some((method, path)) = call.request.split_once(' ') else {
        return Ok(format!("{note}\n{{\"execute\": \"{}\"}}", call.request));
    };
    let socket = quote(&script.socket.display().to_string());
    let mut text = format!("{note}\ncurl --unix-socket {socket} -X {method} http://localhost{path}");
    if let Some(body) = &call.body {
        let body = serde_json::to_string_pretty(body).or_failed(|| "cannot write JSON".into())?;
        text += &format!(" --json @- <<'JSON'\n{body}\nJSON");
    }
    Ok(text)
}

/// A word as a shell reads it back.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        let rows = [("a=b,c", "a=b,c"), ("a b", "'a b'"), ("", "''"), ("it's", r"'it'\''s'"), ("$(x)", "'$(x)'")];
        for (word, quoted) in rows {
            assert_eq!(quote(word), quoted);
        }
    }
}
