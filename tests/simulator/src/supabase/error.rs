//! Error answers of storage, of PostgREST and of the gateway in front of them.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::http::Answer;

/// The media type of every JSON answer.
pub(crate) const JSON: &str = "application/json; charset=utf-8";

/// An error that requests can be told to meet.
///
/// Storage and PostgREST have shapes of their own for one trouble; each answers in its own. The
/// shapes of storage follow its source, those of PostgREST its documentation: they were not
/// provoked on a real server, save `NoSuchKey`, `Internal`, `AccessDenied` and `Expired`.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// Storage: HTTP 500, `InternalError`. PostgREST: 500, `XX000`.
    Internal,
    /// Storage: HTTP **400** with statusCode 503, `DatabaseReadOnly`. PostgREST: 503, `PGRST001`.
    ReadOnly,
    /// Storage: HTTP **400** with statusCode 503, `LockTimeout`. PostgREST: 500, `40P01`.
    LockTimeout,
    /// Storage: HTTP **400** with statusCode 423, `ResourceLocked`. PostgREST: 500, `40001`.
    Locked,
    /// Storage: HTTP 429, `SlowDown`. PostgREST: 503, `53300`.
    SlowDown,
    /// Storage: HTTP 544, `DatabaseTimeout`. PostgREST: 504, `PGRST003`.
    DatabaseTimeout,
    /// Storage: HTTP 400 with statusCode 404, `NoSuchKey`. PostgREST: 404, `PGRST205`.
    NoSuchKey,
    /// Storage: HTTP 400 with statusCode 404, `NoSuchBucket`. PostgREST: 404, `PGRST205`.
    NoSuchBucket,
    /// Storage: HTTP 400 with statusCode 403, a signature that fails. PostgREST: 401, `PGRST301`.
    AccessDenied,
    /// Storage: HTTP 400 with statusCode 403, a key that has expired. PostgREST: 401, `PGRST303`.
    Expired,
    /// A page of HTML from the gateway: 502.
    BadGateway,
    /// A page of HTML from the gateway: 503.
    Unavailable,
    /// A page of HTML from the gateway: 504.
    GatewayTimeout,
    /// This status and JSON, whatever was asked.
    Other(u16, Value),
}

/// Not the name of an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no error of Supabase; known are {known}", known = NAMES.map(|(name, _)| name).join(", "))]
pub struct UnknownError(String);

const NAMES: [(&str, Error); 13] = [
    ("internal", Error::Internal),
    ("read_only", Error::ReadOnly),
    ("lock_timeout", Error::LockTimeout),
    ("locked", Error::Locked),
    ("slow_down", Error::SlowDown),
    ("database_timeout", Error::DatabaseTimeout),
    ("no_such_key", Error::NoSuchKey),
    ("no_such_bucket", Error::NoSuchBucket),
    ("access_denied", Error::AccessDenied),
    ("expired", Error::Expired),
    ("bad_gateway", Error::BadGateway),
    ("unavailable", Error::Unavailable),
    ("gateway_timeout", Error::GatewayTimeout),
];

impl FromStr for Error {
    type Err = UnknownError;

    fn from_str(text: &str) -> Result<Self, UnknownError> {
        let found = NAMES.into_iter().find(|(name, _)| *name == text);
        found
            .map(|(_, error)| error)
            .ok_or_else(|| UnknownError(text.to_owned()))
    }
}

/// Which of the two services answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Storage,
    Rest,
}

impl Error {
    pub(crate) fn answer(&self, service: Service) -> Answer {
        let (status, code, label, message) = match self {
            Self::BadGateway => return page(502),
            Self::Unavailable => return page(503),
            Self::GatewayTimeout => return page(504),
            Self::Other(status, body) => return json_answer(*status, body),
            _ if service == Service::Rest => return self.rest(),
            Self::Internal => (500, "InternalError", "Internal", "Internal Server Error"),
            Self::ReadOnly => (
                503,
                "DatabaseReadOnly",
                "DatabaseReadOnly",
                "The database is currently in read-only mode. Please try again later.",
            ),
            Self::LockTimeout => (
                503,
                "LockTimeout",
                "acquiring_lock_timeout",
                "acquiring lock timeout",
            ),
            Self::Locked => (
                423,
                "ResourceLocked",
                "ResourceLocked",
                "The resource is locked",
            ),
            Self::SlowDown => (
                429,
                "SlowDown",
                "too_many_connections",
                "Too many connections issued to the database",
            ),
            Self::DatabaseTimeout => (
                544,
                "DatabaseTimeout",
                "DatabaseTimeout",
                "The connection to the database timed out",
            ),
            Self::NoSuchKey => return no_such_key(),
            Self::NoSuchBucket => return no_such_bucket(),
            Self::AccessDenied => return access_denied("signature verification failed"),
            Self::Expired => return access_denied("\"exp\" claim timestamp check failed"),
        };
        storage(status, code, label, message)
    }

