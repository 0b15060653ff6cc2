//! Reads the parameters of a query string, and names each one that cannot be read.

use std::collections::HashMap;

use super::fields::{FieldError, Step};

/// The parameters of a query. An empty one is absent; of two with one name the last counts.
#[derive(Debug)]
pub struct Query {
    parameters: HashMap<String, String>,
    /// What is wrong so far.
    pub errors: Vec<FieldError>,
}

impl Query {
    /// Reads a query string, percent signs and all.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let parameters = url::form_urlencoded::parse(text.as_bytes())
            .into_owned()
            .filter(|(_, value)| !value.is_empty())
            .collect();
        Self {
            parameters,
            errors: Vec::new(),
        }
    }

    /// A parameter as it stands.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// A whole number within bounds.
    pub fn integer(&mut self, name: &'static str, min: usize, max: usize) -> Option<usize> {
        let text = self.text(name)?.trim();
        let number = text.parse().ok().filter(|it| (min..=max).contains(it));
        if number.is_none() {
            let msg = format!("Input should be a whole number from {min} to {max}");
            self.wrong(name, "int_parsing", msg);
        }
        number
    }

    /// A yes or no, in any of the spellings that bodies may use; absent is no.
    pub fn flag(&mut self, name: &'static str) -> bool {
        let word = self.text(name).unwrap_or("false").to_ascii_lowercase();
        match word.as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" => false,
            _ => {
                self.wrong(name, "bool_parsing", "Input should be a valid boolean");
                false
            }
        }
    }

    /// Notes an error.
    pub fn wrong(&mut self, name: &'static str, kind: &'static str, msg: impl Into<String>) {
        self.errors.push(FieldError {
            kind,
            loc: vec![Step::Name("query".into()), Step::Name(name.into())],
            msg: msg.into(),
            input: None,
        });
    }

    /// What was read, unless something was wrong.
    pub fn finish<T>(self, read: T) -> Result<T, Vec<FieldError>> {
        if self.errors.is_empty() {
            Ok(read)
        } else {
            Err(self.errors)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_absent_and_the_last_of_two_counts() {
        let mut query = Query::of("a=&b=1&b=2&c=x%20y+z&d");
        assert_eq!(query.text("a"), None);
        assert_eq!(query.integer("b", 1, 9), Some(2));
        assert_eq!(query.text("c"), Some("x y z"));
        assert_eq!(query.text("d"), None);
        assert!(query.finish(()).is_ok());
    }

    #[test]
    fn what_is_no_number_within_the_bounds_is_named() {
        for bad in ["0", "10", "-1", "1.5", "x", "99999999999999999999999"] {
            let mut query = Query::of(&format!("limit={bad}"));
            assert_eq!(query.integer("limit", 1, 9), None, "{bad}");
            let errors = query.finish(()).unwrap_err();
            assert_eq!(errors[0].loc[1], Step::Name("limit".into()), "{bad}");
        }
    }
}
