//! PostgREST with one table, `chats`.

mod filter;
mod prefer;
mod table;

use serde_json::{Map, Value, json};

use super::auth::Role;
use super::error::{Error, JSON, Service, json_answer, no_such_table, rest, rest_with};
use super::url;
use crate::http::{Answer, Request};
use filter::Query;
use prefer::{Count, Preferences, Resolution, Return};
use table::{Conflicts, Written};
pub(crate) use table::{Row, Table};

/// The one table there is.
pub(crate) const TABLE: &str = "chats";

const OBJECT: &str = "application/vnd.pgrst.object+json";

/// Answers a request to a table, and returns with it how many rows were written.
pub(crate) fn answer(
    table: &mut Table,
    name: &str,
    request: &Request,
    role: Role,
) -> (Answer, u64) {
    match respond(table, name, request, role) {
        Ok(outcome) => outcome,
        Err(refusal) => (refusal, 0),
    }
}

fn respond(
    table: &mut Table,
    name: &str,
    request: &Request,
    role: Role,
) -> Result<(Answer, u64), Answer> {
    if name != TABLE || table.missing {
        return Err(no_such_table(name));
    }
    let query = Query::parse(&url::query(&request.target))?;
    let preferences = Preferences::of(request);
    match request.method.as_str() {
        "GET" | "HEAD" => Ok((read(table, &query, &preferences, request, role)?, 0)),
        "POST" => insert(table, &query, &preferences, request, role),
        "PATCH" => {
            let changes = object(parse(request)?)?;
            let hidden = role == Role::Anon;
            check_single(table, &query, &preferences, request)?;
            let rows = table.update(&changes, |row| !hidden && query.matches(row))?;
            let range = match rows.len() {
                0 => "*/*".to_owned(),
                count => format!("0-{}/*", count - 1),
            };
            Ok(written(&query, &preferences, request, rows, &range)?)
        }
        "DELETE" => {
            let hidden = role == Role::Anon;
            check_single(table, &query, &preferences, request)?;
            let rows = table.delete(|row| !hidden && query.matches(row));
            Ok(written(&query, &preferences, request, rows, "*/*")?)
        }
        _ => Err(rest(405, "PGRST117", "Unsupported HTTP method")),
    }
}

fn read(
    table: &Table,
    query: &Query,
    preferences: &Preferences,
    request: &Request,
    role: Role,
) -> Result<Answer, Answer> {
    let visible = table.rows().filter(|_| role == Role::Service);
    let mut rows: Vec<&Row> = visible.filter(|row| query.matches(row)).collect();
    query.sort(&mut rows);
    let total = rows.len();
    let page = rows.into_iter().skip(query.offset);
    let page = page.take(query.limit.unwrap_or(usize::MAX));
    let rows: Vec<Value> = page.map(|row| query.select(row)).collect();
    let span = match rows.len() {
        0 => "*".to_owned(),
        count => format!("{}-{}", query.offset, query.offset + count - 1),
    };
    let (status, count) = match preferences.count {
        Count::None => (200, "*".to_owned()),
        // A part of what was counted.
        Count::Exact if rows.len() < total => (206, total.to_string()),
        Count::Exact => (200, total.to_string()),
    };
    let range = format!("{span}/{count}");
    Ok(shaped(status, rows, request)?.header("Content-Range", &range))
}

