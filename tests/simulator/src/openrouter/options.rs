//! The option list: a behaviour in one line of text.
//!
//! The table of the options is in the documentation of the crate.

use std::str::FromStr;
use std::time::Duration;

use super::fault::Fault;
use super::fixtures;
use super::reply::{Finish, Prefix, Source, ToolCall};
use super::script::Script;
use super::wire::{Delimited, Done, Role, Usage};
use crate::http::Split;

/// What a model name begins with when its rest is an option list.
pub const MODEL_PREFIX: &str = "sim/";

/// An option list with a mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the simulator does not understand the option {option:?}")]
pub struct OptionError {
    /// The option as given.
    pub option: String,
}

impl FromStr for Script {
    type Err = OptionError;

    fn from_str(options: &str) -> Result<Self, OptionError> {
        let mut script = Self::default();
        script.apply(options)?;
        Ok(script)
    }
}

impl Script {
    /// Reads a model name; `None` when it does not begin with [`MODEL_PREFIX`].
    pub(crate) fn of_model(model: &str) -> Option<Self> {
        model.strip_prefix(MODEL_PREFIX).map(Self::from)
    }

    pub(crate) fn apply(&mut self, options: &str) -> Result<(), OptionError> {
        for option in options
            .split([',', ';'])
            .map(str::trim)
            .filter(|option| !option.is_empty())
        {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            self.set(key, value).ok_or_else(|| OptionError {
                option: option.to_owned(),
            })?;
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        self.set_reply(key, value)
            .or_else(|| self.set_pace(key, value))
            .or_else(|| self.set_wire(key, value))
            .or_else(|| self.set_fault(key, value))
    }

    fn set_reply(&mut self, key: &str, value: &str) -> Option<()> {
        let reply = &mut self.reply;
        match key {
            "tokens" => reply.tokens = Some(number(value)?),
            "seed" => reply.seed = value.parse().ok()?,
            "size" => reply.size = Some(number(value)?),
            "text" => reply.source = Source::words(value),
            "echo" if value.is_empty() => reply.source = Source::Echo,
            "prefix" => reply.prefix = prefix(value)?,
            "replay" => reply.source = Source::Raw(vec![fixtures::stream(value)?.into()]),
            "reasoning" => reply.reasoning_tokens = number(value)?,
            "tools" => reply.tools = (0..number(value)?).map(generated_call).collect(),
            "finish" if value == "none" => reply.finish = Finish::Missing,
            "finish" if !value.is_empty() => reply.finish = Finish::Reason(value.to_owned()),
            "prompt" => reply.prompt_tokens = Some(value.parse().ok()?),
            "cost" => reply.cost = Some(value.parse().ok().filter(|cost: &f64| cost.is_finite())?),
            // Makes otherwise equal model names count their requests apart.
            "key" => {}
            _ => return None,
        }
        Some(())
    }

    fn set_pace(&mut self, key: &str, value: &str) -> Option<()> {
        let pace = &mut self.pace;
        match key {
            "headers" => pace.headers = duration(value)?,
            "upload" => self.upload = Some(number(value)?),
            "first" => pace.first = duration(value)?,
            "gap" => pace.gap = duration(value)?,
            "batch" => pace.batch = Some(number(value)?.max(1)),
            "rate" => pace.rate = Some(value.parse().ok().filter(|rate| *rate > 0)?),
            "comments" => pace.comments = number(value)?,
            "between" => pace.between = Some(number(value)?.max(1)),
            "beat" => pace.beat = Some(duration(value)?),
            _ => return None,
        }
        Some(())
    }

    fn set_wire(&mut self, key: &str, value: &str) -> Option<()> {
        let wire = &mut self.wire;
        match (key, value) {
            ("usage", "choice") => wire.usage = Usage::Choice,
            ("usage", "empty") => wire.usage = Usage::Empty,
            ("usage", "every") => wire.usage = Usage::Every,
            ("usage", "none") => wire.usage = Usage::Missing,
            ("role", "every") => wire.role = Role::Every,
            ("role", "first") => wire.role = Role::First,
            ("eol", "lf") => wire.eol = "\n",
            ("eol", "crlf") => wire.eol = "\r\n",
            ("eol", "cr") => wire.eol = "\r",
            ("space", "yes") => wire.prefix = "data: ",
            ("space", "no") => wire.prefix = "data:",
            ("keepalive", "openrouter") => wire.comment = ": OPENROUTER PROCESSING",
            ("keepalive", "colon") => wire.comment = ":",
            ("keepalive", "data") => wire.comment = "data:",
            ("done", "yes") => wire.done = Some(Done::Sent),
            ("done", "no") => wire.done = Some(Done::Missing),
            ("done", "bare") => wire.done = Some(Done::Bare),
            ("framing", "chunked") => wire.delimited = Delimited::Chunked,
            ("framing", "close") => wire.delimited = Delimited::Close,
            ("split", value) => wire.split = split(value)?,
            ("newlines", value) => wire.newlines = number(value)?,
            _ => return None,
        }
        Some(())
    }

    fn set_fault(&mut self, key: &str, value: &str) -> Option<()> {
        let faults = &mut self.faults;
        match key {
            "fault" => faults.planned.push((Fault::parse(value)?, faults.after)),
            "after" => {
                faults.after = number(value)?;
                if let Some((_, after)) = faults.planned.last_mut() {
                    *after = faults.after;
                }
            }
            "fail" => faults.fail = Some(value.parse().ok()?),
            "nth" => faults.nth = Some(value.parse().ok().filter(|nth| *nth > 0)?),
            "retry_after" if !value.is_empty() => {
                self.headers
                    .push(("Retry-After".to_owned(), value.to_owned()));
            }
            "retry_after_ms" if !value.is_empty() => {
                self.headers
                    .push(("Retry-After-Ms".to_owned(), value.to_owned()));
            }
            _ => return None,
        }
        Some(())
    }
}

/// Reads a count or a size; more than a gigabyte is a mistake.
fn number(value: &str) -> Option<usize> {
    value.parse().ok().filter(|number| *number <= 1 << 30)
}

/// Reads a time: milliseconds, or a number with `us`, `ms` or `s`; at most a day.
fn duration(value: &str) -> Option<Duration> {
    let digits = value.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let time = match &value[digits.len()..] {
        "us" => Duration::from_micros(number),
        "" | "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        _ => return None,
    };
    (time <= Duration::from_secs(86_400)).then_some(time)
}

fn split(value: &str) -> Option<Split> {
    Some(match value.split_once(':').unwrap_or((value, "")) {
        ("whole", "") => Split::Whole,
        ("utf8", "") => Split::Utf8,
        ("frame", "") => Split::Frame,
        ("every", size) => Split::Every(number(size)?.max(1)),
        ("random", seed) => Split::Random(seed.parse().ok()?),
        ("at", offsets) => Split::At(offsets.split(':').map(number).collect::<Option<_>>()?),
        _ => return None,
    })
}

fn prefix(value: &str) -> Option<Prefix> {
    Some(match value.split_once(':').unwrap_or((value, "")) {
        ("ignore", "") => Prefix::Ignored,
        ("continue", "") => Prefix::Continued,
        ("repeat", bytes) => Prefix::Repeated(number(bytes)?),
        ("finish", "") => Prefix::Finished,
        _ => return None,
    })
}

fn generated_call(index: usize) -> ToolCall {
    let fragments = ["{\"zone\":", "\"UTC\",\"call\":", &format!("{index}}}")];
    ToolCall {
        id: format!("call_{index}"),
        name: if index.is_multiple_of(2) {
            "get_time"
        } else {
            "ping"
        }
        .to_owned(),
        arguments: fragments.map(str::to_owned).to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_sets_what_it_names() {
        let script: Script =
            "tokens=64,first=50,gap=500us,batch=4,fault=garbage,after=2,fault=reset,after=5"
                .parse()
                .unwrap();
        assert_eq!(script.reply.tokens, Some(64));
        assert_eq!(script.pace.first, Duration::from_millis(50));
        assert_eq!(script.pace.gap, Duration::from_micros(500));
        assert_eq!(script.pace.batch, Some(4));
        assert_eq!(
            script.faults.planned,
            [(Fault::Garbage, 2), (Fault::Reset, 5)]
        );
    }

    #[test]
    fn a_mistake_is_named() {
        for option in [
            "tokns=3",
            "tokens=x",
            "fault=explode",
            "after=x",
            "gap=5h",
            "split=at:x",
            "rate=0",
        ] {
            let mistake = format!("seed=1,{option}").parse::<Script>().unwrap_err();
            assert_eq!(mistake.option, option);
        }
    }

    #[test]
    fn a_model_name_is_a_list_only_with_the_prefix() {
        assert!(Script::of_model("example/model-1").is_none());
        assert_eq!(Script::of_model("sim/").unwrap().reply.tokens, None);
        assert_eq!(
            Script::of_model("sim/tokens=3").unwrap().reply.tokens,
            Some(3)
        );
        assert!(Script::of_model("sim/nonsense").unwrap().mistake.is_some());
    }

    #[test]
    fn splits_are_read() {
        assert_eq!(split("at:3:17"), Some(Split::At(vec![3, 17])));
        assert_eq!(split("every:1"), Some(Split::Every(1)));
        assert_eq!(split("random:9"), Some(Split::Random(9)));
        assert_eq!(split("sideways"), None);
    }

    #[test]
    fn fail_and_nth_say_which_requests_fail() {
        let script: Script = "fault=reset,fail=2".parse().unwrap();
        assert_eq!(
            [0, 1, 2].map(|ordinal| script.fails(ordinal)),
            [true, true, false]
        );
        let script: Script = "fault=reset,nth=2".parse().unwrap();
        assert_eq!(
            [0, 1, 2, 3].map(|ordinal| script.fails(ordinal)),
            [false, true, false, true]
        );
    }
}
