//! The rows of the table `chats`, by which an app lists its users' conversations.

use std::collections::{HashMap, HashSet};

use reqwest::{Method, header::HeaderValue};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    SupabaseClient,
    call::Effect,
    error::SupabaseError,
    names::encode,
    storage::{ANSWER_BYTES_MAX, Deletion},
};
use crate::time::Timestamp;

/// Rows in one request, and so in one transaction.
const BATCH_ROWS_MAX: usize = 500;

const COLUMNS: &str = "id,user_id,character_id,updated_at";

/// A row of `chats`. What is `None` is left out when it is written, so that an app's own values
/// are not erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatRow {
    /// The conversation.
    pub id: String,
    /// Its owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "name")]
    pub user_id: Option<String>,
    /// Its companion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(deserialize_with = "name")]
    pub character_id: Option<String>,
    /// When it was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub updated_at: Option<Timestamp>,
}

/// Whether an update found its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowUpdate {
    /// It did.
    Updated,
    /// There is no such row, and none was made.
    WasMissing,
}

impl SupabaseClient {
    /// Inserts the rows, or updates those that are there; of rows with one id the last counts.
    ///
    /// Sent in batches; each is saved as a whole or not at all, and one bad row fails its batch.
    /// After an error earlier batches are saved. To send everything again does no harm.
    ///
    /// # Errors
    ///
    /// See [`SupabaseErrorKind`](super::SupabaseErrorKind).
    pub async fn upsert_rows(&self, rows: &[ChatRow]) -> Result<(), SupabaseError> {
        for batch in batches(rows) {
            let request = self
                .endpoint
                .rest(Method::POST, "/chats?on_conflict=id")
                .header(
                    "prefer",
                    HeaderValue::from_static(
                        "resolution=merge-duplicates,return=minimal,missing=default",
                    ),
                )
                .json(&batch);
            let answer = self.endpoint.ask(request, Effect::Writes).await?;
            if !answer.bytes(ANSWER_BYTES_MAX).await?.is_empty() {
                return Err(SupabaseError::malformed("answered where it should not"));
            }
        }
        Ok(())
    }

    /// Sets a row's `updated_at`.
    ///
    /// # Errors
    ///
    /// See [`SupabaseErrorKind`](super::SupabaseErrorKind).
    pub async fn patch_updated_at(
        &self,
        id: &str,
        updated_at: Timestamp,
    ) -> Result<RowUpdate, SupabaseError> {
        let change = json!({"updated_at": updated_at.to_string()});
        let request = self
            .row_request(Method::PATCH, id, "id")
            .header("prefer", RETURN_ROWS)
            .json(&change);
        let answer = self.endpoint.ask(request, Effect::Writes).await?;
        let touched: Vec<Touched> = answer.json(ANSWER_BYTES_MAX, "list of rows").await?;
        Ok(if touched.is_empty() {
            RowUpdate::WasMissing
        } else {
            RowUpdate::Updated
        })
    }

    /// Reads a row.
    ///
    /// # Errors
    ///
    /// See [`SupabaseErrorKind`](super::SupabaseErrorKind).
    pub async fn row(&self, id: &str) -> Result<Option<ChatRow>, SupabaseError> {
        let request = self.row_request(Method::GET, id, COLUMNS);
        let answer = self.endpoint.ask(request, Effect::Reads).await?;
        let rows: Vec<ChatRow> = answer.json(ANSWER_BYTES_MAX, "list of rows").await?;
        Ok(rows.into_iter().next())
    }

    /// Deletes a row.
    ///
    /// # Errors
    ///
    /// See [`SupabaseErrorKind`](super::SupabaseErrorKind).
    pub async fn delete_row(&self, id: &str) -> Result<Deletion, SupabaseError> {
        let request = self
            .row_request(Method::DELETE, id, "id")
            .header("prefer", RETURN_ROWS);
        let answer = self.endpoint.ask(request, Effect::Writes).await?;
        let deleted: Vec<Touched> = answer.json(ANSWER_BYTES_MAX, "list of rows").await?;
        Ok(if deleted.is_empty() {
            Deletion::WasMissing
        } else {
            Deletion::Deleted
        })
    }

    /// A request about one row. There is always a filter: without one it would be about all rows.
    fn row_request(&self, method: Method, id: &str, columns: &str) -> reqwest::RequestBuilder {
        let path = format!("/chats?id=eq.{}&select={}", encode(id), encode(columns));
        self.endpoint.rest(method, &path)
    }
}

/// A change of no row is answered like any other, unless the rows are asked for.
const RETURN_ROWS: HeaderValue = HeaderValue::from_static("return=representation");

/// A row in an answer; that it is there is all that counts.
#[derive(Deserialize)]
struct Touched {
    #[serde(rename = "id")]
    _id: Value,
}

/// Which members a row has. The server wants them alike in all rows of a request.
type Shape = [bool; 3];

/// A row's id as a column of UUIDs would hold it, where two spellings are one key.
#[derive(PartialEq, Eq, Hash)]
enum RowKey<'a> {
    Uuid(Uuid),
    Text(&'a str),
}

