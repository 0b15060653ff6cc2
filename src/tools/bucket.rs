//! The configured bucket, as the tools read it.

use bytes::Bytes;
use idol_actors::{
    id::ConversationId,
    mirror::{
        json_files::DOCUMENT_BYTES_MAX,
        supabase::{
            Deadlines, ListedObject, Listing, ObjectInfo, SupabaseClient, SupabaseConfig,
            SupabaseError,
        },
    },
};
use std::time::Duration;

use super::{ToolError, retry::retried};
use crate::config::Config;

/// Calls under way at once: as many as a small project bears beside its app.
pub(super) const CALLS: usize = 8;

/// Nobody waits for an answer here: a large document over a slow line gets its time.
pub(super) const DEADLINES: Deadlines = Deadlines {
    connect: Duration::from_secs(10),
    request: Duration::from_secs(120),
};

/// A key that no conversation has: asking for it tells a missing bucket from an empty one.
const PROBE: &str = "idol-router.probe";

/// What an object's name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    /// A conversation's document.
    Document(ConversationId),
    /// What a mirror kept of a conversation beside its document.
    Aside(ConversationId),
    /// Neither.
    Other,
}

/// Reads the name of an object, or of a file.
pub(super) fn named(name: &str) -> Named {
    let Some(stem) = name.strip_suffix(".json") else {
        return Named::Other;
    };
    if let Ok(id) = ConversationId::parse(stem) {
        return Named::Document(id);
    }
    // No id holds a dot.
    let aside = stem.split_once('.').filter(|(_, rest)| {
        ["conflict-", "edited-", "unreadable"]
            .iter()
            .any(|kind| rest.starts_with(kind))
    });
    match aside.map(|(id, _)| ConversationId::parse(id)) {
        Some(Ok(id)) => Named::Aside(id),
        _ => Named::Other,
    }
}

/// The client of the configured bucket, if there is one.
pub(super) fn configured(config: &Config) -> Result<Option<SupabaseClient>, ToolError> {
    let Some(supabase) = &config.supabase else {
        return Ok(None);
    };
    let client = SupabaseClient::new(&SupabaseConfig {
        url: supabase.url.as_str().to_owned(),
        service_role_key: supabase.service_role_key.clone(),
        bucket: supabase.bucket.clone(),
        deadlines: DEADLINES,
    })?;
    Ok(Some(client))
}

/// Begins to list a bucket that is known to be there: a missing one would be listed as empty.
pub(super) async fn list(client: &SupabaseClient) -> Result<Listing, SupabaseError> {
    retried(async || client.info(PROBE).await).await?;
    Ok(client.list(""))
}

/// The next page; `None` at the end.
pub(super) async fn next_page(
    listing: &mut Listing,
) -> Result<Option<Vec<ListedObject>>, SupabaseError> {
    retried(async || listing.next_page().await).await
}

/// What the server knows of an object.
pub(super) async fn info(
    client: &SupabaseClient,
    key: &str,
) -> Result<Option<ObjectInfo>, SupabaseError> {
    retried(async || client.info(key).await).await
}

/// Reads an object; `None` only if the server says that there is none.
pub(super) async fn download(
    client: &SupabaseClient,
    key: &str,
) -> Result<Option<Bytes>, SupabaseError> {
    let bytes_max = usize::try_from(DOCUMENT_BYTES_MAX).unwrap_or(usize::MAX);
    retried(async || client.download(key, bytes_max).await).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_it_is() {
        let id = |text| ConversationId::parse(text).unwrap();
        assert_eq!(named("a_B-9.json"), Named::Document(id("a_B-9")));
        assert_eq!(
            named("71D20E34-C2AE-48E1-812B-18CFE7E3C401.json"),
            Named::Document(id("71d20e34-c2ae-48e1-812b-18cfe7e3c401"))
        );
        for aside in [
            "c.conflict-2026.json",
            "c.edited-1-2.json",
            "c.unreadable.json",
        ] {
            assert_eq!(named(aside), Named::Aside(id("c")), "{aside}");
        }
        for other in [
            "c.json.tmp",
            "c",
            "c.old.json",
            ".json",
            "a/b.json",
            "é.json",
        ] {
            assert_eq!(named(other), Named::Other, "{other}");
        }
    }
}
