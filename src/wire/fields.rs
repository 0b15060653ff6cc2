//! Reads the members of a JSON object leniently, and names each one that cannot be read.
//!
//! Lenient as the ancestor was: `null` is absent, a number may stand in a string, unknown members
//! are ignored. Members keep their raw text, so nothing is parsed that is not used.

use std::{borrow::Cow, collections::BTreeMap};

use idol_actors::id::TurnId;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

/// One thing wrong with a request, in the shape of FastAPI's `detail`.
#[derive(Debug, Clone, Serialize)]
pub struct FieldError {
    /// Stable word for the kind of error.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Where: `["body", "messages", 0, "role"]`.
    pub loc: Vec<Step>,
    /// One sentence.
    pub msg: String,
    /// What stood there, if it is short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Box<RawValue>>,
}

impl FieldError {
    /// Whether it is a member of this name that is wrong.
    #[must_use]
    pub fn is_at(&self, name: &str) -> bool {
        matches!(self.loc.last(), Some(Step::Name(last)) if last == name)
    }
}

/// A step on the way to a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Step {
    /// A member by its name.
    Name(Cow<'static, str>),
    /// An element by its index.
    Index(usize),
}

/// Longest input that an error repeats.
const INPUT_BYTES_MAX: usize = 256;

/// Deepest nesting of a request. Deeper JSON is an attack: readers after us would recurse.
const DEPTH_MAX: usize = 64;

/// The members of an object, by name.
#[derive(Debug)]
pub struct Fields<'a> {
    members: BTreeMap<Cow<'a, str>, &'a RawValue>,
    path: Vec<Step>,
    /// What is wrong so far.
    pub errors: Vec<FieldError>,
}

impl<'a> Fields<'a> {
    /// Reads a request body.
    pub fn of_body(body: &'a [u8]) -> Result<Self, FieldError> {
        let path = vec![Step::Name("body".into())];
        let invalid = |msg: String| FieldError {
            kind: "json_invalid",
            loc: vec![Step::Name("body".into())],
            msg,
            input: None,
        };
        let text = str::from_utf8(body)
            .map_err(|error| invalid(format!("JSON decode error: not UTF-8 ({error})")))?;
        if depth(text) > DEPTH_MAX {
            return Err(invalid(format!(
                "JSON decode error: nested more than {DEPTH_MAX} deep"
            )));
        }
        let raw: &RawValue = serde_json::from_str(text)
            .map_err(|error| invalid(format!("JSON decode error: {error}")))?;
        Self::of(raw, path)
    }

    /// Reads an object inside a request.
    pub fn of(raw: &'a RawValue, path: Vec<Step>) -> Result<Self, FieldError> {
        match serde_json::from_str(raw.get()) {
            Ok(members) => Ok(Self {
                members,
                path,
                errors: Vec::new(),
            }),
            Err(_not_an_object) => Err(FieldError {
                kind: "model_attributes_type",
                loc: path,
                msg: "Input should be a valid dictionary or object to extract fields from".into(),
                input: short(raw),
            }),
        }
    }

    /// The way to a member.
    #[must_use]
    pub fn path_to(&self, name: &'static str) -> Vec<Step> {
        let mut path = self.path.clone();
        path.push(Step::Name(name.into()));
        path
    }

