//! Deletes, copies and moves.

use serde_json::{Value, json};

use super::auth::Role;
use super::body;
use super::call::Place;
use super::error::{
    access_denied, duplicate, invalid_request, json_answer, no_such_bucket, no_such_key,
};
use super::store::{Buckets, Object, Version};
use super::upload::check_key;
use crate::http::{Answer, Request};

/// Answers `DELETE` of one object.
pub(crate) fn one(
    buckets: &mut Buckets,
    place: &Place,
    request: &Request,
    role: Role,
) -> Result<Answer, Answer> {
    if body::is_json(request) && request.body.is_empty() {
        return Err(body::empty_json());
    }
    if role == Role::Anon {
        return Err(access_denied("Access denied"));
    }
    // A missing bucket looks like a missing object.
    let bucket = buckets.get_mut(&place.bucket).ok_or_else(no_such_key)?;
    bucket.objects.remove(&place.key).ok_or_else(no_such_key)?;
    Ok(json_answer(
        200,
        &json!({"message": "Successfully deleted"}),
    ))
}

/// Answers `DELETE` of many objects with the rows of those that were there, and counts them.
pub(crate) fn many(
    buckets: &mut Buckets,
    bucket: &str,
    request: &Request,
    role: Role,
) -> Result<(Answer, u64), Answer> {
    let fields = body::object(request)?;
    let keys = fields.get("prefixes").and_then(Value::as_array);
    let keys =
        keys.ok_or_else(|| invalid_request("body must have required property 'prefixes'"))?;
    if keys.is_empty() {
        let message = "body/prefixes must NOT have fewer than 1 items";
        return Err(invalid_request(message));
    }
    let mut rows = Vec::new();
    if let Some(found) = buckets.get_mut(bucket).filter(|_| role == Role::Service) {
        for key in keys.iter().filter_map(Value::as_str) {
            if let Some(object) = found.objects.remove(key) {
                rows.push(Value::Object(object.full_row(bucket, key)));
            }
        }
    }
    let count = rows.len() as u64;
    Ok((json_answer(200, &Value::Array(rows)), count))
}

/// Answers a copy.
pub(crate) fn copy(buckets: &mut Buckets, request: &Request, role: Role) -> Result<Answer, Answer> {
    let (_, target, object) = ends(buckets, request, role)?;
    let bucket = buckets.get_mut(&target.bucket).ok_or_else(no_such_bucket)?;
    let upsert = request.header("x-upsert") == Some("true");
    if bucket.objects.contains_key(&target.key) && !upsert {
        return Err(duplicate("KeyAlreadyExists"));
    }
    let Version {
        bytes,
        content_type,
        cache_control,
        metadata,
        ..
    } = object.now;
    let version = Version::new(bytes, &content_type, &cache_control, metadata);
    let id = bucket.put(&target.key, version);
    let copied = bucket.objects.get(&target.key).ok_or_else(no_such_key)?;
    let mut row = copied.full_row(&target.bucket, &target.key);
    row.insert(
        "Key".into(),
        json!(format!("{}/{}", target.bucket, target.key)),
    );
    row.insert("Id".into(), json!(id));
    Ok(json_answer(200, &Value::Object(row)))
}

/// Answers a move.
pub(crate) fn rename(
    buckets: &mut Buckets,
    request: &Request,
    role: Role,
) -> Result<Answer, Answer> {
    let (source, target, mut object) = ends(buckets, request, role)?;
    let bucket = buckets.get_mut(&target.bucket).ok_or_else(no_such_bucket)?;
    if bucket.objects.contains_key(&target.key) {
        return Err(duplicate("ResourceAlreadyExists"));
    }
    object.before = None;
    bucket.objects.insert(target.key, object);
    if let Some(bucket) = buckets.get_mut(&source.bucket) {
        bucket.objects.remove(&source.key);
    }
    Ok(json_answer(200, &json!({"message": "Successfully moved"})))
}

/// Reads where a copy or a move begins and ends, and the object at its beginning.
fn ends(
    buckets: &Buckets,
    request: &Request,
    role: Role,
) -> Result<(Place, Place, Object), Answer> {
    let fields = body::object(request)?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    let needed = |name: &str| {
        let missing = || invalid_request(&format!("body must have required property '{name}'"));
        text(name).ok_or_else(missing)
    };
    let source = Place {
        bucket: needed("bucketId")?,
        key: needed("sourceKey")?,
    };
    let target = Place {
        bucket: text("destinationBucket").unwrap_or_else(|| source.bucket.clone()),
        key: needed("destinationKey")?,
    };
    check_key(&target.key)?;
    let bucket = buckets
        .get(&source.bucket)
        .filter(|_| role == Role::Service);
    let object = bucket.and_then(|bucket| bucket.objects.get(&source.key));
    let object = object.ok_or_else(no_such_key)?.clone();
    Ok((source, target, object))
}
