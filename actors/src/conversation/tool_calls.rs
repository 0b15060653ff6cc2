//! Puts the tool calls of a reply together from their fragments. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::provider::RawJson;

/// Calls under way, by their index in the reply.
#[derive(Debug, Default)]
pub struct ToolCalls(BTreeMap<u32, Call>);

#[derive(Debug, Default, Serialize)]
struct Call {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    function: Function,
}

#[derive(Debug, Default, Serialize)]
struct Function {
    name: String,
    arguments: String,
}

#[derive(Deserialize)]
struct CallFragment {
    index: Option<u32>,
    id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    function: Option<FunctionFragment>,
}

#[derive(Deserialize)]
struct FunctionFragment {
    name: Option<String>,
    arguments: Option<String>,
}

/// Calls in one reply; more are dropped. Models make a handful.
const CALLS_MAX: usize = 256;

impl ToolCalls {
    /// Takes a delta's `tool_calls` array. An array of another shape is passed through by the
    /// stream but cannot be stored.
    pub fn add(&mut self, fragments: &RawJson) {
        let fragments: Vec<CallFragment> = match serde_json::from_str(fragments.get()) {
            Ok(fragments) => fragments,
            Err(error) => {
                tracing::warn!(%error, "tool calls of an unknown shape are not stored");
                return;
            }
        };
        for (position, fragment) in (0_u32..).zip(fragments) {
            let index = fragment.index.unwrap_or(position);
            if self.0.len() >= CALLS_MAX && !self.0.contains_key(&index) {
                continue;
            }
            let call = self.0.entry(index).or_default();
            // Ids and names come whole, once; arguments come in pieces.
            for (whole, given) in [(&mut call.id, fragment.id), (&mut call.kind, fragment.kind)] {
                if let Some(given) = given.filter(|given| !given.is_empty()) {
                    *whole = given;
                }
            }
            if let Some(function) = fragment.function {
                if let Some(name) = function.name.filter(|name| !name.is_empty()) {
                    call.function.name = name;
                }
                call.function
                    .arguments
                    .push_str(function.arguments.as_deref().unwrap_or_default());
            }
        }
    }

    /// The calls as a message holds them; none if there are none.
    ///
    /// A call whose arguments are not whole is left out: the reply was cut within it, and no prompt
    /// may hold a call in pieces. A function without parameters may be called without arguments.
    #[must_use]
    pub fn finish(mut self, finish_reason: &str) -> Option<RawJson> {
        let called = matches!(finish_reason, "tool_calls" | "function_call" | "stop");
        self.0.retain(|_, call| {
            let arguments = call.function.arguments.as_str();
            let is_whole = serde_json::from_str::<IgnoredAny>(arguments).is_ok();
            is_whole || (called && arguments.is_empty())
        });
        if self.0.is_empty() {
            return None;
        }
        for call in self.0.values_mut().filter(|call| call.kind.is_empty()) {
            call.kind = "function".into();
        }
        let calls: Vec<&Call> = self.0.values().collect();
        serde_json::value::to_raw_value(&calls).ok().map(RawJson)
    }
}

/// Stored calls as the members of one delta, in which each call has its index.
#[must_use]
pub fn as_delta(calls: RawJson) -> Option<RawJson> {
    #[derive(Serialize)]
    struct Indexed<'a> {
        index: usize,
        #[serde(flatten)]
        call: &'a serde_json::Map<String, serde_json::Value>,
    }
    #[derive(Serialize)]
    struct Members<'a> {
        tool_calls: Vec<Indexed<'a>>,
    }
    let calls: Vec<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_str(calls.get()).ok()?;
    let tool_calls = calls.iter().enumerate();
    let tool_calls = tool_calls.map(|(index, call)| Indexed { index, call });
    let members = Members {
        tool_calls: tool_calls.collect(),
    };
    serde_json::value::to_raw_value(&members).ok().map(RawJson)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> RawJson {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn fragments_of_interleaved_calls_are_joined() {
        let mut calls = ToolCalls::default();
        for fragment in [
            r#"[{"index":0,"id":"call_a1","type":"function","function":{"name":"get_time","arguments":""}}]"#,
            r#"[{"index":0,"function":{"arguments":"{\"zone\":"}}]"#,
            r#"[{"index":1,"id":"call_b2","type":"function","function":{"name":"ping","arguments":"{}"}}]"#,
            r#"[{"index":0,"function":{"arguments":"\"UTC\"}"}}]"#,
        ] {
            calls.add(&raw(fragment));
        }
        assert_eq!(
            calls.finish("tool_calls").unwrap().get(),
            r#"[{"id":"call_a1","type":"function","function":{"name":"get_time","arguments":"{\"zone\":\"UTC\"}"}},{"id":"call_b2","type":"function","function":{"name":"ping","arguments":"{}"}}]"#
        );
    }

    #[test]
    fn a_call_in_pieces_is_left_out() {
        let cut = |reason: &str| {
            let mut calls = ToolCalls::default();
            calls.add(&raw(r#"[{"index":0,"id":"a","function":{"name":"ping"}},
                    {"index":1,"id":"b","function":{"name":"f","arguments":"[1,"}},
                    {"index":2,"id":"c","function":{"name":"f","arguments":"[1]"}}]"#));
            let calls = calls.finish(reason)?;
            let calls: Vec<serde_json::Value> = serde_json::from_str(calls.get()).ok()?;
            let ids = calls
                .iter()
                .map(|call| call["id"].as_str().map(str::to_owned));
            ids.collect::<Option<Vec<_>>>()
        };
        assert_eq!(cut("tool_calls").unwrap(), ["a", "c"]);
        assert_eq!(cut("length").unwrap(), ["c"]);
    }

    #[test]
    fn stored_calls_are_a_delta_again() {
        let stored = r#"[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]"#;
        let delta: serde_json::Value =
            serde_json::from_str(as_delta(raw(stored)).unwrap().get()).unwrap();
        let mut call = serde_json::from_str::<serde_json::Value>(stored).unwrap()[0].clone();
        call["index"] = 0.into();
        assert_eq!(delta, serde_json::json!({ "tool_calls": [call] }));
    }

    #[test]
    fn without_calls_there_is_no_member() {
        let mut calls = ToolCalls::default();
        calls.add(&raw(r#""odd""#));
        assert_eq!(calls.finish("stop"), None);
    }
}
