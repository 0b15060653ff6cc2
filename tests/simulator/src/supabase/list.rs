//! Both lists of objects.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::auth::Role;
use super::body;
use super::error::{invalid_request, json_answer, storage};
use super::store::{Buckets, Object};
use crate::http::{Answer, Request};

const DEFAULT_LIMIT: u64 = 100;
/// The most rows of a version 2 list; the default as well.
const V2_LIMIT: u64 = 1000;
/// An object that keeps an empty folder alive; lists hide it.
const PLACEHOLDER: &str = ".emptyFolderPlaceholder";
const COLUMNS: [&str; 4] = ["name", "updated_at", "created_at", "last_accessed_at"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ascending,
    Descending,
}

/// A row of a version 1 list; a folder has no object.
type Row<'b> = (&'b str, Option<&'b Object>);

/// Answers `POST /object/list/{bucket}`: one level below a folder, in any case of letters.
///
/// A missing bucket has an empty list.
pub(crate) fn v1(
    buckets: &Buckets,
    bucket: &str,
    request: &Request,
    role: Role,
) -> Result<Answer, Answer> {
    let fields = body::object(request)?;
    let prefix = fields.get("prefix").and_then(Value::as_str);
    let prefix =
        prefix.ok_or_else(|| invalid_request("body must have required property 'prefix'"))?;
    let limit = limit(&fields, DEFAULT_LIMIT)?;
    let offset = number(fields.get("offset")).unwrap_or(0);
    let (column, direction) = order(&fields)?;
    let search = fields.get("search").and_then(Value::as_str).unwrap_or("");

    let found = buckets.get(bucket).filter(|_| role == Role::Service);
    let mut rows: Vec<Row<'_>> = Vec::new();
    // Folders whose names differ in case alone are one.
    let mut folders: BTreeMap<String, &str> = BTreeMap::new();
    let folder = folder(prefix);
    for (key, object) in found.into_iter().flat_map(|bucket| &bucket.objects) {
        let Some(name) = strip_prefix_any_case(key, &folder) else {
            continue;
        };
        match name.split_once('/') {
            Some((folder, _)) => {
                folders.insert(folder.to_ascii_lowercase(), folder);
            }
            None if name == PLACEHOLDER => {}
            None => rows.push((name, Some(object))),
        }
    }
    rows.extend(folders.into_values().map(|folder| (folder, None)));
    rows.retain(|(name, _)| strip_prefix_any_case(name, search).is_some());
    rows.sort_by(|one, other| compare(column, direction, one, other));
    let page = rows.into_iter().skip(offset).take(limit);
    let page = page.map(|(name, object)| match object {
        Some(object) => Value::Object(object.row(name)),
        None => json!({
            "name": name, "id": null, "updated_at": null, "created_at": null,
            "last_accessed_at": null, "metadata": null,
        }),
    });
    Ok(json_answer(200, &Value::Array(page.collect())))
}

/// Returns what the keys of a folder begin with: nothing at the root.
fn folder(prefix: &str) -> String {
    match prefix.strip_suffix('/').unwrap_or(prefix) {
        "" => String::new(),
        folder => format!("{folder}/"),
    }
}

/// Strips a prefix whose letters may be of another case; both are ASCII.
fn strip_prefix_any_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn compare(column: &str, direction: Direction, one: &Row<'_>, other: &Row<'_>) -> Ordering {
    let directed = |ordering: Ordering| match direction {
        Direction::Ascending => ordering,
        Direction::Descending => ordering.reverse(),
    };
    let time = |row: &Row<'_>| {
        row.1.map(|object| match column {
            "updated_at" => object.updated(),
            _ => object.created(),
        })
    };
    // The slash of a folder counts. Of two names alike the older comes first.
    let name = |row: &Row<'_>| match row.1 {
        Some(_) => row.0.to_ascii_lowercase(),
        None => format!("{}/", row.0.to_ascii_lowercase()),
    };
    let by_name = directed(name(one).cmp(&name(other))).then(time(one).cmp(&time(other)));
    if column == "name" {
        return by_name;
    }
    // A folder has no time: folders come first in either direction.
    let is_object = |row: &Row<'_>| row.1.is_some();
    is_object(one)
        .cmp(&is_object(other))
        .then(directed(time(one).cmp(&time(other))))
        .then(by_name)
}

