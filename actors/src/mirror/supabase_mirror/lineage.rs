//! Whose an object is that stands where ours is to stand.

use std::time::Duration;

use super::{
    documents::upper_case_key,
    work::{Failed, Work},
};
use crate::{
    conversation::message::StoredMessage,
    id::ConversationId,
    importing,
    log::{
        Loaded,
        sqlite::{ContentHash, MirrorRow},
    },
    mirror::{
        AdoptError, Adopted, Rendered,
        imported::ImportedDocument,
        json_files::DOCUMENT_BYTES_MAX,
        lives::{Life, Writer},
        supabase::{Copying, Metadata, ObjectInfo},
    },
    time::Timestamp,
};
use tokio::{task::spawn_blocking, time::timeout};

/// How long a conversation gets to take something over: it may wait for its log.
const ADOPT_DEADLINE: Duration = Duration::from_secs(60);

/// What is to be done about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lineage {
    /// There is none, or it shows a beginning of ours: ours may be uploaded.
    Within,
    /// It shows all that the log has.
    Same,
    /// The conversation took something over, or the object has changed: look again.
    LookAgain,
}

/// What came of offering a document to its conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// Messages of it are in the log now.
    Messages,
    /// Its messages were in the log.
    Nothing,
    /// It has parted from ours.
    Aside(Lineage),
}

pub(super) fn hex(hash: &ContentHash) -> String {
    use std::fmt::Write as _;
    hash.iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string does not fail.
            write!(text, "{byte:02x}").ok();
            text
        })
}

/// Whether a document was imported whole: one entry of the log begins with all of its messages,
/// and it says nothing else.
fn has_all_of(id: &ConversationId, document: &ImportedDocument, loaded: &Loaded) -> bool {
    if document.says_more() || document.messages.is_empty() {
        return false;
    }
    loaded.entries.iter().any(|entry| {
        if entry.messages.len() < document.messages.len() {
            return false;
        }
        let Ok(theirs) = importing::messages_of(id, document, entry.head.at()) else {
            return false;
        };
        theirs.iter().zip(&entry.messages).all(|(theirs, ours)| {
            StoredMessage::from_fragment(ours.clone()).is_ok_and(|ours| {
                ours.id() == theirs.id() && ours.comparable() == theirs.comparable()
            })
        })
    })
}

impl Work {
    /// Looks at the object before the first upload; settles what stands in the way of ours.
    pub(super) async fn lineage(
        &mut self,
        row: &MirrorRow,
        loaded: Loaded,
        ours: &Rendered,
        hash: &ContentHash,
    ) -> Result<Lineage, Failed> {
        let Some(info) = self.tools.client.info(&self.key).await? else {
            return self.spelled_otherwise(row, loaded).await;
        };
        match info {
            ObjectInfo {
                metadata: Some(found),
                ..
            } => self.with_metadata(row, loaded, ours, hash, found).await,
            ObjectInfo { metadata: None, .. } => {
                self.without_metadata(row, loaded, ours, hash).await
            }
        }
    }

    async fn with_metadata(
        &mut self,
        row: &MirrorRow,
        loaded: Loaded,
        ours: &Rendered,
        hash: &ContentHash,
        found: Metadata,
    ) -> Result<Lineage, Failed> {
        let life = Life::of(row, self.log_id());
        match life.writer(found.log, found.incarnation, found.seq) {
            Writer::UsBefore => Ok(Lineage::Within),
            Writer::Another => self.foreign(row, loaded).await,
            Writer::Us if found.seq == ours.seq && found.hash == hex(hash) => Ok(Lineage::Same),
            Writer::Us if self.is_within(row, loaded, found.seq, &found.hash).await? => {
                Ok(Lineage::Within)
            }
            Writer::Us => self.offer().await,
        }
    }

