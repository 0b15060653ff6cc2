//! The rows of the table `chats`, and the checks that Postgres makes of them.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::super::error::{rest, rest_with};
use super::filter::no_cached_column;
use crate::http::Answer;

/// A row: every column of the table, in its text form.
pub(crate) type Row = BTreeMap<String, Value>;

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Uuid,
    Time,
}

/// The columns. `id` is the primary key; an id and both times have defaults.
pub(crate) const COLUMNS: [(&str, Type); 5] = [
    ("id", Type::Uuid),
    ("user_id", Type::Uuid),
    ("character_id", Type::Uuid),
    ("created_at", Type::Time),
    ("updated_at", Type::Time),
];

pub(crate) fn column_type(column: &str) -> Option<Type> {
    let found = COLUMNS.iter().find(|(known, _)| *known == column);
    found.map(|(_, kind)| *kind)
}

/// The table and what tests have told of it.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<String, Row>,
    /// Whether the schema cache lacks the table.
    pub(crate) missing: bool,
    /// The values of `user_id` that the table of users lacks.
    pub(crate) unknown_users: BTreeSet<String>,
}

/// What becomes of a row whose primary key is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conflicts {
    Refuse,
    Merge,
    Ignore,
}

/// What an insert wrote: the rows as they are now, and how many of them are new.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) rows: Vec<Row>,
    pub(crate) inserted: usize,
}

impl Table {
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// Inserts every row or none.
    pub(crate) fn insert(
        &mut self,
        given: &[Map<String, Value>],
        conflicts: Conflicts,
    ) -> Result<Written, Answer> {
        // Nothing is kept before the last row was checked.
        let mut after: BTreeMap<String, Row> = BTreeMap::new();
        let mut written = Written {
            rows: Vec::new(),
            inserted: 0,
        };
        for given in given {
            let values = self.checked(given)?;
            let row = with_defaults(&values)?;
            let id = row["id"].as_str().unwrap_or_default().to_owned();
            let again = after.contains_key(&id);
            let present = after.get(&id).or_else(|| self.rows.get(&id));
            let stored = match (present, conflicts) {
                (None, _) => {
                    written.inserted += 1;
                    row
                }
                (Some(_), Conflicts::Refuse) => return Err(taken(&id)),
                (Some(_), Conflicts::Ignore) => continue,
                (Some(_), Conflicts::Merge) if again => return Err(twice()),
                (Some(before), Conflicts::Merge) => {
                    let mut merged = before.clone();
                    merged.extend(values);
                    merged
                }
            };
            after.insert(id, stored.clone());
            written.rows.push(stored);
        }
        self.rows.extend(after);
        Ok(written)
    }

    /// Writes one row, whether it is new or not.
    pub(crate) fn merge(&mut self, given: &Map<String, Value>) -> Result<(), Answer> {
        self.insert(std::slice::from_ref(given), Conflicts::Merge)?;
        Ok(())
    }

    /// Changes every row that satisfies a condition, and returns them as they are now.
    pub(crate) fn update(
        &mut self,
        changes: &Map<String, Value>,
        chosen: impl Fn(&Row) -> bool,
    ) -> Result<Vec<Row>, Answer> {
        let changes = self.checked(changes)?;
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        if changes.get("id").is_some_and(Value::is_null) {
            return Err(null("id"));
        }
        let chosen: Vec<String> = self
            .rows
            .iter()
            .filter(|(_, row)| chosen(row))
            .map(|(id, _)| id.clone())
            .collect();
        let new_id = changes.get("id").and_then(Value::as_str);
        if let Some(id) = new_id {
            let others = self.rows.contains_key(id) && chosen != [id.to_owned()];
            if others || chosen.len() > 1 {
                return Err(taken(id));
            }
        }
        let mut rows = Vec::new();
        for id in chosen {
            let mut row = self.rows.remove(&id).unwrap_or_default();
            row.extend(changes.clone());
            let id = new_id.map_or(id, str::to_owned);
            self.rows.insert(id, row.clone());
            rows.push(row);
        }
        Ok(rows)
    }