fn order(fields: &Map<String, Value>) -> Result<(&str, Direction), Answer> {
    let sort = fields.get("sortBy");
    let word = |name: &str| sort.and_then(|sort| sort.get(name)).and_then(Value::as_str);
    let refused = |name: &str| {
        let message = format!("body/sortBy/{name} must be equal to one of the allowed values");
        Err(invalid_request(&message))
    };
    let column = word("column").unwrap_or("name");
    if !COLUMNS.contains(&column) {
        return refused("column");
    }
    match word("order").unwrap_or("asc") {
        "asc" => Ok((column, Direction::Ascending)),
        "desc" => Ok((column, Direction::Descending)),
        _ => refused("order"),
    }
}

/// Answers `POST /object/list-v2/{bucket}`: a true prefix, in the order of bytes.
///
/// An order other than by name is not simulated.
pub(crate) fn v2(
    buckets: &Buckets,
    bucket: &str,
    request: &Request,
    role: Role,
) -> Result<Answer, Answer> {
    let fields = body::object(request)?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let prefix = text("prefix").unwrap_or("");
    let limit = limit(&fields, V2_LIMIT)?.min(V2_LIMIT as usize);
    let after = text("cursor").map(read_cursor).transpose()?;
    let after = after.as_deref();
    let delimited = fields.get("with_delimiter") == Some(&json!(true));

    let found = buckets.get(bucket).filter(|_| role == Role::Service);
    let (mut folders, mut objects) = (Vec::new(), Vec::new());
    let mut last: Option<String> = None;
    let mut next = None;
    for (key, object) in found.into_iter().flat_map(|bucket| &bucket.objects) {
        let Some(rest) = key.strip_prefix(prefix) else {
            continue;
        };
        let folder = rest.split_once('/').filter(|_| delimited);
        let entry = match folder {
            Some((folder, _)) => format!("{prefix}{folder}/"),
            None => key.clone(),
        };
        // A cursor names a folder without its slash.
        let seen = after.is_some_and(|after| entry.trim_end_matches('/') <= after);
        if seen || last.as_ref() == Some(&entry) {
            continue;
        }
        if folders.len() + objects.len() == limit {
            next = last;
            break;
        }
        if folder.is_some() {
            folders.push(json!({
                "key": entry.trim_end_matches('/'), "name": entry, "id": null,
                "updated_at": null, "created_at": null, "last_accessed_at": null,
                "metadata": null,
            }));
        } else {
            let mut row = object.row(key);
            if delimited {
                row.insert("key".into(), json!(key));
            }
            objects.push(Value::Object(row));
        }
        last = Some(entry);
    }
    let mut body = json!({"hasNext": next.is_some(), "folders": folders, "objects": objects});
    if let Some(next) = next {
        let next = next.trim_end_matches('/');
        let order = if after.is_some() { "\no:asc" } else { "" };
        body["nextCursor"] = json!(STANDARD.encode(format!("l:{next}{order}")));
        body["nextCursorKey"] = json!(next);
    }
    Ok(json_answer(200, &body))
}

fn read_cursor(cursor: &str) -> Result<String, Answer> {
    let text = STANDARD.decode(cursor).ok();
    let text = text.and_then(|bytes| String::from_utf8(bytes).ok());
    let line = text.as_deref().and_then(|text| text.lines().next());
    let key = line.and_then(|line| line.strip_prefix("l:").map(str::to_owned));
    key.ok_or_else(|| {
        let message = "Invalid Parameter continuation token";
        storage(400, "InvalidParameter", "InvalidParameter", message)
    })
}

fn limit(fields: &Map<String, Value>, default: u64) -> Result<usize, Answer> {
    let Some(value) = fields.get("limit") else {
        return Ok(usize::try_from(default).unwrap_or(usize::MAX));
    };
    match number(Some(value)) {
        Some(limit) if limit >= 1 => Ok(limit),
        _ => Err(invalid_request("body/limit must be >= 1")),
    }
}

/// Reads a number that may be given as a text.
fn number(value: Option<&Value>) -> Option<usize> {
    match value? {
        Value::String(text) => text.parse().ok(),
        value => usize::try_from(value.as_u64()?).ok(),
    }
}
