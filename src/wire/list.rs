//! The list of conversations.

use idol_actors::log::sqlite::{CatalogueCursor, CatalogueFilter, CataloguePage, CatalogueRow};

use super::{document::instant, fields::FieldError, json::Object, query::Query};
use crate::config::Timestamps;

/// Conversations in one answer: where none is asked for, and at most.
const CONVERSATIONS: (usize, usize) = (50, 200);

/// Which conversations are wanted.
#[derive(Debug)]
pub struct ListRequest {
    /// Whose.
    pub filter: CatalogueFilter,
    /// After which; none: from the newest on.
    pub cursor: Option<CatalogueCursor>,
    /// At most so many.
    pub limit: usize,
}

impl ListRequest {
    /// Reads a query string.
    pub fn parse(query: &str) -> Result<Self, Vec<FieldError>> {
        let mut query = Query::of(query);
        let (usual, most) = CONVERSATIONS;
        let limit = query.integer("limit", 1, most).unwrap_or(usual);
        let cursor = query.text("cursor").map(str::parse);
        let cursor = cursor.transpose().unwrap_or_else(|_no_cursor| {
            let msg = "Input should be the next_cursor of an answer";
            query.wrong("cursor", "value_error", msg);
            None
        });
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let filter = CatalogueFilter {
            user_id: owned(query.text("user_id")),
            character_id: owned(query.text("character_id")),
        };
        query.finish(Self {
            filter,
            cursor,
            limit,
        })
    }
}

/// The answer of `GET /conversations`.
#[must_use]
pub fn conversations(page: &CataloguePage, form: Timestamps) -> String {
    Object::with_capacity(page.rows.len() * 256 + 64)
        .list("conversations", &page.rows, |json, row| {
            json.push_str(&conversation(row, form));
        })
        .maybe(page.next, |it, cursor| it.shown("next_cursor", cursor))
        .end()
}

fn conversation(row: &CatalogueRow, form: Timestamps) -> String {
    Object::with_capacity(256)
        .string("id", row.id.as_str())
        .shown("created_at", instant(row.created_at, form))
        .shown("updated_at", instant(row.updated_at, form))
        .maybe(row.user_id.as_deref(), |it, id| it.string("user_id", id))
        .maybe(row.character_id.as_deref(), |it, id| {
            it.string("character_id", id)
        })
        .end()
}
