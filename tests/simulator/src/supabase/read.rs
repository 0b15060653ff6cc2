//! Downloads and infos.

use super::auth::Role;
use super::call::{Access, Place};
use super::error::{json_answer, no_such_bucket, no_such_key, storage};
use super::plans::Age;
use super::store::{Buckets, Object, Version};
use super::upload::check_key;
use crate::http::{Answer, Request};

/// Returns the oldest version that a read of this object could be given.
pub(crate) fn oldest(buckets: &Buckets, place: &Place) -> Age {
    let found = buckets.get(&place.bucket);
    let object = found.and_then(|bucket| bucket.objects.get(&place.key));
    match object {
        Some(object) if object.before.is_some() => Age::Stale,
        _ => Age::Fresh,
    }
}

/// Answers `GET` and `HEAD` of an object.
pub(crate) fn download(
    buckets: &Buckets,
    place: &Place,
    access: Access,
    request: &Request,
    role: Role,
    age: Age,
) -> Result<Answer, Answer> {
    let (_, version) = find(buckets, place, access, role, age)?;
    let answer = Answer::new(200, &version.content_type, version.bytes.clone())
        .header("Accept-Ranges", "bytes")
        .header("ETag", &version.etag)
        .header("X-Robots-Tag", "none")
        .header("Last-Modified", &version.last_modified())
        .header("Cache-Control", &version.cache_control);
    if request.method == "HEAD" {
        // Neither conditions nor ranges are looked at.
        return Ok(answer);
    }
    let answer = match request.header("if-none-match") {
        // A plain comparison of texts: no list, no weak tag, no star.
        Some(tag) if tag == version.etag => {
            let mut answer = answer;
            answer.status = 304;
            answer.body.clear();
            return Ok(answer);
        }
        Some(_) => {
            let stale = format!("{}, stale-while-revalidate=30", version.cache_control);
            answer.header("Cache-Control", &stale)
        }
        None => answer,
    };
    match request.header("range") {
        Some(range) => part(answer, range),
        None => Ok(answer),
    }
}

/// Answers `GET` and `HEAD` of an object's info.
pub(crate) fn info(
    buckets: &Buckets,
    place: &Place,
    access: Access,
    role: Role,
    age: Age,
) -> Result<Answer, Answer> {
    let (object, version) = find(buckets, place, access, role, age)?;
    let body = object.info(version, &place.bucket, &place.key);
    Ok(json_answer(200, &body)
        .header("ETag", &version.etag)
        .header("Last-Modified", &version.last_modified())
        .header("Cache-Control", &version.cache_control))
}

fn find<'b>(
    buckets: &'b Buckets,
    place: &Place,
    access: Access,
    role: Role,
    age: Age,
) -> Result<(&'b Object, &'b Version), Answer> {
    check_key(&place.key)?;
    let bucket = match (access, buckets.get(&place.bucket)) {
        (Access::Authenticated, None) => return Err(no_such_bucket()),
        (Access::Public, None) => return Err(no_such_key()),
        (Access::Public, Some(bucket)) if !bucket.public => return Err(no_such_bucket()),
        (_, Some(bucket)) => bucket,
    };
    let hidden = access == Access::Authenticated && role == Role::Anon;
    let object = bucket.objects.get(&place.key).filter(|_| !hidden);
    let object = object.ok_or_else(no_such_key)?;
    let version = match (age, &object.before) {
        (Age::Stale, Some(before)) => before,
        _ => &object.now,
    };
    Ok((object, version))
}

/// Cuts an answer to one range of bytes.
fn part(mut answer: Answer, range: &str) -> Result<Answer, Answer> {
    let size = answer.body.len();
    let Some((start, end)) = bounds(range, size) else {
        let message = "invalid range provided";
        return Err(storage(416, "InvalidRange", "invalid_range", message));
    };
    answer.body.truncate(end + 1);
    answer.body.drain(..start);
    answer.status = 206;
    Ok(answer.header("Content-Range", &format!("bytes {start}-{end}/{size}")))
}

/// Returns the first and the last byte of a range, the end clamped.
fn bounds(range: &str, size: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let end = size.checked_sub(1)?;
    let (start, end) = match (first, last) {
        ("", last) => (size.saturating_sub(last.parse().ok()?), end),
        (first, "") => (first.parse().ok()?, end),
        (first, last) => (first.parse().ok()?, end.min(last.parse().ok()?)),
    };
    (start <= end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::bounds;

    #[test]
    fn a_range_is_clamped_or_refused() {
        assert_eq!(bounds("bytes=0-4", 11), Some((0, 4)));
        assert_eq!(bounds("bytes=-3", 11), Some((8, 10)));
        assert_eq!(bounds("bytes=6-", 11), Some((6, 10)));
        assert_eq!(bounds("bytes=6-500", 11), Some((6, 10)));
        for refused in ["bytes=100-200", "lines=1-2", "bytes=0-1,3-4"] {
            assert_eq!(bounds(refused, 11), None, "{refused}");
        }
    }
}
