//! The rows of `chats`, kept in step beside the documents. Best effort: no document waits for them.
//!
//! The log remembers which conversation's row was written last, or refused for good, at which
//! entry: a row that is lacking at the end of a run is found by the next.

use std::{collections::HashSet, sync::Arc};

use futures::{StreamExt as _, stream};
use tokio::time::Instant;
use uuid::Uuid;

use super::door::{Backoff, Concerns, Door};
use crate::{
    id::ConversationId,
    log::{
        LogError,
        sqlite::{CatalogueRow, LaggingCursor, LaggingPage, MirrorRow, Progress, SqliteLog, Step},
    },
    mirror::supabase::{ChatRow, SupabaseClient, SupabaseError, SupabaseErrorKind as Kind},
    time::Timestamp,
};

/// Name under which the log keeps how far the rows are.
const MIRROR: &str = "chats";

/// Rows remembered as lacking. Those beyond it are looked for in the log.
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
    /// Where the sweep over the log goes on.
    sweep: Option<LaggingCursor>,
    /// One that lacks something was not remembered.
    overflowed: bool,
    door: Door,
    busy: bool,
    said: Vec<Kind>,
    trouble: Option<Arc<str>>,
}

/// Whether a conversation can have a row: the column holds UUIDs.
fn can_have_row(id: &ConversationId) -> bool {
    Uuid::try_parse(id.as_str()).is_ok()
}

/// How a round of rows ended.
#[derive(Debug, Default)]
pub(super) struct RowsDone {
    /// To be tried again.
    left: HashSet<ConversationId>,
    /// Rows that the database does not take, and why.
    refused: Vec<(String, SupabaseError)>,
    /// Why the round stopped.
    trouble: Option<SupabaseError>,
    log_failed: bool,
}

impl RowsDone {
    /// Whether it is in vain to go on at once.
    pub(super) fn log_failed(&self) -> bool {
        self.log_failed
    }
}

impl ChatRows {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            dirty: HashSet::new(),
            sweep: Some(LaggingCursor::default()),
            overflowed: false,
            door: Door::new(backoff),
            busy: false,
            said: vec![],
            trouble: None,
        }
    }

    /// A conversation changed. Only those whose id is a UUID can have a row.
    pub(super) fn changed(&mut self, id: &ConversationId) {
        if !can_have_row(id) {
            return;
        }
        if self.dirty.len() < DIRTY_MAX {
            self.dirty.insert(id.clone());
        } else {
            self.overflowed |= !self.dirty.contains(id);
        }
    }

    /// Where to look in the log for more, if it is time for that; it must be found.
    pub(super) fn look(&mut self, now: Instant) -> Option<LaggingCursor> {
        if self.busy || self.dirty.len() >= ROUND || self.door.is_shut(now) {
            return None;
        }
        if self.sweep.is_none() && std::mem::take(&mut self.overflowed) {
            self.sweep = Some(LaggingCursor::default());
        }
        self.busy = self.sweep.is_some();
        self.sweep
    }

    /// What the look found. After an error it is repeated.
    pub(super) fn found(&mut self, page: Result<LaggingPage, LogError>) {
        self.busy = false;
        match page {
            Ok(page) => {
                for row in page.rows {
                    self.changed(&row.id);
                }
                self.sweep = page.next;
            }
            Err(error) => tracing::debug!(%error, "rows wait for the log"),
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
        let lacks_none = self.dirty.is_empty() && self.sweep.is_none() && !self.overflowed;
        !self.busy && (lacks_none || self.door.is_shut(now))
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
            done.left = ids.into_iter().collect();
            done.log_failed = true;
            return done;
        }
    };
    let (mut whole, mut times) = (vec![], vec![]);
    // The row of a deleted one goes with its object.
    for row in found.iter().filter(|row| !row.is_deleted()) {
        match whole_row(row) {
            Some(whole_row) => whole.push(whole_row),
            None => times.push((row.id.clone(), row.updated_at)),
        }
    }
    upsert(&client, whole, &mut done).await;
    patch(&client, times, &mut done).await;
    let reached: Vec<_> = found
        .into_iter()
        .filter(|row| !done.left.contains(&row.id))
        .map(|row| reached(row.id, row.incarnation, row.seq))
        .collect();
    if let Err(error) = record(&log, reached).await {
        // The next sweep finds them, and writes them once more.
        tracing::debug!(%error, "it is not recorded that rows are written");
        done.log_failed = true;
    }
    done
}

/// A page of the conversations whose row may lack something. Those that can have none are passed
/// over from now on.
pub(super) async fn lagging(
    log: Arc<SqliteLog>,
    from: LaggingCursor,
) -> Result<LaggingPage, LogError> {
    let LaggingPage { rows, next } = log.lagging(MIRROR, from, ROUND).await?;
    let lacks_row = |row: &MirrorRow| can_have_row(&row.id) && !row.is_deleted();
    let (rows, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(lacks_row);
    let others = others
        .into_iter()
        .map(|row| reached(row.id, row.incarnation, row.seq));
    record(&log, others.collect()).await?;
    Ok(LaggingPage { rows, next })
}

fn reached(id: ConversationId, incarnation: u64, seq: u64) -> Progress {
    let step = Step::Reached { seq };
    Progress {
        id,
        incarnation,
        step,
    }
}

async fn record(log: &SqliteLog, reached: Vec<Progress>) -> Result<(), LogError> {
    if reached.is_empty() {
        return Ok(());
    }
    log.record_progress(MIRROR, reached).await
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
                done.left.insert(id);
                done.trouble.get_or_insert(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the log is looked through once more after so many changed and were written.
    fn looks_again_after(changes: usize) -> bool {
        let (mut rows, now) = (ChatRows::new(Backoff::default()), Instant::now());
        assert_eq!(rows.look(now), Some(LaggingCursor::default()));
        assert_eq!(rows.look(now), None, "one look at a time");
        rows.found(Ok(LaggingPage::default()));
        for number in 0..changes {
            let id = Uuid::from_u128(number as u128).to_string();
            rows.changed(&ConversationId::parse(&id).unwrap());
        }
        while let Some(ids) = rows.take(now) {
            assert!(ids.len() <= ROUND);
            rows.settle(now, RowsDone::default());
        }
        let is_idle = rows.is_idle(now);
        let looks = rows.look(now).is_some();
        assert_ne!(is_idle, looks);
        looks
    }

    #[test]
    fn rows_that_could_not_be_remembered_are_looked_for_in_the_log() {
        assert!(!looks_again_after(DIRTY_MAX));
        assert!(looks_again_after(DIRTY_MAX + 1));
    }
}
