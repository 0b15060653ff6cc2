//! The rows of `chats`, kept in step beside the documents. Best effort: no document waits for them.

use std::{collections::HashSet, sync::Arc};

use futures::{StreamExt as _, stream};
use tokio::time::Instant;
use uuid::Uuid;

use super::door::{Backoff, Concerns, Door};
use crate::{
    id::ConversationId,
    log::sqlite::{CatalogueRow, SqliteLog},
    mirror::supabase::{ChatRow, SupabaseClient, SupabaseError, SupabaseErrorKind as Kind},
    time::Timestamp,
};

/// Rows remembered as lacking. A row beyond it is written when its conversation changes again.
const DIRTY_MAX: usize = 100_000;

/// Rows in one round.
const ROUND: usize = 500;

/// Rows that only have their time set, at once: each is a request.
const PATCHES_AT_ONCE: usize = 4;

/// After so many refusals in one round the table is taken to be of another make.
const REFUSALS_MAX: usize = 16;

/// Which rows lack something, and whether anybody takes them.
#[derive(Debug)]
pub(super) struct ChatRows {
    dirty: HashSet<ConversationId>,
    door: Door,
    busy: bool,
    said: Vec<Kind>,
    trouble: Option<Arc<str>>,
}

/// How a round of rows ended.
#[derive(Debug, Default)]
pub(super) struct RowsDone {
    /// To be tried again.
    left: Vec<ConversationId>,
    /// Rows that the database does not take, and why.
    refused: Vec<(String, SupabaseError)>,
    /// Why the round stopped.
    trouble: Option<SupabaseError>,
    log_failed: bool,
}

impl ChatRows {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            dirty: HashSet::new(),
            door: Door::new(backoff),
            busy: false,
            said: vec![],
            trouble: None,
        }
    }

    /// A conversation changed. Only those whose id is a UUID can have a row.
    pub(super) fn changed(&mut self, id: &ConversationId) {
        if self.dirty.len() < DIRTY_MAX && Uuid::try_parse(id.as_str()).is_ok() {
            self.dirty.insert(id.clone());
        }
    }

    /// The next round, if it is time for one; it must be settled.
    pub(super) fn take(&mut self, now: Instant) -> Option<Vec<ConversationId>> {
        if self.busy || self.dirty.is_empty() || self.door.is_shut(now) {
            return None;
        }
        self.busy = true;
        // After a failure one row has to pass first.
        let most = if self.door.is_doubtful() { 1 } else { ROUND };
        let taken: Vec<_> = self.dirty.iter().take(most).cloned().collect();
        for id in &taken {
            self.dirty.remove(id);
        }
        Some(taken)
    }

    pub(super) fn settle(&mut self, now: Instant, done: RowsDone) {
        self.busy = false;
        for id in &done.left {
            self.changed(id);
        }
        for (row, error) in &done.refused {
            self.say(error, Some(row));
        }
        match &done.trouble {
            Some(error) => {
                self.door.failed(now, error, fastrand::f64());
                self.say(error, None);
                self.trouble = Some(error.message.as_str().into());
            }
            None if done.log_failed => {}
            None => {
                self.door.passed();
                if self.trouble.take().is_some() {
                    tracing::info!("rows of \"chats\" are written again");
                    self.said.clear();
                }
            }
        }
    }

    /// Says each kind of trouble once.
    pub(super) fn say(&mut self, error: &SupabaseError, row: Option<&str>) {
        if self.said.contains(&error.kind) {
            return;
        }
        self.said.push(error.kind);
        match row {
            Some(row) => {
                tracing::warn!(row, %error, "a row of \"chats\" stays as it is; others for the same reason, too")
            }
            None => {
                tracing::warn!(%error, "rows of \"chats\" cannot be written; the documents can")
            }
        }
    }

    pub(super) fn trouble(&self) -> Option<Arc<str>> {
        self.trouble.clone()
    }

    pub(super) fn is_idle(&self, now: Instant) -> bool {
        !self.busy && (self.dirty.is_empty() || self.door.is_shut(now))
    }

    pub(super) fn dirty(&self) -> usize {
        self.dirty.len()
    }
}

/// Writes the rows of these conversations as the log has them.
pub(super) async fn write(
    log: Arc<SqliteLog>,
    client: SupabaseClient,
    ids: Vec<ConversationId>,
) -> RowsDone {
    let mut done = RowsDone::default();
    let found = match log.catalogue_rows(ids.clone()).await {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(%error, "rows wait for the log");
            done.left = ids;
            done.log_failed = true;
            return done;
        }
    };
    let (mut whole, mut times) = (vec![], vec![]);
    for row in found.into_iter().filter(|row| !row.is_deleted()) {
        match whole_row(&row) {
            Some(whole_row) => whole.push(whole_row),
            None => times.push((row.id, row.updated_at)),
        }
    }
    upsert(&client, whole, &mut done).await;
    patch(&client, times, &mut done).await;
    done
}

/// A row that may be inserted; `None` where an owner or a companion is no UUID, as the columns are.
fn whole_row(row: &CatalogueRow) -> Option<ChatRow> {
    let uuid = |text: &Option<String>| text.clone().filter(|text| Uuid::try_parse(text).is_ok());
    Some(ChatRow {
        id: row.id.to_string(),
        user_id: Some(uuid(&row.user_id)?),
        character_id: Some(uuid(&row.character_id)?),
        updated_at: Some(row.updated_at),
    })
}

/// One bad row fails its batch: a batch that is refused is halved until the bad one stands alone.
async fn upsert(client: &SupabaseClient, rows: Vec<ChatRow>, done: &mut RowsDone) {
    let mut batches = vec![rows];
    while let Some(mut batch) = batches.pop() {
        if batch.is_empty() {
            continue;
        }
        let Err(error) = client.upsert_rows(&batch).await else {
            continue;
        };
        if Concerns::of(&error) == Concerns::One && done.refused.len() < REFUSALS_MAX {
            if batch.len() > 1 {
                let rest = batch.split_off(batch.len() / 2);
                batches.extend([rest, batch]);
            } else {
                done.refused
                    .extend(batch.into_iter().map(|row| (row.id, error.clone())));
            }
            continue;
        }
        let unsent = batches.into_iter().chain([batch]).flatten();
        done.left
            .extend(unsent.filter_map(|row| ConversationId::parse(&row.id).ok()));
        done.trouble = Some(error);
        return;
    }
}

async fn patch(
    client: &SupabaseClient,
    times: Vec<(ConversationId, Timestamp)>,
    done: &mut RowsDone,
) {
    if done.trouble.is_some() {
        done.left.extend(times.into_iter().map(|(id, _)| id));
        return;
    }
    let mut patches = stream::iter(times)
        .map(|(id, time)| async move {
            let patched = client.patch_updated_at(id.as_str(), time).await;
            (id, patched)
        })
        .buffer_unordered(PATCHES_AT_ONCE);
    while let Some((id, patched)) = patches.next().await {
        match patched {
            // A row that is not there is not ours to make.
            Ok(_) => {}
            Err(error) if Concerns::of(&error) == Concerns::One => {
                done.refused.push((id.to_string(), error));
            }
            Err(error) => {
                done.left.push(id);
                done.trouble.get_or_insert(error);
            }
        }
    }
}