    /// Deletes every row that satisfies a condition, and returns them.
    pub(crate) fn delete(&mut self, chosen: impl Fn(&Row) -> bool) -> Vec<Row> {
        let rows = std::mem::take(&mut self.rows).into_iter();
        let (gone, kept): (BTreeMap<_, _>, _) = rows.partition(|(_, row)| chosen(row));
        self.rows = kept;
        gone.into_values().collect()
    }

    /// Checks the columns, the types and the foreign key of what a body gives.
    fn checked(&self, given: &Map<String, Value>) -> Result<Row, Answer> {
        let mut values = Row::new();
        for (column, value) in given {
            let kind = column_type(column).ok_or_else(|| no_cached_column(column))?;
            values.insert(column.clone(), check(kind, value)?);
        }
        let user = values.get("user_id").and_then(Value::as_str);
        match user.filter(|user| self.unknown_users.contains(*user)) {
            None => Ok(values),
            Some(user) => Err(rest_with(
                409,
                "23503",
                "insert or update on table \"chats\" violates foreign key constraint \
                 \"chats_user_id_fkey\"",
                json!(format!(
                    "Key (user_id)=({user}) is not present in table \"users\"."
                )),
                Value::Null,
            )),
        }
    }
}

/// Keeps the named columns of a row.
pub(crate) fn only(row: Map<String, Value>, columns: &[String]) -> Map<String, Value> {
    let kept = row
        .into_iter()
        .filter(|(column, _)| columns.contains(column));
    kept.collect()
}

fn with_defaults(values: &Row) -> Result<Row, Answer> {
    let now = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, false);
    let mut row = Row::new();
    for (column, kind) in COLUMNS {
        let default = match (column, kind) {
            ("id", _) => json!(Uuid::new_v4()),
            (_, Type::Time) => json!(now),
            (_, Type::Uuid) => Value::Null,
        };
        let value = values.get(column).cloned().unwrap_or(default);
        row.insert(column.to_owned(), value);
    }
    if row["id"].is_null() {
        return Err(null("id"));
    }
    Ok(row)
}

/// Reads a value as its column stores it.
pub(crate) fn check(kind: Type, value: &Value) -> Result<Value, Answer> {
    let text = match value {
        Value::Null => return Ok(Value::Null),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match kind {
        Type::Uuid => match Uuid::try_parse(&text) {
            Ok(id) => Ok(json!(id)),
            Err(_) => {
                let message = format!("invalid input syntax for type uuid: \"{text}\"");
                Err(rest(400, "22P02", &message))
            }
        },
        Type::Time => match DateTime::parse_from_rfc3339(&text) {
            Ok(time) => {
                let time = time.with_timezone(&Utc);
                Ok(json!(time.to_rfc3339_opts(SecondsFormat::Micros, false)))
            }
            Err(_) => {
                let message =
                    format!("invalid input syntax for type timestamp with time zone: \"{text}\"");
                Err(rest(400, "22007", &message))
            }
        },
    }
}

fn taken(id: &str) -> Answer {
    rest_with(
        409,
        "23505",
        "duplicate key value violates unique constraint \"chats_pkey\"",
        json!(format!("Key (id)=({id}) already exists.")),
        Value::Null,
    )
}

fn twice() -> Answer {
    rest_with(
        500,
        "21000",
        "ON CONFLICT DO UPDATE command cannot affect row a second time",
        Value::Null,
        json!(
            "Ensure that no rows proposed for insertion within the same command have duplicate \
             constrained values."
        ),
    )
}

fn null(column: &str) -> Answer {
    let message = format!(
        "null value in column \"{column}\" of relation \"chats\" violates not-null constraint"
    );
    rest(400, "23502", &message)
}
