//! Writes JSON objects by hand where the hot path or the order of members asks for it.

use std::fmt::{Display, Write as _};

use idol_actors::json_text::JsonText;

/// An object under construction. Members stand in the order in which they are added.
#[derive(Debug)]
pub struct Object(String);

impl Object {
    /// `{`, with room for so many bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self::after(String::with_capacity(bytes))
    }

    /// `{` behind a prefix.
    #[must_use]
    pub fn after(mut prefix: String) -> Self {
        prefix.push('{');
        Self(prefix)
    }

    fn name(&mut self, name: &str) {
        if !self.0.ends_with('{') {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    /// Adds a string member.
    #[must_use]
    pub fn string(self, name: &str, value: &str) -> Self {
        self.escaped(name, JsonText::escape(value).as_escaped())
    }

    /// Adds a string member that is escaped already.
    #[must_use]
    pub fn escaped(mut self, name: &str, value: &str) -> Self {
        self.name(name);
        self.0.push('"');
        self.0.push_str(value);
        self.0.push('"');
        self
    }

    /// Adds a member of raw JSON.
    #[must_use]
    pub fn raw(mut self, name: &str, json: &str) -> Self {
        self.name(name);
        self.0.push_str(json);
        self
    }

    /// Adds a member whose value writes itself and needs no escaping: an id, a number in quotes.
    #[must_use]
    pub fn shown(mut self, name: &str, value: impl Display) -> Self {
        self.name(name);
        self.0.push('"');
        show(&mut self.0, value);
        self.0.push('"');
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, name: &str, value: impl Display) -> Self {
        self.name(name);
        show(&mut self.0, value);
        self
    }

    /// Adds a list whose elements are written one after the other.
    #[must_use]
    pub fn list<T>(
        mut self,
        name: &str,
        elements: impl IntoIterator<Item = T>,
        mut push: impl FnMut(&mut String, T),
    ) -> Self {
        self.name(name);
        self.0.push('[');
        for (index, element) in elements.into_iter().enumerate() {
            if index > 0 {
                self.0.push(',');
            }
            push(&mut self.0, element);
        }
        self.0.push(']');
        self
    }

    /// Adds what is there, leaves out what is not.
    #[must_use]
    pub fn maybe<T>(self, value: Option<T>, add: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => add(self, value),
            None => self,
        }
    }

    /// `}`.
    #[must_use]
    pub fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn show(text: &mut String, value: impl Display) {
    // Writing to a String fails only if the value's own Display does.
    if write!(text, "{value}").is_err() {
        tracing::error!("a value could not be written");
    }
}