    /// The raw value of a member; `null` is absent.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.members
            .get(name)
            .copied()
            .filter(|value| value.get() != "null")
    }

    /// Notes an error.
    pub fn wrong(&mut self, name: &'static str, kind: &'static str, msg: impl Into<String>) {
        let error = FieldError {
            kind,
            loc: self.path_to(name),
            msg: msg.into(),
            input: self.raw(name).and_then(short),
        };
        self.errors.push(error);
    }

    /// A string.
    pub fn string(&mut self, name: &'static str) -> Option<String> {
        let raw = self.raw(name)?;
        let read = serde_json::from_str(raw.get());
        if read.is_err() {
            self.wrong(name, "string_type", "Input should be a valid string");
        }
        read.ok()
    }

    /// A string; blank is absent.
    pub fn filled(&mut self, name: &'static str) -> Option<String> {
        self.string(name).filter(|text| !text.is_empty())
    }

    /// The id of a turn; blank is absent.
    pub fn turn_id(&mut self) -> Option<TurnId> {
        let text = self.filled("turn_id")?;
        let id = Uuid::try_parse(&text);
        if id.is_err() {
            self.wrong("turn_id", "uuid_parsing", "Input should be a valid UUID");
        }
        id.ok().map(TurnId)
    }

    /// A string of at most so many bytes; blank is absent.
    pub fn bounded(&mut self, name: &'static str, bytes_max: usize) -> Option<String> {
        let text = self.filled(name)?;
        if text.len() > bytes_max {
            let msg = format!("String should have at most {bytes_max} bytes");
            self.wrong(name, "string_too_long", msg);
            return None;
        }
        Some(text)
    }

    /// A boolean in any of the spellings that the ancestor took; blank is absent.
    pub fn flag(&mut self, name: &'static str) -> Option<bool> {
        let raw = self.raw(name)?;
        let word = raw.get().trim_matches('"').to_ascii_lowercase();
        match word.as_str() {
            "" => None,
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => {
                self.wrong(name, "bool_parsing", "Input should be a valid boolean");
                None
            }
        }
    }

    /// A number as raw JSON, within bounds; it may stand in a string.
    pub fn number(&mut self, name: &'static str, min: f64, max: f64) -> Option<f64> {
        let raw = self.raw(name)?;
        let unquoted = serde_json::from_str::<String>(raw.get());
        let text = unquoted.as_deref().unwrap_or(raw.get()).trim();
        let Some(value) = text.parse::<f64>().ok().filter(|value| value.is_finite()) else {
            self.wrong(name, "float_parsing", "Input should be a valid number");
            return None;
        };
        if value < min {
            let msg = format!("Input should be greater than or equal to {min}");
            self.wrong(name, "greater_than_equal", msg);
            return None;
        }
        if value > max {
            let msg = format!("Input should be less than or equal to {max}");
            self.wrong(name, "less_than_equal", msg);
            return None;
        }
        Some(value)
    }

    /// A whole number within bounds; it may stand in a string.
    pub fn integer(&mut self, name: &'static str, min: i64, max: i64) -> Option<i64> {
        // Bounds here are far below the 2^53 that a double holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "bounds are small")]
        let value = self.number(name, min as f64, max as f64)?;
        if value.fract() != 0.0 {
            let msg = "Input should be a valid integer, got a number with a fractional part";
            self.wrong(name, "int_from_float", msg);
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "whole and within the bounds"
        )]
        let whole = value as i64;
        Some(whole)
    }

    /// Raw JSON of one of some kinds, told by the first byte: `{` an object, `[` a list, `"` a string.
    pub fn of_kind(
        &mut self,
        name: &'static str,
        kinds: &str,
        expected: &'static str,
    ) -> Option<&'a RawValue> {
        let raw = self.raw(name)?;
        if !raw.get().starts_with(|first| kinds.contains(first)) {
            self.wrong(name, "type_error", format!("Input should be {expected}"));
            return None;
        }
        if !is_decodable(raw) {
            let msg = "Input should hold whole characters and finite numbers";
            self.wrong(name, "json_invalid", msg);
            return None;
        }
        Some(raw)
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

fn short(raw: &RawValue) -> Option<Box<RawValue>> {
    (raw.get().len() <= INPUT_BYTES_MAX && is_decodable(raw)).then(|| raw.to_owned())
}

/// Whether every reader can decode it. The grammar allows half a surrogate pair and numbers beyond
/// a double; kept as they are, they would spoil a document, a prompt or an answer for good.
fn is_decodable(raw: &RawValue) -> bool {
    serde_json::from_str::<serde_json::Value>(raw.get()).is_ok()
}

/// How deep lists and objects are nested. Counts brackets outside strings, valid JSON or not.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                while let Some(inside) = bytes.next() {
                    match inside {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_stand_in_strings() {
        let mut fields =
            Fields::of_body(br#"{"a":"0.5","b":3,"c":null,"d":"x","e":-1,"f":1.5}"#).unwrap();
        assert_eq!(fields.number("a", 0.0, 2.0), Some(0.5));
        assert_eq!(fields.integer("b", 1, 10), Some(3));
        assert_eq!(fields.number("c", 0.0, 2.0), None);
        assert!(fields.errors.is_empty());
        assert_eq!(fields.number("d", 0.0, 2.0), None);
        assert_eq!(fields.integer("e", 1, 10), None);
        assert_eq!(fields.integer("f", 1, 10), None);
        let kinds: Vec<_> = fields.errors.iter().map(|error| error.kind).collect();
        assert_eq!(
            kinds,
            ["float_parsing", "greater_than_equal", "int_from_float"]
        );
    }

    #[test]
    fn brackets_in_strings_do_not_nest() {
        assert_eq!(depth(r#"{"a":"[[[\"[[","b":[1,{}]}"#), 3);
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(Fields::of_body(deep.as_bytes()).is_err());
    }

    #[test]
    fn what_is_no_object_is_named() {
        for body in ["", "[1]", "NaN", "{", "\"x\"", "{\"a\":NaN}"] {
            assert!(Fields::of_body(body.as_bytes()).is_err(), "{body}");
        }
        assert!(Fields::of_body(b"\xff{}").is_err());
    }
}
