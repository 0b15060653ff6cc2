//! The `Prefer` header.

use crate::http::Request;

/// What a client prefers; unknown preferences are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Preferences {
    pub(crate) returned: Return,
    pub(crate) resolution: Option<Resolution>,
    pub(crate) count: Count,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Return {
    Minimal,
    Representation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolution {
    Merge,
    Ignore,
}

/// Whether a read tells how many rows there are in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    None,
    Exact,
}

impl Preferences {
    /// Reads every `Prefer` header of a request.
    pub(crate) fn of(request: &Request) -> Self {
        let headers = request.headers.iter().filter(|(name, _)| name == "prefer");
        let words = headers.flat_map(|(_, value)| value.split(','));
        let mut preferences = Self {
            returned: Return::Minimal,
            resolution: None,
            count: Count::None,
        };
        for word in words {
            match word.trim() {
                "return=representation" => preferences.returned = Return::Representation,
                "resolution=merge-duplicates" => preferences.resolution = Some(Resolution::Merge),
                "resolution=ignore-duplicates" => preferences.resolution = Some(Resolution::Ignore),
                "count=exact" => preferences.count = Count::Exact,
                _ => {}
            }
        }
        preferences
    }
}