    /// Another program wrote it, or a copy lost its metadata: only the text tells.
    async fn without_metadata(
        &mut self,
        row: &MirrorRow,
        loaded: Loaded,
        ours: &Rendered,
        hash: &ContentHash,
    ) -> Result<Lineage, Failed> {
        let Some((document, text_hash)) = self.read(&self.key).await? else {
            return Ok(Lineage::LookAgain);
        };
        let revision = document
            .as_ref()
            .and_then(|document| document.revision.clone());
        if let Some(revision) = revision {
            let found = Metadata {
                log: revision.log,
                incarnation: revision.incarnation,
                seq: revision.seq,
                hash: hex(&text_hash),
            };
            return self.with_metadata(row, loaded, ours, hash, found).await;
        }
        self.settle_foreign(row, loaded, document).await
    }

    /// Another log's.
    async fn foreign(&mut self, row: &MirrorRow, loaded: Loaded) -> Result<Lineage, Failed> {
        match self.read(&self.key).await? {
            None => Ok(Lineage::LookAgain),
            Some((document, _)) => self.settle_foreign(row, loaded, document).await,
        }
    }

    async fn settle_foreign(
        &mut self,
        row: &MirrorRow,
        loaded: Loaded,
        document: Option<ImportedDocument>,
    ) -> Result<Lineage, Failed> {
        // To copy it needs no understanding.
        let Some(document) = document else {
            return self.keep_both().await;
        };
        let (holds, document) = self.has_all_of(document, loaded).await?;
        match holds {
            // This conversation began with it.
            true => Ok(Lineage::Within),
            false if row.unverified && self.tools.adopter.get().is_none() => Err(Failed::Postponed),
            false if row.unverified => self.take_in(document).await,
            false => self.keep_both().await,
        }
    }

    /// Another's document from before ours: its messages are taken over, and what no import takes
    /// over is kept aside.
    async fn take_in(&mut self, document: ImportedDocument) -> Result<Lineage, Failed> {
        let says_more = document.says_more();
        match self.adopt(document).await? {
            Taken::Messages => Ok(Lineage::LookAgain),
            Taken::Nothing if says_more => self.keep_both().await,
            Taken::Nothing => Ok(Lineage::Within),
            Taken::Aside(lineage) => Ok(lineage),
        }
    }

    /// No object of ours is there. The FastAPI service may have named its own in upper case: it is
    /// taken over by a conversation that began without it, and stays where it is.
    async fn spelled_otherwise(
        &mut self,
        row: &MirrorRow,
        loaded: Loaded,
    ) -> Result<Lineage, Failed> {
        let Some(key) = upper_case_key(&self.id).filter(|_| row.unverified) else {
            return Ok(Lineage::Within);
        };
        // Nothing of ours will stand in its place, whatever it is.
        let Some((Some(document), _)) = self.read(&key).await? else {
            return Ok(Lineage::Within);
        };
        let (holds, document) = self.has_all_of(document, loaded).await?;
        match holds {
            true => Ok(Lineage::Within),
            false => Ok(match self.ask_owner(document).await? {
                Some(Adopted::Messages(_)) => Lineage::LookAgain,
                Some(Adopted::Nothing) | None => Lineage::Within,
            }),
        }
    }

    /// See [`has_all_of`]; gives the document back.
    async fn has_all_of(
        &self,
        document: ImportedDocument,
        loaded: Loaded,
    ) -> Result<(bool, ImportedDocument), Failed> {
        let id = self.id.clone();
        let looked = spawn_blocking(move || (has_all_of(&id, &document, &loaded), document));
        looked
            .await
            .map_err(|panic| Failed::Damaged(panic.to_string()))
    }

    /// Whether the object shows a beginning of what the log has.
    async fn is_within(
        &self,
        row: &MirrorRow,
        mut loaded: Loaded,
        seq: u64,
        hash: &str,
    ) -> Result<bool, Failed> {
        if seq == row.mirrored_seq && row.hash.is_some_and(|last| hex(&last) == hash) {
            return Ok(true);
        }
        let Some(entries) = (seq + 1).checked_sub(loaded.first_seq.max(1)) else {
            return Ok(false);
        };
        let Some(entries) = usize::try_from(entries)
            .ok()
            .filter(|entries| *entries <= loaded.entries.len())
        else {
            return Ok(false);
        };
        loaded.entries.truncate(entries);
        let (render, id) = (self.tools.render.clone(), self.id.clone());
        let beginning = spawn_blocking(move || {
            let rendered = render.render(&id, loaded).ok()?;
            Some(hex(&rendered.hash()))
        });
        let beginning = beginning
            .await
            .map_err(|panic| Failed::Damaged(panic.to_string()))?;
        Ok(beginning.as_deref() == Some(hash))
    }

