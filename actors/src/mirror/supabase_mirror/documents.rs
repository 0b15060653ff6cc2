//! Documents in the bucket that the log does not have.

use std::{sync::Arc, time::Duration};

use futures::{
    FutureExt as _,
    future::{BoxFuture, join},
};
use tokio::{task::spawn_blocking, time::timeout};
use uuid::Uuid;

use crate::{
    id::ConversationId,
    mirror::{
        RemoteDocuments, RemoteError,
        imported::ImportedDocument,
        json_files::DOCUMENT_BYTES_MAX,
        supabase::{SupabaseClient, SupabaseError, SupabaseErrorKind},
    },
};

/// Longest search: somebody waits for it.
const DEADLINE: Duration = Duration::from_secs(10);

/// The documents of one bucket.
#[derive(Debug, Clone)]
pub struct SupabaseDocuments {
    client: SupabaseClient,
}

impl SupabaseDocuments {
    /// Reads through this client.
    #[must_use]
    pub fn new(client: SupabaseClient) -> Self {
        Self { client }
    }
}

impl RemoteDocuments for SupabaseDocuments {
    fn find(
        &self,
        id: ConversationId,
    ) -> BoxFuture<'static, Result<Option<ImportedDocument>, RemoteError>> {
        let client = self.client.clone();
        async move {
            match timeout(DEADLINE, find(&client, &id)).await {
                Ok(found) => found,
                Err(_elapsed) => Err(RemoteError::Unavailable(
                    "Supabase did not answer in time".into(),
                )),
            }
        }
        .boxed()
    }

    fn is_prompt(&self, within: Duration) -> bool {
        self.client.last_answer().is_some_and(|took| took <= within)
    }
}

/// The key of an object that the ancestor wrote for a client that spells UUIDs in upper case;
/// `None`: there is no such spelling.
pub(super) fn upper_case_key(id: &ConversationId) -> Option<String> {
    let upper = id.as_str().to_ascii_uppercase();
    let is_another = Uuid::try_parse(id.as_str()).is_ok() && upper != id.as_str();
    is_another.then(|| format!("{upper}.json"))
}

async fn find(
    client: &SupabaseClient,
    id: &ConversationId,
) -> Result<Option<ImportedDocument>, RemoteError> {
    let canonical = find_at(client, id, format!("{id}.json"));
    let Some(upper) = upper_case_key(id) else {
        return canonical.await;
    };
    // At once: somebody waits.
    match join(canonical, find_at(client, id, upper)).await {
        (Ok(None), upper) => upper,
        (canonical, _) => canonical,
    }
}

async fn find_at(
    client: &SupabaseClient,
    id: &ConversationId,
    key: String,
) -> Result<Option<ImportedDocument>, RemoteError> {
    let bytes_max = usize::try_from(DOCUMENT_BYTES_MAX).unwrap_or(usize::MAX);
    let bytes = match client.download(&key, bytes_max).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return absent(client, &key).await,
        // The server stores no object of this name.
        Err(error) if error.kind == SupabaseErrorKind::RejectedName => return Ok(None),
        Err(error) if error.kind == SupabaseErrorKind::TooLarge => {
            return Err(RemoteError::Unreadable(error.message.into()));
        }
        Err(error) => return Err(unavailable(&error)),
    };
    let parsed = {
        let id = id.clone();
        spawn_blocking(move || ImportedDocument::parse(&id, &bytes)).await
    };
    let mut document = parsed
        .map_err(|panic| RemoteError::Unreadable(Arc::from(panic.to_string())))?
        .map_err(|error| RemoteError::Unreadable(Arc::from(error.to_string())))?;
    name_owner(client, id, &mut document).await?;
    Ok(Some(document))
}

/// While an object is overwritten, a read may miss it; its description is missed more rarely.
async fn absent(
    client: &SupabaseClient,
    key: &str,
) -> Result<Option<ImportedDocument>, RemoteError> {
    match client.info(key).await {
        Ok(None) => Ok(None),
        Ok(Some(_)) => Err(RemoteError::Unavailable(
            "Supabase lists the document and does not give it".into(),
        )),
        Err(error) => Err(unavailable(&error)),
    }
}

/// The owner of a document that names none stands in its row.
async fn name_owner(
    client: &SupabaseClient,
    id: &ConversationId,
    document: &mut ImportedDocument,
) -> Result<(), RemoteError> {
    let is_named = document.user_id.is_some() && document.character_id.is_some();
    if is_named || Uuid::try_parse(id.as_str()).is_err() {
        return Ok(());
    }
    match client.row(id.as_str()).await {
        Ok(Some(row)) => {
            document.user_id = document.user_id.take().or(row.user_id);
            document.character_id = document.character_id.take().or(row.character_id);
            Ok(())
        }
        Ok(None) => Ok(()),
        // There is no such table: there are no owners.
        Err(error) if error.kind == SupabaseErrorKind::MissingTable => Ok(()),
        Err(error) if error.kind == SupabaseErrorKind::NoRoute => Ok(()),
        // An import without its owner would stay without.
        Err(error) => Err(unavailable(&error)),
    }
}

fn unavailable(error: &SupabaseError) -> RemoteError {
    RemoteError::Unavailable(error.message.as_str().into())
}
