//! What is declared is what there is: `v plan` and `v apply` from outside, by the program alone.

mod bad;
mod killed;
mod live;
mod midway;
mod names;
mod property;
mod qemu;
mod quiet;
mod same;
mod states;
mod storm;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::world::{Run, World};

pub fn trials() -> Vec<Trial> {
    [
        bad::trials(),
        killed::trials(),
        live::trials(),
        midway::trials(),
        names::trials(),
        property::trials(),
        qemu::trials(),
        quiet::trials(),
        storm::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A plan, as its JSON has it.
#[derive(Debug)]
pub struct Planned {
    pub code: Option<i32>,
    pub rows: Vec<Value>,
}

impl Planned {
    /// A line for each row, like `web live vcpu 1→2`, and what it waits for behind it.
    pub fn lines(&self) -> Vec<String> {
        let text = |row: &Value, key: &str| row[key].as_str().map(str::to_owned);
        let line = |row: &Value| {
            let word = |key| text(row, key).unwrap_or_else(|| "-".to_owned());
            let needs = text(row, "needs").map(|needs| format!(" needs {needs}")).unwrap_or_default();
            format!("{} {} {} {}→{}{needs}", word("vm"), word("change"), word("field"), word("old"), word("new"))
        };
        self.rows.iter().map(line).collect()
    }

    /// The same without what the values are: `web live vcpu`.
    pub fn fields(&self) -> Vec<String> {
        let word = |row: &Value, key: &str| row[key].as_str().expect(key).to_owned();
        let needs = |row: &Value| row["needs"].as_str().map(|needs| format!(" needs {needs}")).unwrap_or_default();
        let line = |row| format!("{} {} {}{}", word(row, "vm"), word(row, "change"), word(row, "field"), needs(row));
        self.rows.iter().map(line).collect()
    }

    /// The rows of a VM.
    pub fn of(&self, vm: &str) -> impl Iterator<Item = &Value> {
        self.rows.iter().filter(move |row| row["vm"] == vm)
    }
}

/// A `[[vm]]` of a template, and what it says beside.
pub fn vm(name: &str, template: &str, more: &str) -> String {
    format!("[[vm]]\nname = \"{name}\"\ntemplate = \"{template}\"\n{more}\n")
}

/// The command that a refusal gives: the first words between backticks, without the `v`.
pub fn command_of(hint: &str) -> Vec<String> {
    let words = hint.split('`').nth(1).unwrap_or_else(|| panic!("no command in {hint:?}"));
    let mut words = words.split(' ').map(str::to_owned);
    assert_eq!(words.next().as_deref(), Some("v"), "{hint:?}");
    words.collect()
}

impl World {
    #[track_caller]
    pub fn plan(&self, flags: &[&str]) -> Planned {
        let run = self.v([&["plan", "-o", "json"], flags].concat());
        let rows = serde_json::from_str(&run.stdout)
            .unwrap_or_else(|error| panic!("{error}; stdout:\n{}\nstderr:\n{}", run.stdout, run.stderr));
        Planned { code: run.code, rows }
    }

    pub fn apply(&self, flags: &[&str]) -> Run {
        self.v([&["apply", "--yes"], flags].concat())
    }

    /// All is as it is declared: a plan has nothing to say, and an apply nothing to do.
    #[track_caller]
    pub fn assert_settled(&self) {
        let plan = self.v(["plan"]);
        assert_eq!((plan.code, plan.stdout.as_str()), (Some(0), ""), "it is settled; stderr:\n{}", plan.stderr);
    }

    /// The same, and nothing is left lying about.
    #[track_caller]
    pub fn assert_in_order(&self) {
        self.assert_settled();
        let left = self.v(["repair", "--dry-run", "-o", "json"]).ok();
        assert_eq!(left.stdout.trim(), "[]", "nothing is left to repair");
    }
}
