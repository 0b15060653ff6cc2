//! The bucket's objects, against the log.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use idol_actors::{
    id::ConversationId,
    log::sqlite::CatalogueRow,
    mirror::{
        Rendered,
        imported::ImportedDocument,
        supabase::{SupabaseClient, SupabaseError},
    },
};
use uuid::Uuid;

use super::findings::{Findings, Kind};
use crate::tools::bucket::{self, Named, named};

/// Reads that may fail one after the other before the bucket is no longer asked.
const FAILURES_MAX: u32 = 16;

/// What is read of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// What the bucket says of it; its text where that settles nothing.
    AsNeeded,
    /// Its text in any case.
    Whole,
}

/// The bucket as it was listed.
pub(super) struct Objects {
    reader: Reader,
    /// Keys by the conversation they belong to; what no conversation has asked for yet.
    keys: HashMap<ConversationId, Vec<String>>,
}

/// Looks at single objects. Cheap to clone.
#[derive(Clone)]
pub(super) struct Reader {
    client: SupabaseClient,
    reading: Reading,
    failures: Arc<AtomicU32>,
}

/// Why an object was not looked at.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotLooked {
    #[error(transparent)]
    Failed(#[from] SupabaseError),
    #[error("not asked for, since the bucket did not answer {FAILURES_MAX} times in a row")]
    GivenUp,
    #[error("it is there, and then the server says it is not")]
    Vanished,
}

impl Objects {
    /// Lists the bucket; `None` if that fails, which is noted.
    pub(super) async fn list(
        client: SupabaseClient,
        reading: Reading,
        findings: &mut Findings,
    ) -> Option<Self> {
        let mut keys: HashMap<ConversationId, Vec<String>> = HashMap::new();
        let listed = async {
            let mut listing = bucket::list(&client).await?;
            while let Some(page) = bucket::next_page(&mut listing).await? {
                for object in page {
                    if let Named::Document(id) | Named::Aside(id) = named(&object.key) {
                        keys.entry(id).or_default().push(object.key);
                    }
                }
            }
            Ok::<_, SupabaseError>(())
        };
        if let Err(error) = listed.await {
            findings.unread("the list of objects".into(), error.to_string());
            return None;
        }
        let reader = Reader {
            client,
            reading,
            failures: Arc::default(),
        };
        Some(Self { reader, keys })
    }

    pub(super) fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// The listed keys of a conversation of the log.
    pub(super) fn take(&mut self, id: &ConversationId) -> Vec<String> {
        self.keys.remove(id).unwrap_or_default()
    }

    /// The listed keys that no conversation of the log has taken.
    pub(super) fn unknown(self) -> Vec<String> {
        let mut keys: Vec<_> = self.keys.into_values().flatten().collect();
        keys.sort_unstable();
        keys
    }
}

impl Reader {
    /// How the object of a conversation that is not deleted differs, if it does.
    pub(super) async fn look(
        &self,
        row: &CatalogueRow,
        rendered: &Rendered,
        log: Uuid,
    ) -> Result<Option<Kind>, NotLooked> {
        if self.failures.load(Ordering::Relaxed) >= FAILURES_MAX {
            return Err(NotLooked::GivenUp);
        }
        let looked = self.compare(row, rendered, log).await;
        match &looked {
            Err(NotLooked::Failed(_)) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) | Err(_) => self.failures.store(0, Ordering::Relaxed),
        }
        looked
    }

    async fn compare(
        &self,
        row: &CatalogueRow,
        rendered: &Rendered,
        log: Uuid,
    ) -> Result<Option<Kind>, NotLooked> {
        let key = format!("{}.json", row.id);
        let Some(info) = bucket::info(&self.client, &key).await? else {
            return Ok(Some(Kind::ObjectMissing));
        };
        let said = info.metadata.as_ref().map(|it| Place {
            log: it.log,
            incarnation: it.incarnation,
            seq: it.seq,
        });
        if self.reading == Reading::AsNeeded
            && let Some(metadata) = &info.metadata
            && let Some(place) = said
        {
            match judge(place, row, log) {
                // Of another size it cannot be what its metadata says.
                None if metadata.hash == hex(&rendered.hash())
                    && info.size == rendered.bytes() as u64 =>
                {
                    return Ok(None);
                }
                None => {}
                Some(kind) => return Ok(Some(kind)),
            }
        }
        let bytes = bucket::download(&self.client, &key).await?;
        let bytes = bytes.ok_or(NotLooked::Vanished)?;
        if rendered.is(&bytes) {
            return Ok(None);
        }
        let Ok(document) = ImportedDocument::parse(&row.id, &bytes) else {
            return Ok(Some(Kind::ObjectUnreadable));
        };
        let says = document.revision.map(|it| Place {
            log: it.log,
            incarnation: it.incarnation,
            seq: it.seq,
        });
        Ok(Some(match says.or(said) {
            None => Kind::ObjectForeign,
            Some(place) => judge(place, row, log).unwrap_or(Kind::ObjectDiffers),
        }))
    }
}

/// The place in a log that a copy says it shows.
#[derive(Debug, Clone, Copy)]
struct Place {
    log: Uuid,
    incarnation: u64,
    seq: u64,
}

/// How a copy of this place stands to the log; `None`: they are at the same entry.
fn judge(place: Place, row: &CatalogueRow, log: Uuid) -> Option<Kind> {
    if place.log != log {
        return Some(Kind::ObjectForeign);
    }
    if place.incarnation != row.incarnation {
        // Of a life of the id that was deleted.
        return Some(Kind::ObjectOfDeleted);
    }
    match place.seq.cmp(&row.seq) {
        std::cmp::Ordering::Less => Some(Kind::ObjectBehind),
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(Kind::ObjectAhead),
    }
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
