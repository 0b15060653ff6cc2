//! Uploads, and the refusals that come before their bodies are read.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::{Value, json};

use super::auth::Role;
use super::call::{Mode, Place};
use super::error::{
    Error, NO_POLICY, Service, access_denied, duplicate, invalid_key, invalid_mime,
    invalid_request, json_answer, no_such_bucket, too_large,
};
use super::store::{Buckets, Version};
use crate::http::{Answer, BodyLength, Request};

/// The most bytes of a standard upload whose length is told; a setting of the server.
const STANDARD_LIMIT: u64 = 52_428_800;
/// The longest body that a refused upload may have without harm to its connection.
///
/// Measured: the connection was fine at 192 KiB, and stuck from 256 KiB on.
const HARMLESS: usize = 192 * 1024;
/// The longest name between two slashes: a file's name behind the file backend.
const SEGMENT_MAX: usize = 255;
/// The longest key that the file backend takes; somewhere between 4000 and 9000 bytes.
const KEY_MAX: usize = 4096;

/// A refusal that is sent before the body is read.
#[derive(Debug)]
pub(crate) struct Early {
    pub(crate) answer: Answer,
    pub(crate) rest: Rest,
}

/// What becomes of the body of a request that was answered before its body was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It is read and dropped, and the connection goes on.
    Drain,
    /// It is never read: the connection is stuck.
    Leave,
}

/// Refuses an upload by its head alone, and says what becomes of its body.
pub(crate) fn refusal(
    buckets: &Buckets,
    place: &Place,
    mode: Mode,
    request: &Request,
    length: BodyLength,
    role: Role,
) -> Option<Early> {
    let drained = |answer| Early {
        answer,
        rest: Rest::Drain,
    };
    if let Err(answer) = check_form(buckets, place, request, length) {
        return Some(drained(answer));
    }
    let answer = check_right(buckets, place, mode, request, role).err()?;
    let harmless = match length {
        BodyLength::Exact(length) => length <= HARMLESS,
        BodyLength::Chunked => true,
    };
    let rest = if harmless { Rest::Drain } else { Rest::Leave };
    Some(Early { answer, rest })
}

/// Checks the bucket and its limits: what storage looks at first, and drains the body after.
fn check_form(
    buckets: &Buckets,
    place: &Place,
    request: &Request,
    length: BodyLength,
) -> Result<(), Answer> {
    let bucket = buckets.get(&place.bucket).ok_or_else(no_such_bucket)?;
    // A chunked body has no length to compare: no limit is applied to it.
    if let BodyLength::Exact(length) = length {
        let limit = bucket.limit.unwrap_or(STANDARD_LIMIT).min(STANDARD_LIMIT);
        if length as u64 > limit {
            return Err(too_large());
        }
    }
    let media_type = media_type(request);
    if !media_type.contains('/') {
        return Err(invalid_mime("Invalid Content-Type header"));
    }
    if media_type.starts_with("multipart/") {
        return Err(invalid_request("the simulator reads no multipart bodies"));
    }
    let allowed = |name: &String| match name.strip_suffix('*') {
        Some(group) => media_type.starts_with(group),
        None => name == media_type,
    };
    if bucket
        .mime_types
        .as_ref()
        .is_some_and(|types| !types.iter().any(allowed))
    {
        let message = format!("mime type {media_type} is not supported");
        return Err(invalid_mime(&message));
    }
    Ok(())
}

/// Checks the key and whether it may be written: what leaves the body where it is.
fn check_right(
    buckets: &Buckets,
    place: &Place,
    mode: Mode,
    request: &Request,
    role: Role,
) -> Result<(), Answer> {
    check_key(&place.key)?;
    if role == Role::Anon {
        return Err(access_denied(NO_POLICY));
    }
    // Only this exact text is an upsert.
    let upsert = mode == Mode::Replace || request.header("x-upsert") == Some("true");
    let bucket = buckets.get(&place.bucket);
    if !upsert && bucket.is_some_and(|bucket| bucket.objects.contains_key(&place.key)) {
        return Err(duplicate("KeyAlreadyExists"));
    }
    Ok(())
}

/// Carries out an upload that its head did not refuse, and whose body was read.
///
/// That the key was free is not asked again: of two uploads at once that may only create, both
/// succeed and the last one stands.
pub(crate) fn upload(
    buckets: &mut Buckets,
    place: &Place,
    request: &Request,
) -> Result<Answer, Answer> {
    let length = match request.header("transfer-encoding") {
        Some(_) => BodyLength::Chunked,
        None => BodyLength::Exact(request.body.len()),
    };
    check_form(buckets, place, request, length)?;
    let bucket = buckets.get_mut(&place.bucket).ok_or_else(no_such_bucket)?;
    check_path(place)?;
    let version = Version::new(
        request.body.clone(),
        media_type(request),
        request.header("cache-control").unwrap_or("no-cache"),
        request.header("x-metadata").and_then(metadata),
    );
    let id = bucket.put(&place.key, version);
    let key = format!("{}/{}", place.bucket, place.key);
    Ok(json_answer(200, &json!({"Key": key, "Id": id})))
}

fn media_type(request: &Request) -> &str {
    match request.header("content-type") {
        Some(media_type) if !media_type.is_empty() => media_type,
        _ => "application/octet-stream",
    }
}

/// Reads `x-metadata`; what is not base64 of JSON counts as none.
fn metadata(value: &str) -> Option<Value> {
    let bytes = STANDARD
        .decode(value)
        .or_else(|_| STANDARD_NO_PAD.decode(value))
        .ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Checks the characters of a key.
pub(crate) fn check_key(key: &str) -> Result<(), Answer> {
    let allowed =
        |letter: char| letter.is_ascii_alphanumeric() || "_/!.*'() &$@=;:+,?-".contains(letter);
    if key.is_empty() || !key.chars().all(allowed) {
        return Err(invalid_key(key));
    }
    Ok(())
}

/// Checks what the file backend checks once the body is there.
fn check_path(place: &Place) -> Result<(), Answer> {
    let Place { bucket, key } = place;
    if key
        .split('/')
        .any(|segment| segment == "." || segment == "..")
    {
        let version = uuid::Uuid::new_v4();
        let path = format!("stub/stub/{bucket}/{key}/{version} contains dot path segment");
        return Err(invalid_key(&path));
    }
    let long = |segment: &str| segment.len() > SEGMENT_MAX;
    if key.len() > KEY_MAX || key.split('/').any(long) {
        return Err(Error::Internal.answer(Service::Storage));
    }
    Ok(())
}