impl ChatRow {
    fn shape(&self) -> Shape {
        [
            self.user_id.is_some(),
            self.character_id.is_some(),
            self.updated_at.is_some(),
        ]
    }

    fn key(&self) -> RowKey<'_> {
        match Uuid::try_parse(&self.id) {
            Ok(uuid) => RowKey::Uuid(uuid),
            Err(_) => RowKey::Text(&self.id),
        }
    }
}

/// Puts the rows into batches of one shape, none with two equal keys: the server fails a batch
/// that has them, and would fail it again.
fn batches(rows: &[ChatRow]) -> Vec<Vec<&ChatRow>> {
    let last: HashMap<&str, usize> = rows
        .iter()
        .enumerate()
        .map(|(index, row)| (&*row.id, index))
        .collect();
    let mut batches: Vec<Batch<'_>> = vec![];
    for (index, row) in rows.iter().enumerate() {
        if last.get(&*row.id) != Some(&index) {
            continue;
        }
        let has_room = |batch: &&mut Batch<'_>| {
            batch.shape == row.shape()
                && batch.rows.len() < BATCH_ROWS_MAX
                && !batch.keys.contains(&row.key())
        };
        match batches.iter_mut().find(has_room) {
            Some(batch) => batch.push(row),
            None => {
                let mut batch = Batch {
                    shape: row.shape(),
                    keys: HashSet::new(),
                    rows: vec![],
                };
                batch.push(row);
                batches.push(batch);
            }
        }
    }
    batches.into_iter().map(|batch| batch.rows).collect()
}

struct Batch<'a> {
    shape: Shape,
    keys: HashSet<RowKey<'a>>,
    rows: Vec<&'a ChatRow>,
}

impl<'a> Batch<'a> {
    fn push(&mut self, row: &'a ChatRow) {
        self.keys.insert(row.key());
        self.rows.push(row);
    }
}

/// Text, or a number: an app may count its users.
fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        _ => Err(serde::de::Error::custom("neither text nor number")),
    }
}

#[expect(clippy::ref_option, reason = "serde calls it so")]
fn write_time<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.to_string()).serialize(to)
}

fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.as_deref().and_then(Timestamp::parse))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, user: Option<&str>) -> ChatRow {
        ChatRow {
            id: id.to_owned(),
            user_id: user.map(ToOwned::to_owned),
            character_id: None,
            updated_at: Some(Timestamp::from_micros(0)),
        }
    }

    fn ids(rows: &[ChatRow]) -> Vec<Vec<&str>> {
        let batches = batches(rows).into_iter();
        batches
            .map(|batch| batch.into_iter().map(|row| &*row.id).collect())
            .collect()
    }

    #[test]
    fn of_rows_with_one_id_the_last_is_sent() {
        let rows = [row("a", Some("1")), row("b", None), row("a", Some("2"))];
        let sent: Vec<_> = batches(&rows).into_iter().flatten().collect();
        assert_eq!(sent, [&rows[1], &rows[2]]);
    }

    #[test]
    fn rows_of_one_batch_have_the_same_members() {
        let rows = [row("a", Some("1")), row("b", None), row("c", Some("2"))];
        assert_eq!(ids(&rows), [vec!["a", "c"], vec!["b"]]);
    }

    #[test]
    fn two_spellings_of_one_uuid_are_not_in_one_batch() {
        let spellings = [
            "71d20e34-c2ae-48e1-812b-18cfe7e3c401",
            "71d20e34c2ae48e1812b18cfe7e3c401",
            "other",
        ];
        let rows = spellings.map(|id| row(id, None));
        assert_eq!(
            ids(&rows),
            [vec![spellings[0], "other"], vec![spellings[1]]]
        );
    }

    #[test]
    fn many_rows_are_split() {
        let rows: Vec<_> = (0..=2 * BATCH_ROWS_MAX)
            .map(|n| row(&n.to_string(), None))
            .collect();
        let lengths: Vec<_> = batches(&rows).iter().map(Vec::len).collect();
        assert_eq!(lengths, [BATCH_ROWS_MAX, BATCH_ROWS_MAX, 1]);
        assert!(batches(&[]).is_empty());
    }

    #[test]
    fn what_is_not_known_is_not_written() {
        let json = serde_json::to_value(row("a", None)).unwrap();
        let expected = json!({"id": "a", "updated_at": "1970-01-01T00:00:00.000000Z"});
        assert_eq!(json, expected);
    }

    #[test]
    fn rows_of_other_tables_than_ours_are_read() {
        let json = json!({"id": "a", "user_id": 7, "character_id": null, "extra": {},
            "updated_at": "2026-11-22T11:25:08.607+00:00"});
        let read: ChatRow = serde_json::from_value(json).unwrap();
        assert_eq!(
            (read.user_id.as_deref(), read.character_id),
            (Some("7"), None)
        );
        let time = Timestamp::parse("2026-11-22T11:25:08.607Z");
        assert!(time.is_some() && read.updated_at == time);
    }
}
