//! What a request asks for, read from its method and its path.

use super::error::Service;
use super::url::decode;

/// The path that the gateway strips from a request to storage.
pub(crate) const STORAGE: &str = "/storage/v1";
/// The path that the gateway strips from a request to PostgREST.
pub(crate) const REST: &str = "/rest/v1";

/// One operation and what it concerns; names are percent-decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Upload(Place, Mode),
    Download(Place, Access),
    Info(Place, Access),
    Delete(Place),
    DeleteMany(String),
    List(String),
    ListV2(String),
    Copy,
    Move,
    Buckets,
    Bucket(String),
    EmptyBucket(String),
    Version,
    Table(String),
    /// A path below `/rest/v1` that names no table.
    NoTable,
    /// A path that is not valid percent-encoded UTF-8.
    BadUrl,
    /// A route below `/object` that does not exist, or is not simulated.
    NoObjectRoute,
    NoRoute,
}

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) bucket: String,
    pub(crate) key: String,
}

/// Whether an upload may only create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `POST`: an existing object is overwritten only with `x-upsert: true`.
    Create,
    /// `PUT`: an upsert.
    Replace,
}

/// Which buckets a read may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Authenticated,
    Public,
}

impl Call {
    /// Reads a request's method and path, the query not included.
    pub(crate) fn parse(method: &str, path: &str) -> Self {
        if decode(path).is_none() {
            return Self::BadUrl;
        }
        if let Some(table) = path.strip_prefix(REST) {
            return match decode(table.trim_matches('/')) {
                Some(table) if !table.is_empty() => Self::Table(table),
                _ => Self::NoTable,
            };
        }
        let path = path.strip_prefix(STORAGE).unwrap_or(path);
        if let Some(rest) = path.strip_prefix("/object/") {
            return Self::object(method, rest).unwrap_or(Self::NoObjectRoute);
        }
        match path {
            "/bucket" | "/bucket/" => Self::Buckets,
            "/version" | "/status" => Self::Version,
            _ => Self::bucket(path).unwrap_or(Self::NoRoute),
        }
    }

    /// Returns the service that answers.
    pub(crate) fn service(&self) -> Service {
        match self {
            Self::Table(_) | Self::NoTable => Service::Rest,
            _ => Service::Storage,
        }
    }

    /// Whether the answer depends on who asks.
    pub(crate) fn is_public(&self) -> bool {
        match self {
            Self::Download(_, access) | Self::Info(_, access) => *access == Access::Public,
            Self::Version => true,
            _ => false,
        }
    }

    fn bucket(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/bucket/")?;
        match rest.split_once('/') {
            None => Some(Self::Bucket(decode(rest)?)),
            Some((id, "empty")) => Some(Self::EmptyBucket(decode(id)?)),
            Some(_) => None,
        }
    }

    fn object(method: &str, rest: &str) -> Option<Self> {
        let below = |word: &str| rest.strip_prefix(word)?.strip_prefix('/');
        match method {
            "GET" | "HEAD" => {
                if let Some(rest) = below("info") {
                    let (place, access) = read_place(rest)?;
                    return Some(Self::Info(place, access));
                }
                let (place, access) = read_place(rest)?;
                Some(Self::Download(place, access))
            }
            "POST" if rest == "copy" => Some(Self::Copy),
            "POST" if rest == "move" => Some(Self::Move),
            "POST" if below("sign").is_some() || below("upload").is_some() => None,
            "POST" => match (below("list"), below("list-v2")) {
                (Some(bucket), _) => Some(Self::List(decode(bucket)?)),
                (_, Some(bucket)) => Some(Self::ListV2(decode(bucket)?)),
                _ => Some(Self::Upload(Place::parse(rest)?, Mode::Create)),
            },
            "PUT" if below("upload").is_some() => None,
            "PUT" => Some(Self::Upload(Place::parse(rest)?, Mode::Replace)),
            "DELETE" => match Place::parse(rest) {
                Some(place) => Some(Self::Delete(place)),
                None => Some(Self::DeleteMany(decode(rest)?)),
            },
            _ => None,
        }
    }
}

fn read_place(rest: &str) -> Option<(Place, Access)> {
    if let Some(rest) = rest.strip_prefix("authenticated/") {
        return Some((Place::parse(rest)?, Access::Authenticated));
    }
    match rest.strip_prefix("public/") {
        Some(rest) => Some((Place::parse(rest)?, Access::Public)),
        None => Some((Place::parse(rest)?, Access::Authenticated)),
    }
}

impl Place {
    fn parse(rest: &str) -> Option<Self> {
        let (bucket, key) = rest.split_once('/')?;
        Some(Self {
            bucket: decode(bucket)?,
            key: decode(key)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(key: &str) -> Place {
        Place {
            bucket: "b".into(),
            key: key.into(),
        }
    }

    #[test]
    fn a_path_names_an_operation_and_a_decoded_key() {
        let cases = [
            (
                "POST",
                "/object/b/x%2Fy+z",
                Call::Upload(place("x/y+z"), Mode::Create),
            ),
            (
                "PUT",
                "/object/b//lead",
                Call::Upload(place("/lead"), Mode::Replace),
            ),
            (
                "GET",
                "/object/b/x",
                Call::Download(place("x"), Access::Authenticated),
            ),
            (
                "HEAD",
                "/object/public/b/x",
                Call::Download(place("x"), Access::Public),
            ),
            (
                "GET",
                "/object/info/b/x",
                Call::Info(place("x"), Access::Authenticated),
            ),
            (
                "GET",
                "/object/info/authenticated/b/x",
                Call::Info(place("x"), Access::Authenticated),
            ),
            ("DELETE", "/object/b/x", Call::Delete(place("x"))),
            ("DELETE", "/object/b", Call::DeleteMany("b".into())),
            ("POST", "/object/list-v2/b", Call::ListV2("b".into())),
            ("PATCH", "/object/b/x", Call::NoObjectRoute),
            ("GET", "/bucket/b", Call::Bucket("b".into())),
            ("GET", "/storage/v1/bucket", Call::NoRoute),
            ("POST", "/object/b/%zz", Call::BadUrl),
            ("POST", "/object/b/%ff", Call::BadUrl),
        ];
        for (method, path, call) in cases {
            assert_eq!(
                Call::parse(method, &format!("/storage/v1{path}")),
                call,
                "{path}"
            );
        }
        assert_eq!(
            Call::parse("GET", "/rest/v1/chats"),
            Call::Table("chats".into())
        );
    }
}