    async fn offer(&mut self) -> Result<Lineage, Failed> {
        if self.tools.adopter.get().is_none() {
            return Err(Failed::Postponed);
        }
        match self.read(&self.key).await? {
            None => Ok(Lineage::LookAgain),
            Some((Some(document), _)) => match self.adopt(document).await? {
                Taken::Messages | Taken::Nothing => {
                    self.checked = true;
                    Ok(Lineage::LookAgain)
                }
                Taken::Aside(lineage) => Ok(lineage),
            },
            // To copy it needs no understanding.
            Some((None, _)) => self.keep_both().await,
        }
    }

    async fn adopt(&mut self, document: ImportedDocument) -> Result<Taken, Failed> {
        match self.ask_owner(document).await? {
            Some(Adopted::Messages(_)) => Ok(Taken::Messages),
            Some(Adopted::Nothing) => Ok(Taken::Nothing),
            None => self.keep_both().await.map(Taken::Aside),
        }
    }

    /// Offers a document to its conversation; `None`: the two have parted.
    async fn ask_owner(&self, document: ImportedDocument) -> Result<Option<Adopted>, Failed> {
        let Some(adopter) = self.tools.adopter.get() else {
            return Err(Failed::Postponed);
        };
        let adopting = timeout(ADOPT_DEADLINE, adopter.adopt(self.id.clone(), document));
        let Ok(adopted) = adopting.await else {
            return Err(Failed::Log(
                "the conversation did not answer in time".into(),
            ));
        };
        match adopted {
            Ok(adopted) => {
                tracing::info!(conversation = %self.id, ?adopted, "took over what only Supabase had");
                Ok(Some(adopted))
            }
            Err(AdoptError::Parted) => Ok(None),
            Err(AdoptError::Unavailable(reason)) => Err(Failed::Log(reason)),
        }
    }

    /// Copies the object to a name of its own, so that ours may stand in its place.
    async fn keep_both(&mut self) -> Result<Lineage, Failed> {
        let time = Timestamp::now().to_string().replace(':', "");
        let kept = format!("{}.conflict-{time}.json", self.id);
        match self.tools.client.copy(&self.key, &kept).await? {
            Copying::Copied => {
                tracing::warn!(conversation = %self.id, kept, "the bucket held another document of this id; both are kept");
                self.conflicts += 1;
                Ok(Lineage::Within)
            }
            // Another name is free.
            Copying::AlreadyThere => Err(Failed::Postponed),
            Copying::Missing => Ok(Lineage::LookAgain),
        }
    }

    /// An object's text; `None` if it is gone, no document if it is none.
    pub(super) async fn read(
        &self,
        key: &str,
    ) -> Result<Option<(Option<ImportedDocument>, ContentHash)>, Failed> {
        use crate::mirror::supabase::SupabaseErrorKind;
        use sha2::{Digest as _, Sha256};

        let bytes_max = usize::try_from(DOCUMENT_BYTES_MAX).unwrap_or(usize::MAX);
        let bytes = match self.tools.client.download(key, bytes_max).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            // Larger than any document.
            Err(error) if error.kind == SupabaseErrorKind::TooLarge => {
                return Ok(Some((None, ContentHash::default())));
            }
            Err(error) => return Err(error.into()),
        };
        let id = self.id.clone();
        let read = spawn_blocking(move || {
            let hash: ContentHash = Sha256::digest(&bytes).into();
            (ImportedDocument::parse(&id, &bytes).ok(), hash)
        });
        read.await
            .map(Some)
            .map_err(|panic| Failed::Damaged(panic.to_string()))
    }
}
