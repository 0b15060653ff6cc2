//! What can go wrong with an answer.

use super::api::Api;
use super::errors::ErrorCase;

/// One way for an answer to go wrong.
///
/// Faults that happen in the midst of a stream take place after a number of deltas; a script may
/// plan several, as long as those that end the answer come last.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The request is read and nothing is ever answered.
    NoHeaders,
    /// The status line and half the headers are sent, then nothing.
    HalfHeaders,
    /// The connection is reset before any byte of the answer.
    ResetEarly,
    /// The connection is closed before any byte of the answer.
    CloseEarly,
    /// The whole answer is this one.
    Answer(ErrorCase),
    /// The whole answer is an error of this status, in the shape of the API that was asked.
    Status(u16),
    /// A RST in mid-stream.
    Reset,
    /// The body ends in order, in mid-stream: no finish, no usage, no `[DONE]`.
    End,
    /// The connection closes in mid-stream with a FIN, the body unfinished.
    Cut,
    /// Nothing more is sent, the connection stays open.
    Stall,
    /// Nothing but keep-alive comments is sent any more.
    StallComments,
    /// An error object in mid-stream, after which the stream ends.
    Error(StreamError),
    /// A data line that is not JSON; the stream goes on.
    Garbage,
    /// A delta whose line is this many bytes long; the stream goes on.
    LongLine(usize),
    /// A comment line of this many bytes; the stream goes on.
    LongComment(usize),
}

/// The shape of an error object in mid-stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamError {
    /// A chunk with an `error` whose code is a number.
    Code(u16),
    /// A chunk with an `error` whose code is a word.
    Word(String),
    /// A lone `error` object with a message and nothing else.
    Bare,
}

/// When a fault takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Before any byte of the answer, or in place of it.
    Head,
    /// In the body, after a number of deltas.
    Body,
}

impl Fault {
    pub(crate) fn stage(&self) -> Stage {
        match self {
            Self::NoHeaders
            | Self::HalfHeaders
            | Self::ResetEarly
            | Self::CloseEarly
            | Self::Answer(_)
            | Self::Status(_) => Stage::Head,
            Self::Reset
            | Self::End
            | Self::Cut
            | Self::Stall
            | Self::StallComments
            | Self::Error(_)
            | Self::Garbage
            | Self::LongLine(_)
            | Self::LongComment(_) => Stage::Body,
        }
    }

    /// Reads what an option list says after `fault=`: a name, and for some a colon and a value.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let size = || value.map_or(Some(DEFAULT_LINE), |value| value.parse().ok());
        Some(match name {
            "no_headers" => Self::NoHeaders,
            "half_headers" => Self::HalfHeaders,
            "reset_early" => Self::ResetEarly,
            "close_early" => Self::CloseEarly,
            "status" => status(value?)?,
            api if Api::named(api).is_some() => Self::Answer(ErrorCase::named(text)?),
            "ok_error" => Self::Answer(ErrorCase::named("error_only")?),
            "choice_error" => Self::Answer(ErrorCase::named("error_in_choice")?),
            "html" => Self::Answer(ErrorCase::html(
                value.map_or(Some(502), |value| value.parse().ok())?,
            )),
            "reset" => Self::Reset,
            "end" => Self::End,
            "cut" => Self::Cut,
            "stall" => Self::Stall,
            "stall_comments" => Self::StallComments,
            "error" => Self::Error(match value {
                None => StreamError::Code(502),
                Some("bare") => StreamError::Bare,
                Some(value) => match value.parse() {
                    Ok(code) => StreamError::Code(code),
                    Err(_) => StreamError::Word(value.to_owned()),
                },
            }),
            "garbage" => Self::Garbage,
            "long_line" => Self::LongLine(size()?),
            "long_comment" => Self::LongComment(size()?),
            _ => return None,
        })
    }
}

/// The length of a long line that gives none.
const DEFAULT_LINE: usize = 4 * 1024 * 1024;

fn status(value: &str) -> Option<Fault> {
    match value.parse::<u16>() {
        Ok(status) => (200..1000)
            .contains(&status)
            .then_some(Fault::Status(status)),
        Err(_) => ErrorCase::named(value).map(Fault::Answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values() {
        assert_eq!(Fault::parse("reset"), Some(Fault::Reset));
        assert_eq!(
            Fault::parse("long_line"),
            Some(Fault::LongLine(4 * 1024 * 1024))
        );
        assert_eq!(Fault::parse("long_comment:9"), Some(Fault::LongComment(9)));
        assert_eq!(
            Fault::parse("error:429"),
            Some(Fault::Error(StreamError::Code(429)))
        );
        assert_eq!(
            Fault::parse("error:server_error"),
            Some(Fault::Error(StreamError::Word("server_error".into())))
        );
        let Some(Fault::Answer(case)) = Fault::parse("status:capacity") else {
            panic!()
        };
        assert_eq!(case.headers["Retry-After"], "7");
        assert_eq!(Fault::parse("status:503"), Some(Fault::Status(503)));
        let Some(Fault::Answer(case)) = Fault::parse("elevenlabs:quota_exceeded") else {
            panic!()
        };
        assert_eq!(case.status, 401);
    }

    #[test]
    fn what_is_not_a_fault() {
        for text in [
            "",
            "status",
            "status:nope",
            "openai:nope",
            "status:7",
            "html:x",
            "long_line:x",
            "explode",
        ] {
            assert_eq!(Fault::parse(text), None, "{text}");
        }
    }
}
