use clap::Args;

use super::select::One;
use crate::cli::ui::{Format, Ui};
use crate::error::{OrFailed, Result};
use crate::vm::{self, Site};

/// Print what a start would run and send: the argv, and each call with its JSON
#[derive(Debug, Args)]
pub(crate) struct ShowLaunch {
    #[command(flatten)]
    vm: One,
    /// `table` is for a shell; `json` has the argv and the calls
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
                let quoted: Vec<String> = script.argv.iter().map(|word| quote(word)).collect();
                ui.data(quoted.join(" \\\n  "));
                for call in &script.calls {
                    let note = call.note.as_ref().map(|note| format!("  # {note}")).unwrap_or_default();
                    ui.data(format!("\n# {}{note}", call.request));
                    if let Some(body) = &call.body {
                        ui.data(serde_json::to_string_pretty(body).or_failed(|| "cannot write JSON".into())?);
                    }
                }
            }
        }
        Ok(())
    }
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
