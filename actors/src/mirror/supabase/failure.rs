//! Says what kind of failure an error answer is.
//!
//! Pure. The body decides first: `code`, then `statusCode`. Storage sends nearly every error as
//! HTTP 400, also "missing", "forbidden" and "try again", so that HTTP's status is the last resort.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::{
    call::Effect,
    error::{AuthFault, Missing, SupabaseError, SupabaseErrorKind},
    key::Key,
    report::{Report, quote},
};

/// The longest wait taken from a server.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// An answer whose status is not a success.
#[derive(Debug)]
pub(super) struct Refusal<'a> {
    /// What the request would have changed.
    pub(super) effect: &'a Effect,
    pub(super) status: u16,
    pub(super) headers: &'a HeaderMap,
    /// What was read of it, perhaps cut.
    pub(super) body: &'a [u8],
}

impl Refusal<'_> {
    /// Classifies it; `now` turns dates into waits.
    pub(super) fn classify(&self, key: &Key, now: SystemTime) -> SupabaseError {
        let report = Report::read(self.body);
        let kind = self.kind(&report);
        let place = match &report.code {
            Some(code) => format!("HTTP {}, {}", self.status, quote(&key.redact(code))),
            None => format!("HTTP {}", self.status),
        };
        let mut what = format!("{} ({place})", sentence(kind));
        // Servers that refuse a key may repeat it, whole or in part.
        let is_quoted = !matches!(kind, SupabaseErrorKind::Auth(_)) && !report.message.is_empty();
        if is_quoted {
            what.push_str(": ");
            what.push_str(&quote(&key.redact(&report.message)));
        }
        SupabaseError {
            retry_after: retry_after(self.headers, now),
            ..SupabaseError::new(kind, what)
        }
    }

    fn kind(&self, report: &Report) -> SupabaseErrorKind {
        let by_code = report.code.as_deref();
        let by_code = by_code.and_then(|code| kind_of_code(code, report));
        by_code.unwrap_or_else(|| match report.status {
            Some(status) => self.kind_of_storage_status(status, report),
            None => self.kind_of_http_status(report),
        })
    }

    /// Storage without a `code` that we know; older ones send none.
    fn kind_of_storage_status(&self, status: u16, report: &Report) -> SupabaseErrorKind {
        use SupabaseErrorKind as Kind;
        match status {
            // That something is missing must be said in so many words: a caller acts on it.
            404 => match report.message.as_str() {
                "Bucket not found" => Kind::NotFound(Missing::Bucket),
                "Object not found" | "The resource was not found" => {
                    Kind::NotFound(Missing::Object)
                }
                // "Route GET:/… not found", among others.
                _ => Kind::NoRoute,
            },
            403 if is_about_the_key(report) => Kind::Auth(auth_fault(report)),
            403 => Kind::Forbidden,
            409 if report.code.is_none() => Kind::Duplicate,
            423 => Kind::Unavailable,
            _ => self.kind_of_status(status, report),
        }
    }

    /// PostgREST with a code that we do not know, a gateway, or whatever stands in between.
    fn kind_of_http_status(&self, report: &Report) -> SupabaseErrorKind {
        use SupabaseErrorKind as Kind;
        match self.status {
            300..400 => Kind::Malformed,
            403 => Kind::Forbidden,
            404 => Kind::NoRoute,
            status => self.kind_of_status(status, report),
        }
    }

    fn kind_of_status(&self, status: u16, report: &Report) -> SupabaseErrorKind {
        use SupabaseErrorKind as Kind;
        match status {
            401 => Kind::Auth(auth_fault(report)),
            // The server had not read the request to its end.
            408 => Kind::Unavailable,
            413 => Kind::TooLarge,
            429 => Kind::RateLimited,
            400..500 => Kind::Rejected,
            // Said before the request was passed on: no server, none reachable, none to be found.
            503 | 521..=523 | 530 => Kind::Unavailable,
            // The service itself says that it failed, and its transactions are whole or nothing.
            500.. if report.is_from_service() => Kind::Unavailable,
            // A gateway that lost the service: what the service did is not known.
            500.. if self.effect.may_have_happened() => Kind::Unknown,
            500.. => Kind::Unavailable,
            _ => Kind::Malformed,
        }
    }
}

