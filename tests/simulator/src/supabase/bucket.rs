//! The routes of buckets.

use serde_json::{Map, Value, json};

use super::auth::Role;
use super::body;
use super::error::{
    NO_POLICY, access_denied, duplicate, invalid_mime, invalid_request, json_answer,
    no_such_bucket, storage, too_large,
};
use super::store::{Bucket, Buckets};
use crate::http::{Answer, Request};

/// The server's own limit of a bucket's `file_size_limit`, in bytes.
const GLOBAL_LIMIT: u64 = 524_288_000;
const NAME_MAX: usize = 100;

/// Answers `/bucket`: a list, or a new bucket.
pub(crate) fn all(buckets: &mut Buckets, request: &Request, role: Role) -> Result<Answer, Answer> {
    match request.method.as_str() {
        "GET" if role == Role::Anon => Ok(json_answer(200, &json!([]))),
        "GET" => {
            let rows = buckets.values().map(|bucket| {
                let mut row = bucket.describe();
                row["type"] = json!("STANDARD");
                row
            });
            Ok(json_answer(200, &Value::Array(rows.collect())))
        }
        "POST" => create(buckets, request, role),
        _ => Err(body::no_route(request)),
    }
}

fn create(buckets: &mut Buckets, request: &Request, role: Role) -> Result<Answer, Answer> {
    let fields = body::object(request)?;
    let name = fields.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| invalid_request("body must have required property 'name'"))?;
    let id = fields.get("id").and_then(Value::as_str).unwrap_or(name);
    if !is_name(id) {
        let message = "Bucket name invalid";
        return Err(storage(400, "InvalidBucketName", "Invalid Input", message));
    }
    if role == Role::Anon {
        return Err(access_denied(NO_POLICY));
    }
    let mut bucket = Bucket::new(id);
    configure(&mut bucket, &fields)?;
    if buckets.contains_key(id) {
        return Err(duplicate("BucketAlreadyExists"));
    }
    buckets.insert(id.to_owned(), bucket);
    Ok(json_answer(200, &json!({"name": id})))
}

/// Answers `/bucket/{id}`.
pub(crate) fn one(
    buckets: &mut Buckets,
    id: &str,
    request: &Request,
    role: Role,
) -> Result<Answer, Answer> {
    let bucket = buckets.get_mut(id).filter(|_| role == Role::Service);
    let bucket = bucket.ok_or_else(no_such_bucket)?;
    match request.method.as_str() {
        "GET" => Ok(json_answer(200, &bucket.describe())),
        "PUT" => {
            configure(bucket, &body::object(request)?)?;
            Ok(json_answer(
                200,
                &json!({"message": "Successfully updated"}),
            ))
        }
        "DELETE" if bucket.objects.is_empty() => {
            buckets.remove(id);
            Ok(json_answer(
                200,
                &json!({"message": "Successfully deleted"}),
            ))
        }
        "DELETE" => Err(storage(
            409,
            "ResourceNotEmpty",
            "ResourceNotEmpty",
            "The bucket you tried to delete is not empty",
        )),
        _ => Err(body::no_route(request)),
    }
}

/// Answers `/bucket/{id}/empty`, and empties the bucket at once.
pub(crate) fn empty(buckets: &mut Buckets, id: &str, role: Role) -> Result<Answer, Answer> {
    let bucket = buckets.get_mut(id).filter(|_| role == Role::Service);
    bucket.ok_or_else(no_such_bucket)?.objects.clear();
    let message = "Empty bucket has been queued. Completion may take up to an hour.";
    Ok(json_answer(200, &json!({"message": message})))
}

fn configure(bucket: &mut Bucket, fields: &Map<String, Value>) -> Result<(), Answer> {
    let limit = match fields.get("file_size_limit") {
        None => bucket.limit,
        Some(Value::Null) => None,
        Some(value) => {
            let invalid = || invalid_request("body/file_size_limit must be integer");
            Some(size(value).ok_or_else(invalid)?)
        }
    };
    if limit.is_some_and(|limit| limit > GLOBAL_LIMIT) {
        return Err(too_large());
    }
    let mime_types = match fields.get("allowed_mime_types") {
        None => bucket.mime_types.clone(),
        Some(value) => mime_types(value)?,
    };
    if let Some(public) = fields.get("public").and_then(Value::as_bool) {
        bucket.public = public;
    }
    bucket.limit = limit;
    bucket.mime_types = mime_types;
    Ok(())
}

fn mime_types(value: &Value) -> Result<Option<Vec<String>>, Answer> {
    let Some(names) = value.as_array() else {
        return Ok(None);
    };
    let mut types = Vec::new();
    for name in names.iter().filter_map(Value::as_str) {
        if !name.contains('/') {
            return Err(invalid_mime(&format!("mime type {name} is not supported")));
        }
        types.push(name.to_owned());
    }
    Ok(Some(types))
}

/// Reads a size: a number of bytes, or a text with a decimal unit.
fn size(value: &Value) -> Option<u64> {
    let Some(text) = value.as_str() else {
        return value.as_u64();
    };
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

fn is_name(name: &str) -> bool {
    let allowed =
        |letter: char| letter.is_ascii_alphanumeric() || "_!.*'() &$@=;:+,?-".contains(letter);
    !name.is_empty() && name.len() <= NAME_MAX && name.trim() == name && name.chars().all(allowed)
}