    fn rest(&self) -> Answer {
        let (status, code, message) = match self {
            Self::ReadOnly => (
                503,
                "PGRST001",
                "Database client error. Retrying the connection.",
            ),
            Self::LockTimeout => (500, "40P01", "deadlock detected"),
            Self::Locked => (
                500,
                "40001",
                "could not serialize access due to concurrent update",
            ),
            Self::SlowDown => (503, "53300", "sorry, too many clients already"),
            Self::DatabaseTimeout => (
                504,
                "PGRST003",
                "Timed out acquiring connection from connection pool.",
            ),
            Self::NoSuchKey | Self::NoSuchBucket => return no_such_table("chats"),
            Self::AccessDenied => return bad_jwt("PGRST301", "JWSError JWSInvalidSignature"),
            Self::Expired => return bad_jwt("PGRST303", "JWT expired"),
            _ => (500, "XX000", "internal error"),
        };
        rest(status, code, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, error)| error == self) {
            Some((name, _)) => formatter.write_str(name),
            None => write!(formatter, "{self:?}"),
        }
    }
}

/// Makes a JSON answer with the media type that both services give.
pub(crate) fn json_answer(status: u16, body: &Value) -> Answer {
    Answer::new(status, JSON, body.to_string())
}

/// Makes an error of storage, whose HTTP status is 400 save for a few.
pub(crate) fn storage(status: u16, code: &str, label: &str, message: &str) -> Answer {
    let http = match status {
        416 | 429 | 500 | 544 => status,
        _ => 400,
    };
    let body = json!({
        "statusCode": status.to_string(), "error": label, "message": message, "code": code,
    });
    json_answer(http, &body)
}

pub(crate) fn no_such_key() -> Answer {
    storage(404, "NoSuchKey", "not_found", "Object not found")
}

pub(crate) fn no_such_bucket() -> Answer {
    storage(404, "NoSuchBucket", "Bucket not found", "Bucket not found")
}

pub(crate) fn duplicate(code: &str) -> Answer {
    storage(409, code, "Duplicate", "The resource already exists")
}

pub(crate) fn access_denied(message: &str) -> Answer {
    storage(403, "AccessDenied", "Unauthorized", message)
}

/// The message of a write that no policy allows.
pub(crate) const NO_POLICY: &str = "new row violates row-level security policy";

pub(crate) fn too_large() -> Answer {
    let message = "The object exceeded the maximum allowed size";
    storage(413, "EntityTooLarge", "Payload too large", message)
}

pub(crate) fn invalid_mime(message: &str) -> Answer {
    storage(415, "InvalidMimeType", "invalid_mime_type", message)
}

pub(crate) fn invalid_key(key: &str) -> Answer {
    let message = format!("Invalid key: {key}");
    storage(400, "InvalidKey", "InvalidKey", &message)
}

/// An error of the schema that a request's body or headers have to satisfy.
pub(crate) fn invalid_request(message: &str) -> Answer {
    storage(400, "InvalidRequest", "Error", message)
}

/// An error of the framework's body parser, after which the connection closes.
pub(crate) fn unparsable(message: &str) -> Answer {
    storage(400, "InvalidRequest", "FastifyError", message).header("Connection", "close")
}

/// Makes an error of PostgREST, whose HTTP status is true.
pub(crate) fn rest(status: u16, code: &str, message: &str) -> Answer {
    rest_with(status, code, message, Value::Null, Value::Null)
}

pub(crate) fn rest_with(
    status: u16,
    code: &str,
    message: &str,
    details: Value,
    hint: Value,
) -> Answer {
    let body = json!({"code": code, "message": message, "details": details, "hint": hint});
    json_answer(status, &body)
}

pub(crate) fn no_such_table(table: &str) -> Answer {
    let message = format!("Could not find the table 'public.{table}' in the schema cache");
    rest(404, "PGRST205", &message)
}

pub(crate) fn bad_jwt(code: &str, message: &str) -> Answer {
    let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{message}\"");
    rest(401, code, message).header("WWW-Authenticate", &challenge)
}

fn page(status: u16) -> Answer {
    let page = format!("<html><body><h1>{status}</h1></body></html>\n");
    Answer::new(status, "text/html", page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for (name, error) in NAMES {
            assert_eq!(name.parse(), Ok(error.clone()));
            assert_eq!(error.to_string(), name);
        }
        let unknown = "nope".parse::<Error>().unwrap_err();
        assert!(unknown.to_string().contains("slow_down"));
    }

    #[test]
    fn the_status_of_storage_lies_and_that_of_rest_does_not() {
        let status = |error: Error, service| error.answer(service).status;
        assert_eq!(status(Error::ReadOnly, Service::Storage), 400);
        assert_eq!(status(Error::ReadOnly, Service::Rest), 503);
        assert_eq!(status(Error::SlowDown, Service::Storage), 429);
        assert_eq!(status(Error::DatabaseTimeout, Service::Storage), 544);
    }
}
