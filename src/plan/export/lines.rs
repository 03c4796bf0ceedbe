use toml::Value;

/// Keys and values of a table, in the order in which they are said.
#[derive(Debug, Default)]
pub(super) struct Lines {
    text: String,
    /// Something that cannot be said over a template that says more.
    pub(super) unsaid: bool,
}

impl Lines {
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn say(&mut self, key: &str, value: impl Into<Value>) {
        self.text += &format!("{} = {}\n", word(key), value.into());
    }

    /// Says it where what lies below says another thing.
    pub(super) fn value<T: PartialEq, V: Into<Value>>(&mut self, key: &str, is: T, below: &T, write: impl Fn(T) -> V) {
        if is != *below {
            self.say(key, write(is));
        }
    }

    /// The same of what may be left out: over one that is there, nothing cannot be said.
    pub(super) fn maybe<T: PartialEq, V: Into<Value>>(
        &mut self,
        key: &str,
        is: Option<T>,
        below: Option<T>,
        write: impl Fn(T) -> V,
    ) {
        match is {
            Some(is) if below.as_ref() != Some(&is) => self.say(key, write(is)),
            None if below.is_some() => self.unsaid = true,
            _ => {}
        }
    }

    /// `key = { … }`, in one line; nothing where the table is empty.
    pub(super) fn inline(&mut self, key: &str, table: &Lines) {
        self.unsaid |= table.unsaid;
        if !table.is_empty() {
            let entries: Vec<&str> = table.text.lines().collect();
            self.text += &format!("{key} = {{ {} }}\n", entries.join(", "));
        }
    }

    pub(super) fn table(&mut self, header: &str, table: &Lines) {
        self.text += &format!("[[{header}]]\n{}", table.text);
    }
}

/// Whole numbers and sizes are written as the config is.
pub(super) fn number(number: u32) -> Value {
    Value::Integer(number.into())
}

pub(super) fn text(value: impl ToString) -> Value {
    Value::String(value.to_string())
}

pub(super) fn list<T: ToString>(values: &[T]) -> Value {
    Value::Array(values.iter().map(|value| text(value.to_string())).collect())
}

fn word(key: &str) -> String {
    match key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        true => key.to_owned(),
        false => text(key).to_string(),
    }
}