fn insert(
    table: &mut Table,
    query: &Query,
    preferences: &Preferences,
    request: &Request,
    role: Role,
) -> Result<(Answer, u64), Answer> {
    let rows = match parse(request)? {
        Value::Array(rows) => rows.into_iter().map(object).collect::<Result<_, _>>()?,
        row => vec![object(row)?],
    };
    let rows: Vec<Map<String, Value>> = match &query.columns {
        Some(columns) => rows
            .into_iter()
            .map(|row| table::only(row, columns))
            .collect(),
        None => rows,
    };
    let differ = |row: &Map<String, Value>| !row.keys().eq(rows[0].keys());
    if query.columns.is_none() && rows.iter().any(differ) {
        return Err(rest(400, "PGRST102", "All object keys must match"));
    }
    if role == Role::Anon {
        let message = "new row violates row-level security policy for table \"chats\"";
        return Err(rest(401, "42501", message));
    }
    if query
        .on_conflict
        .as_deref()
        .is_some_and(|column| column != "id")
    {
        let message =
            "there is no unique or exclusion constraint matching the ON CONFLICT specification";
        return Err(rest(400, "42P10", message));
    }
    let conflicts = match preferences.resolution {
        None => Conflicts::Refuse,
        Some(Resolution::Merge) => Conflicts::Merge,
        Some(Resolution::Ignore) => Conflicts::Ignore,
    };
    let Written { rows, inserted } = table.insert(&rows, conflicts)?;
    let only_updates = conflicts == Conflicts::Merge && inserted == 0 && !rows.is_empty();
    let status = if only_updates { 200 } else { 201 };
    let count = rows.len() as u64;
    let answer = match preferences.returned {
        Return::Minimal => Answer::empty(status),
        Return::Representation => {
            let rows = rows.iter().map(|row| query.select(row)).collect();
            shaped(status, rows, request)?
        }
    };
    Ok((answer.header("Content-Range", "*/*"), count))
}

fn written(
    query: &Query,
    preferences: &Preferences,
    request: &Request,
    rows: Vec<Row>,
    range: &str,
) -> Result<(Answer, u64), Answer> {
    let count = rows.len() as u64;
    let answer = match preferences.returned {
        Return::Minimal => Answer::empty(204),
        Return::Representation => {
            let rows = rows.iter().map(|row| query.select(row)).collect();
            shaped(200, rows, request)?
        }
    };
    Ok((answer.header("Content-Range", range), count))
}

/// Refuses a change of other than the one row that the client asked for, before it is made.
fn check_single(
    table: &Table,
    query: &Query,
    preferences: &Preferences,
    request: &Request,
) -> Result<(), Answer> {
    let count = table.rows().filter(|row| query.matches(row)).count();
    let shown = preferences.returned == Return::Representation;
    if shown && is_single(request) && count != 1 {
        return Err(not_single(count));
    }
    Ok(())
}

/// Renders rows as an array, or as the one object that the client asked for.
fn shaped(status: u16, rows: Vec<Value>, request: &Request) -> Result<Answer, Answer> {
    if !is_single(request) {
        return Ok(json_answer(status, &Value::Array(rows)));
    }
    match rows.as_slice() {
        [row] => {
            let media_type = format!("{OBJECT}; charset=utf-8");
            Ok(json_answer(status, row).header("Content-Type", &media_type))
        }
        rows => Err(not_single(rows.len())),
    }
}

fn is_single(request: &Request) -> bool {
    let accept = request.header("accept").unwrap_or_default();
    accept.contains(OBJECT)
}

fn not_single(count: usize) -> Answer {
    rest_with(
        406,
        "PGRST116",
        "JSON object requested, multiple (or no) rows returned",
        json!(format!("The result contains {count} rows")),
        Value::Null,
    )
}

fn parse(request: &Request) -> Result<Value, Answer> {
    let media_type = request.header("content-type").unwrap_or(JSON);
    if !media_type.starts_with("application/json") {
        let message = format!("Content-Type not acceptable: {media_type}");
        return Err(rest(400, "PGRST102", &message));
    }
    request.json().map_err(|_| invalid_json())
}

fn object(value: Value) -> Result<Map<String, Value>, Answer> {
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(invalid_json()),
    }
}

fn invalid_json() -> Answer {
    rest(400, "PGRST102", "Empty or invalid json")
}

/// Answers a path below `/rest/v1` that names no table.
pub(crate) fn no_table() -> Answer {
    Error::NoSuchKey.answer(Service::Rest)
}
