//! What can go wrong with requests to Supabase, and which requests it befalls.

use std::time::Duration;

use super::call::Call;
use super::error::Error;
use crate::gate::Gate;

/// The delay of a late write that is given none.
pub const LATE_AFTER: Duration = Duration::from_secs(5);

/// One way for a request to go wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The request waits so long before it is carried out and answered.
    ///
    /// A client that leaves meanwhile takes its request with it.
    Latency(Duration),
    /// The request waits at a gate before it is carried out and answered.
    Hold(Gate),
    /// The answer is this error, and nothing is carried out.
    Error(Error),
    /// The connection closes without an answer, and nothing is carried out.
    Close,
    /// The connection is reset without an answer, and nothing is carried out.
    Reset,
    /// There is no answer until the fault is cleared, then the request is carried out.
    Hang,
    /// A read of an object that was overwritten gives what it was before the last overwrite.
    ///
    /// Reads of other objects, and requests that read none, do not count as met.
    Stale,
    /// The request is taken, answered at once or never, and carried out later.
    Late(LateAnswer, Release),
}

/// What the client of a late write is told.
#[derive(Debug, Clone, PartialEq)]
pub enum LateAnswer {
    /// Nothing, until it leaves.
    Never,
    /// An error, at once: most often [`Error::GatewayTimeout`].
    Error(Error),
    /// Nothing: the connection is reset at once.
    Reset,
}

/// When a late write is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// When the test says so.
    ByTest,
    /// So long after it was taken; the test may say so earlier.
    ///
    /// After no time at all only the answer is lost.
    After(Duration),
}

impl Fault {
    /// Returns the fault of a write that is never answered and carried out when the test says so.
    pub fn late() -> Self {
        Self::Late(LateAnswer::Never, Release::ByTest)
    }

    /// Reads what an option list says after `fault=`: a name, and for some a colon and a value.
    ///
    /// A gate cannot be named: `hang` holds until it is cleared.
    pub(crate) fn parse(text: &str, answer: LateAnswer) -> Option<Self> {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        Some(match (name, value) {
            ("latency", Some(time)) => Self::Latency(duration(time)?),
            ("error", Some(name)) => Self::Error(name.parse().ok()?),
            ("close", None) => Self::Close,
            ("reset", None) => Self::Reset,
            ("hang", None) => Self::Hang,
            ("stale", None) => Self::Stale,
            ("late", None) => Self::Late(answer, Release::After(LATE_AFTER)),
            ("late", Some("release")) => Self::Late(answer, Release::ByTest),
            ("late", Some(time)) => Self::Late(answer, Release::After(duration(time)?)),
            _ => return None,
        })
    }
}

/// Reads a time in milliseconds, or with `ms` or `s` after it.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    let milliseconds = match &text[digits.len()..] {
        "" | "ms" => number,
        "s" => number.checked_mul(1000)?,
        _ => return None,
    };
    (milliseconds <= 86_400_000).then(|| Duration::from_millis(milliseconds))
}

/// A group of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Every request to Supabase.
    All,
    /// Every request below `/storage/v1`.
    Storage,
    /// `POST` and `PUT` of an object.
    Uploads,
    /// `GET` and `HEAD` of an object.
    Downloads,
    /// `GET` and `HEAD` of an object's info.
    Info,
    /// `DELETE` of one object or of many.
    Deletes,
    /// Both lists of objects.
    Lists,
    /// Copy and move.
    Moves,
    /// The routes below `/bucket`.
    Buckets,
    /// Every request below `/rest/v1`.
    Rest,
}

const NAMES: [(&str, Target); 10] = [
    ("all", Target::All),
    ("storage", Target::Storage),
    ("uploads", Target::Uploads),
    ("downloads", Target::Downloads),
    ("info", Target::Info),
    ("deletes", Target::Deletes),
    ("lists", Target::Lists),
    ("moves", Target::Moves),
    ("buckets", Target::Buckets),
    ("rest", Target::Rest),
];

impl Target {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let found = NAMES.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, target)| target)
    }

    /// Returns the narrowest group that a request belongs to.
    pub(crate) fn of(call: &Call) -> Self {
        match call {
            Call::Upload(..) => Self::Uploads,
            Call::Download(..) => Self::Downloads,
            Call::Info(..) => Self::Info,
            Call::Delete(_) | Call::DeleteMany(_) => Self::Deletes,
            Call::List(_) | Call::ListV2(_) => Self::Lists,
            Call::Copy | Call::Move => Self::Moves,
            Call::Buckets | Call::Bucket(_) | Call::EmptyBucket(_) => Self::Buckets,
            Call::Table(_) | Call::NoTable => Self::Rest,
            Call::Version | Call::BadUrl | Call::NoObjectRoute | Call::NoRoute => Self::Storage,
        }
    }

    pub(crate) fn covers(self, narrow: Self) -> bool {
        match self {
            Self::All => true,
            Self::Storage => narrow != Self::Rest,
            _ => self == narrow,
        }
    }

    /// Returns the name that option lists and counts call it.
    pub fn name(self) -> &'static str {
        let found = NAMES.into_iter().find(|(_, target)| *target == self);
        found.map_or("all", |(name, _)| name)
    }
}

/// Which requests a fault befalls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    target: Target,
    key: Option<String>,
}

impl Matcher {
    /// Returns a matcher of those requests alone that name this.
    ///
    /// The text is looked for in the decoded path and query, and in the body of a request whose
    /// body names objects or rows: bulk deletes, copies, moves and writes of rows.
    #[must_use]
    pub fn key(mut self, text: impl Into<String>) -> Self {
        self.key = Some(text.into());
        self
    }

    pub(crate) fn matches(&self, call: &Call, haystack: &str) -> bool {
        let key = self.key.as_deref();
        self.target.covers(Target::of(call)) && key.is_none_or(|key| haystack.contains(key))
    }
}

impl From<Target> for Matcher {
    fn from(target: Target) -> Self {
        Self { target, key: None }
    }
}

impl Target {
    /// Returns a matcher of this group's requests that name a text; see [`Matcher::key`].
    pub fn key(self, text: impl Into<String>) -> Matcher {
        Matcher::from(self).key(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_spelled_with_its_value() {
        let parse = |text| Fault::parse(text, LateAnswer::Never);
        assert!(matches!(parse("latency:2s"), Some(Fault::Latency(time)) if time.as_secs() == 2));
        assert!(matches!(
            parse("error:slow_down"),
            Some(Fault::Error(Error::SlowDown))
        ));
        assert!(matches!(
            parse("late"),
            Some(Fault::Late(LateAnswer::Never, Release::After(LATE_AFTER)))
        ));
        for mistaken in [
            "",
            "latency",
            "latency:x",
            "error:nope",
            "hang:1",
            "late:99999999s",
        ] {
            assert!(parse(mistaken).is_none(), "{mistaken}");
        }
    }

    #[test]
    fn a_matcher_covers_its_group_and_its_text() {
        let call = Call::parse("PUT", "/storage/v1/object/b/x.json");
        let matches = |matcher: Matcher| matcher.matches(&call, "/storage/v1/object/b/x.json");
        assert!(matches(Target::All.into()));
        assert!(matches(Target::Storage.into()));
        assert!(matches(Target::Uploads.key("x.json")));
        assert!(!matches(Target::Uploads.key("y.json")));
        assert!(!matches(Target::Downloads.into()));
        assert!(!matches(Target::Rest.into()));
    }
}
