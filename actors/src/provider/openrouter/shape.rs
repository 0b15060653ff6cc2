//! The members of a chat-completions chunk that matter, borrowed from its text.
//!
//! Leaves stay raw: nothing that an upstream puts in an unexpected type loses the chunk, and what
//! is not needed is not decoded.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// One `data` payload, or a whole answer that was not streamed.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(borrow)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) model: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) provider: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) created: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) choices: Option<Choices<'a>>,
    #[serde(borrow)]
    pub(super) usage: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
    /// Of an error in the flat shape.
    #[serde(borrow)]
    pub(super) message: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) detail: Option<&'a RawValue>,
}

impl<'a> Chunk<'a> {
    /// The text of a chunk that, but for its head, has nothing else to tell: a string.
    pub(super) fn lone_text(&self) -> Option<&'a RawValue> {
        let Self {
            choices: Some(Choices(Some(choice))),
            usage: None,
            error: None,
            ..
        } = self
        else {
            return None;
        };
        let Choice {
            delta: Some(delta),
            finish_reason: None,
            error: None,
            ..
        } = choice
        else {
            return None;
        };
        let is_lone = delta.reasoning.is_none()
            && delta.reasoning_content.is_none()
            && delta.tool_calls.is_none()
            && delta.other.is_empty();
        delta
            .content
            .filter(|text| is_lone && text.get().starts_with('"'))
    }
}

/// The first choice, if any: we never ask for more than one.
#[derive(Debug)]
pub(super) struct Choices<'a>(pub(super) Option<Choice<'a>>);

#[derive(Debug, Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(borrow)]
    pub(super) delta: Option<Delta<'a>>,
    /// What a whole answer has in place of `delta`.
    #[serde(borrow)]
    pub(super) message: Option<Delta<'a>>,
    #[serde(borrow)]
    pub(super) finish_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) native_finish_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

/// `delta`, or `message`.
#[derive(Debug, Default)]
pub(super) struct Delta<'a> {
    pub(super) content: Option<&'a RawValue>,
    pub(super) reasoning: Option<&'a RawValue>,
    pub(super) reasoning_content: Option<&'a RawValue>,
    pub(super) tool_calls: Option<&'a RawValue>,
    /// Every other member but `role`, unless null or an empty list.
    pub(super) other: Vec<(Cow<'a, str>, &'a RawValue)>,
}

/// A part of `content` in its list form.
#[derive(Debug, Deserialize)]
pub(super) struct ContentPart<'a> {
    #[serde(borrow)]
    pub(super) text: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Choices<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First;
        impl<'de> Visitor<'de> for First {
            type Value = Choices<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut choices: S) -> Result<Self::Value, S::Error> {
                let first = choices.next_element::<Option<Choice<'de>>>()?;
                while choices.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Choices(first.flatten()))
            }
        }
        deserializer.deserialize_seq(First)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Delta<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Delta<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a delta")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Self::Value, M::Error> {
                let mut delta = Delta::default();
                while let Some(Key(key)) = members.next_key()? {
                    let value: &'de RawValue = members.next_value()?;
                    let value = Some(value).filter(|value| value.get() != "null");
                    match key.as_ref() {
                        "role" => {}
                        "content" => delta.content = value,
                        "reasoning" => delta.reasoning = value,
                        "reasoning_content" => delta.reasoning_content = value,
                        "tool_calls" => delta.tool_calls = value.filter(|v| v.get() != "[]"),
                        _ => {
                            let value = value.filter(|value| value.get() != "[]");
                            delta.other.extend(value.map(|value| (key, value)));
                        }
                    }
                }
                Ok(delta)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A member's name, borrowed unless it has escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Name)
    }
}
