//! Documents of the configured bucket.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
};

use futures::{StreamExt as _, stream};
use idol_actors::{
    id::ConversationId,
    mirror::{
        imported::ImportedDocument,
        supabase::{ListedObject, SupabaseClient, SupabaseError, SupabaseErrorKind},
    },
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Fate, Next, Remark, Tally, take};
use crate::tools::{
    Opened, ToolError,
    bucket::{self, CALLS, Named, named},
    progress::Progress,
    retry::retried,
};

pub(super) async fn import(
    client: &SupabaseClient,
    opened: &Opened,
    stop: &CancellationToken,
    tally: &mut Tally,
) -> Result<(), ToolError> {
    let mut listing = bucket::list(client).await?;
    let mut progress = Progress::new("objects", None);
    let owners = Owners {
        client,
        table_missing: AtomicBool::new(false),
    };
    let mut seen = HashSet::new();
    while !stop.is_cancelled() {
        let page = match bucket::next_page(&mut listing).await {
            Ok(Some(page)) => page,
            Ok(None) => break,
            Err(error) => {
                // What was taken so far stays taken, and is reported.
                tally.failed.push(Remark {
                    name: "the list of objects".into(),
                    reason: error.to_string(),
                });
                tally.complete = false;
                break;
            }
        };
        // The older list may show an object twice.
        let page: Vec<ListedObject> = page
            .into_iter()
            .filter(|object| seen.insert(object.key.clone()))
            .collect();
        let mut fates = stream::iter(page)
            .take_until(stop.cancelled())
            .map(|ListedObject { key, .. }| async {
                let fate = match named(&key) {
                    Named::Document(id) => one(opened, &owners, &key, &id).await,
                    Named::Aside(_) => Fate::Skipped("it was kept beside a document".into()),
                    Named::Other => Fate::Skipped("its name is not {conversation id}.json".into()),
                };
                (key, fate)
            })
            .buffer_unordered(CALLS)
            .boxed_local();
        while let Some((key, fate)) = fates.next().await {
            if tally.count(key, fate) == Next::GiveUp {
                return Ok(());
            }
            progress.at(tally.done());
        }
    }
    Ok(())
}

async fn one(opened: &Opened, owners: &Owners<'_>, key: &str, id: &ConversationId) -> Fate {
    let bytes = match bucket::download(owners.client, key).await {
        Ok(Some(bytes)) => bytes,
        // A read replica, a policy, or an overwrite under way: anything but "not there".
        Ok(None) => {
            return Fate::Failed("it is listed, and the server says it is not there".into());
        }
        Err(error) if error.kind == SupabaseErrorKind::TooLarge => {
            return Fate::Skipped(error.to_string());
        }
        Err(error) => return Fate::Failed(error.to_string()),
    };
    let mut document = match ImportedDocument::parse(id, &bytes) {
        Ok(document) => document,
        Err(error) => return Fate::Skipped(error.to_string()),
    };
    if document.user_id.is_none()
        && let Err(error) = owners.fill_in(id, &mut document).await
    {
        // Its owner is set for good when it begins.
        return Fate::Failed(format!("its owner cannot be looked up: {error}"));
    }
    take(&opened.log, id, &document).await
}

/// The rows of `chats`, which name the owners of documents that do not.
struct Owners<'a> {
    client: &'a SupabaseClient,
    table_missing: AtomicBool,
}

impl Owners<'_> {
    async fn fill_in(
        &self,
        id: &ConversationId,
        document: &mut ImportedDocument,
    ) -> Result<(), SupabaseError> {
        let has_row = Uuid::try_parse(id.as_str()).is_ok();
        if !has_row || self.table_missing.load(Ordering::Relaxed) {
            return Ok(());
        }
        let row = match retried(async || self.client.row(id.as_str()).await).await {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(()),
            Err(error) if error.kind == SupabaseErrorKind::MissingTable => {
                if !self.table_missing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "documents that name no owner get none");
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        document.user_id = row.user_id;
        if document.character_id.is_none() {
            document.character_id = row.character_id;
        }
        Ok(())
    }
}
