//! The names in the bucket, page by page.

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::{
    SupabaseClient,
    call::Effect,
    config::Connection,
    error::{SupabaseError, SupabaseErrorKind},
    names::encode,
};

/// Objects on a page; a server may send fewer.
const PAGE_OBJECTS: usize = 1000;

/// A page's rows are some 500 bytes each, and names have up to 1 KiB.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// An object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Whole, prefix included.
    pub key: String,
    /// Bytes, if the server tells.
    pub size: Option<u64>,
}

/// The objects whose keys begin with a prefix. A bucket that is missing, or that the key may not
/// see, is listed as empty: the server does not tell it apart.
#[derive(Debug)]
pub struct Listing {
    client: SupabaseClient,
    prefix: String,
    next: Next,
}

/// Where to go on.
#[derive(Debug)]
enum Next {
    /// `list-v2`: exact, with a cursor that other people's writes do not shift.
    Cursor(Option<String>),
    /// The older list: by offset, so that an object may be missed or seen twice while others are
    /// written; one folder deep; and it does not tell folders apart by case.
    Offset(usize),
    End,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    has_next: bool,
    next_cursor: Option<String>,
    objects: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    /// Folders have none.
    id: Option<String>,
    metadata: Option<RowMetadata>,
}

#[derive(Deserialize)]
struct RowMetadata {
    size: Option<u64>,
}

impl SupabaseClient {
    /// Lists the objects whose keys begin with `prefix`, case and all.
    #[must_use]
    pub fn list(&self, prefix: impl Into<String>) -> Listing {
        Listing {
            client: self.clone(),
            prefix: prefix.into(),
            next: Next::Cursor(None),
        }
    }
}

impl Listing {
    /// The next objects, perhaps none; `None` at the end. After an error it may be called again,
    /// and asks for the same page.
    ///
    /// # Errors
    ///
    /// See [`SupabaseErrorKind`].
    pub async fn next_page(&mut self) -> Result<Option<Vec<ListedObject>>, SupabaseError> {
        let cursor = match &self.next {
            Next::Cursor(cursor) => cursor.clone(),
            Next::Offset(offset) => return self.page_by_offset(*offset).await.map(Some),
            Next::End => return Ok(None),
        };
        let is_first = cursor.is_none();
        match self.page_by_cursor(cursor).await {
            // An older server.
            Err(error) if is_first && error.kind == SupabaseErrorKind::NoRoute => {
                self.page_by_offset(0).await.map(Some)
            }
            page => page.map(Some),
        }
    }

    async fn page_by_cursor(
        &mut self,
        cursor: Option<String>,
    ) -> Result<Vec<ListedObject>, SupabaseError> {
        let mut wanted = json!({
            "prefix": self.prefix,
            "limit": PAGE_OBJECTS,
            "with_delimiter": false,
        });
        if let Some(cursor) = &cursor {
            wanted["cursor"] = cursor.as_str().into();
        }
        let page: Page = self.ask("list-v2", &wanted).await?;
        let next = match (page.has_next, page.next_cursor) {
            (false, _) => Next::End,
            // The same page again and again would never end.
            (true, next) if next.is_none() || next == cursor => {
                return Err(SupabaseError::malformed(
                    "promised more objects, but not where to find them",
                ));
            }
            (true, next) => Next::Cursor(next),
        };
        self.next = next;
        let whole = |row: Row| ListedObject {
            key: row.name,
            size: row.metadata.and_then(|metadata| metadata.size),
        };
        Ok(self.matching(page.objects.into_iter().map(whole)))
    }

    async fn page_by_offset(&mut self, offset: usize) -> Result<Vec<ListedObject>, SupabaseError> {
        // A prefix means a folder here; a part of a name has to be searched for.
        let (folder, name) = match self.prefix.rfind('/') {
            Some(slash) => self.prefix.split_at(slash + 1),
            None => ("", self.prefix.as_str()),
        };
        let mut wanted = json!({
            "prefix": folder,
            "limit": PAGE_OBJECTS,
            "offset": offset,
            "sortBy": {"column": "name", "order": "asc"},
        });
        if !name.is_empty() {
            wanted["search"] = name.into();
        }
        let rows: Vec<Row> = self.ask("list", &wanted).await?;
        self.next = match rows.len() {
            // A server may have a smaller limit than we ask for: only nothing is the end.
            0 => Next::End,
            found => Next::Offset(offset + found),
        };
        let whole = |row: Row| {
            row.id?;
            Some(ListedObject {
                key: format!("{folder}{}", row.name),
                size: row.metadata.and_then(|metadata| metadata.size),
            })
        };
        Ok(self.matching(rows.into_iter().filter_map(whole)))
    }

    fn matching(&self, objects: impl Iterator<Item = ListedObject>) -> Vec<ListedObject> {
        objects
            .filter(|object| object.key.starts_with(&self.prefix))
            .collect()
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        route: &str,
        wanted: &serde_json::Value,
    ) -> Result<T, SupabaseError> {
        let endpoint = &self.client.endpoint;
        let path = format!("/object/{route}/{}", encode(&endpoint.bucket));
        let request = endpoint
            .storage(Method::POST, &path, Connection::Shared)
            .json(wanted);
        let answer = endpoint.ask(request, Effect::Reads).await?;
        answer.json(PAGE_BYTES_MAX, "list of objects").await
    }
}
