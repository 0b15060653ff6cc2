//! The catalogue: which conversations there are, without reading them.

use std::{fmt, str::FromStr};

use rusqlite::{Connection, Row, params};

use crate::{id::ConversationId, time::Timestamp};

/// Which conversations are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatalogueFilter {
    /// Of this owner alone.
    pub user_id: Option<String>,
    /// With this companion alone.
    pub character_id: Option<String>,
}

/// One conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueRow {
    /// Which.
    pub id: ConversationId,
    /// The life of the id.
    pub incarnation: u64,
    /// Entries in the log.
    pub seq: u64,
    /// The newest deletion among them; 0: there is none.
    pub deleted_seq: u64,
    /// When it began.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Owner.
    pub user_id: Option<String>,
    /// Companion.
    pub character_id: Option<String>,
}

impl CatalogueRow {
    /// Whether nothing but the deletion is left of it.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.deleted_seq == self.seq
    }
}

/// A page of conversations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CataloguePage {
    /// In order.
    pub rows: Vec<CatalogueRow>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<CatalogueCursor>,
}

/// A place in the order of a list. Opaque outside; sent back as it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogueCursor {
    at: i64,
    num: i64,
}

/// The text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct InvalidCatalogueCursor;

impl fmt::Display for CatalogueCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.at, self.num)
    }
}

impl FromStr for CatalogueCursor {
    type Err = InvalidCatalogueCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCatalogueCursor> {
        let number =
            |text| i64::from_str_radix(text, 16).map_err(|_not_a_number| InvalidCatalogueCursor);
        let (at, num) = text.split_once('.').ok_or(InvalidCatalogueCursor)?;
        Ok(Self {
            at: number(at)?,
            num: number(num)?,
        })
    }
}

const COLUMNS: &str =
    "num, id, incarnation, seq, deleted_seq, created_at, updated_at, user_id, character_id
    FROM conversations";

/// Conversations that are not deleted, the one that changed last first.
pub(super) fn newest(
    connection: &Connection,
    filter: &CatalogueFilter,
    after: Option<CatalogueCursor>,
    limit: usize,
) -> rusqlite::Result<CataloguePage> {
    // Each filter has a statement of its own, so that its index serves it.
    let wanted = match (&filter.user_id, &filter.character_id) {
        (None, None) => "?4 IS NULL AND ?5 IS NULL",
        (Some(_), None) => "user_id = ?4 AND ?5 IS NULL",
        (None, Some(_)) => "character_id = ?5 AND ?4 IS NULL",
        (Some(_), Some(_)) => "user_id = ?4 AND character_id = ?5",
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} WHERE {wanted} AND seq <> deleted_seq
            AND (updated_at, num) < (?1, ?2)
         ORDER BY updated_at DESC, num DESC LIMIT ?3"
    ))?;
    let from = after.unwrap_or(CatalogueCursor {
        at: i64::MAX,
        num: i64::MAX,
    });
    let rows = statement.query(params![
        from.at,
        from.num,
        i64::try_from(limit).unwrap_or(i64::MAX),
        filter.user_id,
        filter.character_id
    ])?;
    page(rows, limit, |row, num| CatalogueCursor {
        at: row.updated_at.micros(),
        num,
    })
}

/// All conversations, deleted ones too, in the order in which they first came.
pub(super) fn all(
    connection: &Connection,
    after: Option<CatalogueCursor>,
    limit: usize,
) -> rusqlite::Result<CataloguePage> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} WHERE num > ?1 ORDER BY num LIMIT ?2"
    ))?;
    let rows = statement.query(params![
        after.map_or(0, |after| after.num),
        i64::try_from(limit).unwrap_or(i64::MAX)
    ])?;
    page(rows, limit, |_, num| CatalogueCursor { at: 0, num })
}

/// Those of the conversations that the log has, deleted ones too; in no order.
pub(super) fn of(
    connection: &Connection,
    ids: &[ConversationId],
) -> rusqlite::Result<Vec<CatalogueRow>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} WHERE id = ?1"))?;
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let mut rows = statement.query([id.as_str()])?;
        if let Some(row) = rows.next()? {
            found.extend(catalogue_row(row)?);
        }
    }
    Ok(found)
}

fn page(
    mut rows: rusqlite::Rows<'_>,
    limit: usize,
    cursor: impl Fn(&CatalogueRow, i64) -> CatalogueCursor,
) -> rusqlite::Result<CataloguePage> {
    let mut page = CataloguePage::default();
    let mut read = 0;
    let mut last = None;
    while let Some(row) = rows.next()? {
        read += 1;
        if let Some(found) = catalogue_row(row)? {
            last = Some(cursor(&found, row.get(0)?));
            page.rows.push(found);
        }
    }
    page.next = last.filter(|_| read == limit);
    Ok(page)
}

/// `None`: the row's id is none, so nothing can ask for it.
fn catalogue_row(row: &Row<'_>) -> rusqlite::Result<Option<CatalogueRow>> {
    let Ok(id) = ConversationId::parse(row.get_ref(1)?.as_str()?) else {
        return Ok(None);
    };
    let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    Ok(Some(CatalogueRow {
        id,
        incarnation: number(2)?,
        seq: number(3)?,
        deleted_seq: number(4)?,
        created_at: Timestamp::from_micros(row.get(5)?),
        updated_at: Timestamp::from_micros(row.get(6)?),
        user_id: row.get(7)?,
        character_id: row.get(8)?,
    }))
}