/// `None` if the code does not settle it.
fn kind_of_code(code: &str, report: &Report) -> Option<SupabaseErrorKind> {
    use SupabaseErrorKind as Kind;
    let kind = match code {
        // Storage.
        "NoSuchBucket" => Kind::NotFound(Missing::Bucket),
        "NoSuchKey" => Kind::NotFound(Missing::Object),
        "KeyAlreadyExists" | "ResourceAlreadyExists" | "BucketAlreadyExists" => Kind::Duplicate,
        "AccessDenied" if is_about_the_key(report) => Kind::Auth(auth_fault(report)),
        "AccessDenied" => Kind::Forbidden,
        "InvalidJWT" => Kind::Auth(auth_fault(report)),
        "EntityTooLarge" => Kind::TooLarge,
        "InvalidKey" | "InvalidBucketName" | "FST_ERR_BAD_URL" => Kind::RejectedName,
        "SlowDown" => Kind::RateLimited,
        "DatabaseReadOnly" | "LockTimeout" | "ResourceLocked" | "DatabaseTimeout"
        | "InternalError" => Kind::Unavailable,
        // SQLSTATE 22023: the token's role is not in the database.
        "DatabaseError" if report.says(&["22023"]) => Kind::Auth(AuthFault::UnknownRole),
        "DatabaseError" => Kind::Unavailable,
        "InvalidRequest" if report.says(&["property 'authorization'"]) => {
            Kind::Auth(AuthFault::Absent)
        }
        "InvalidRequest" if report.says(&["route "]) => Kind::NoRoute,
        // PostgREST.
        "PGRST205" | "42P01" => Kind::MissingTable,
        "PGRST301" | "PGRST303" => Kind::Auth(auth_fault(report)),
        "PGRST302" => Kind::Auth(AuthFault::Absent),
        "22023" if report.says(&["role"]) => Kind::Auth(AuthFault::UnknownRole),
        "23503" => Kind::ForeignKey,
        "23505" => Kind::Duplicate,
        "22P02" => Kind::BadUuid,
        "42501" => Kind::Forbidden,
        // Two rows with one key in a batch: HTTP 500, but no time heals it.
        "21000" => Kind::Rejected,
        _ => return None,
    };
    Some(kind)
}

/// Storage refuses a bad key and a forbidden row alike; the words tell them apart.
fn is_about_the_key(report: &Report) -> bool {
    report.says(&[
        "jws",
        "jwt",
        "jwk",
        "signature",
        "claim",
        "(algorithm)",
        "token",
    ])
}

fn auth_fault(report: &Report) -> AuthFault {
    if report.says(&["no api key"]) {
        AuthFault::Absent
    } else if report.says(&["issued at future", "not yet valid", "\"nbf\"", "\"iat\""]) {
        AuthFault::NotYetValid
    } else if report.says(&["expired", "\"exp\""]) {
        AuthFault::Expired
    } else {
        AuthFault::Invalid
    }
}

/// What Supabase did, without the subject.
fn sentence(kind: SupabaseErrorKind) -> &'static str {
    use SupabaseErrorKind as Kind;
    match kind {
        Kind::NotFound(Missing::Bucket) => "has no such bucket, or shows it not to this key",
        Kind::NotFound(Missing::Object) => "has no such object",
        Kind::Auth(AuthFault::Absent) => "saw no key in the request",
        Kind::Auth(AuthFault::Expired) => "refused the key: it has expired",
        Kind::Auth(AuthFault::NotYetValid) => "refused the key: it is not valid yet",
        Kind::Auth(AuthFault::UnknownRole) => "refused the key: the database lacks its role",
        Kind::Auth(AuthFault::Invalid) => "refused the key: it is not one of this project",
        Kind::Forbidden => "does not allow this to the key; is it the service role's?",
        Kind::TooLarge => "refused the document as too large",
        Kind::RejectedName => "refused the name",
        Kind::Duplicate => "has this already",
        Kind::RateLimited => "asks for fewer requests",
        Kind::Unavailable => "failed",
        Kind::Unknown => "may have done it or not",
        Kind::MissingTable => "has no table \"chats\", or has not seen it yet",
        Kind::ForeignKey => "lacks what the row refers to",
        Kind::BadUuid => "refused a value that is no UUID",
        Kind::NoRoute => "has no such route; is the URL right?",
        Kind::Rejected => "refused the request",
        Kind::Malformed => "sent no answer of its own; is the URL right?",
    }
}

/// Seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            date.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests;
