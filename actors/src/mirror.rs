//! Followers of the log: each keeps a readable copy of every conversation somewhere else.
//!
//! A mirror holds no queue of writes, only what each conversation's copy should show. It may fall
//! behind, and catches up from the log; it never holds up a turn.

use std::{fmt, sync::Arc, time::Duration};

use actix::Message;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    id::ConversationId,
    log::{Loaded, sqlite::ContentHash},
};

pub mod imported;
pub mod json_files;
mod lives;
mod schedule;
pub mod supabase;
pub mod supabase_mirror;

use imported::ImportedDocument;

/// A conversation grew, or was deleted. Send it with `try_send`: one that finds no place may be
/// dropped, since a mirror's next sweep over the log finds what it told of.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Changed {
    /// Which.
    pub id: ConversationId,
    /// Entries it has now.
    pub seq: u64,
    /// Bytes of messages that came with this change.
    pub bytes: u64,
}

/// Asks to write now all that is pending; answers how many documents still lack something.
///
/// Each is tried once. The answer comes when that is done, or after the deadline.
#[derive(Debug, Message)]
#[rtype(result = "usize")]
pub struct Flush {
    /// Longest wait.
    pub deadline: Duration,
}

/// Makes a conversation's document from its entries.
pub trait Render: Send + Sync {
    /// Folds the entries. Called on a thread that may block.
    fn render(&self, id: &ConversationId, loaded: Loaded) -> Result<Rendered, RenderError>;
}

/// A document as it is written.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// The life of the id that it shows.
    pub incarnation: u64,
    /// Entries that it shows.
    pub seq: u64,
    /// The JSON text, in pieces that follow each other; shared with whoever holds the messages.
    pub json: Vec<Arc<str>>,
}

impl Rendered {
    /// The digest of the text.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        let mut digest = Sha256::new();
        for piece in &self.json {
            digest.update(piece.as_bytes());
        }
        digest.finalize().into()
    }

    /// Whether these bytes are the text.
    #[must_use]
    pub fn is(&self, mut bytes: &[u8]) -> bool {
        let matches = self.json.iter().all(|piece| {
            let rest = bytes.strip_prefix(piece.as_bytes());
            bytes = rest.unwrap_or_default();
            rest.is_some()
        });
        matches && bytes.is_empty()
    }

    /// Bytes of the text.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.json.iter().map(|piece| piece.len()).sum()
    }
}

/// The entries make no document: a mistake of ours, or damage that still parses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the document cannot be made: {0}")]
pub struct RenderError(pub String);

/// A place in a mirror's work where a test may end the process. Each lies between two things that a
/// crash must not tear apart unnoticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorPoint {
    /// A file's text is synced under its temporary name; nothing of it is recorded.
    Staged,
    /// It is recorded that the file is about to be put in its place.
    Intended,
    /// A file that another hand changed is set aside; nothing is in its place.
    SetAside,
    /// The file is in its place; the directory is not synced.
    Renamed,
    /// The directory is synced; the progress is not recorded.
    InPlace,
    /// The files of a deleted conversation are gone; that is not recorded.
    FilesRemoved,
    /// An upload is about to be recorded, and then sent.
    BeforeUpload,
    /// An upload is recorded, and not sent.
    UploadBegun,
    /// The server has confirmed it; the progress is not recorded.
    Uploaded,
    /// The server has confirmed a deletion; the progress is not recorded.
    Removed,
}

/// A hook that is called at every [`MirrorPoint`], on one of the mirror's threads.
#[derive(Clone)]
pub struct MirrorHook(Arc<Hook>);

type Hook = dyn Fn(MirrorPoint, &ConversationId) + Send + Sync;

impl MirrorHook {
    /// Calls `hook` at every point.
    #[must_use]
    pub fn new(hook: impl Fn(MirrorPoint, &ConversationId) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    pub(crate) fn reached(&self, point: MirrorPoint, id: &ConversationId) {
        (self.0)(point, id);
    }
}

impl fmt::Debug for MirrorHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MirrorHook")
    }
}

/// What of which log a copy shows. Stands at the end of every copy that a mirror writes, as
/// `revision`, with a digest of all that stands before it: one that somebody edited has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// The log.
    pub log: Uuid,
    /// The life of the id. As a string: many readers of JSON have no 64-bit integers.
    #[serde(with = "hex")]
    pub incarnation: u64,
    /// Entries shown.
    pub seq: u64,
    /// SHA-256, in hex, of the text before it.
    pub sha256: String,
}

/// What stands between a document's messages and its revision.
pub(crate) const REVISION_MEMBER: &str = ",\n\"revision\":";

/// The digest of a text in pieces, in hex.
pub(crate) fn digest_of<'a>(pieces: impl IntoIterator<Item = &'a str>) -> String {
    let mut digest = Sha256::new();
    for piece in pieces {
        digest.update(piece.as_bytes());
    }
    digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{number:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

/// Documents of conversations that the log does not have.
pub trait RemoteDocuments: Send + Sync + fmt::Debug {
    /// Looks for one; `Ok(None)` only where it is certain that there is none.
    fn find(
        &self,
        id: ConversationId,
    ) -> BoxFuture<'static, Result<Option<ImportedDocument>, RemoteError>>;

    /// Whether its last answer came within the time that somebody may wait for the next one.
    fn is_prompt(&self, within: Duration) -> bool;
}

/// Why it cannot be told whether there is a document, or what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// Nobody answers, or not in time.
    #[error("{0}")]
    Unavailable(Arc<str>),
    /// There is one, and it cannot be understood.
    #[error("the document cannot be understood: {0}")]
    Unreadable(Arc<str>),
}

/// The owner of conversations, as a mirror sees it: takes over what only a copy holds.
pub trait Adopter: Send + Sync + fmt::Debug {
    /// Offers a copy of a conversation that the log has.
    ///
    /// If ours is a beginning of it, what it has more is appended; if ours began without knowing of
    /// it, it is placed before ours. Answers what was done; the new entries are synced then.
    fn adopt(
        &self,
        id: ConversationId,
        document: ImportedDocument,
    ) -> BoxFuture<'static, Result<Adopted, AdoptError>>;
}

/// What an owner made of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// It holds nothing that the log does not.
    Nothing,
    /// So many of its messages are in the log now that were not.
    Messages(usize),
}

/// Why nothing was taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// What the copy says and what the log says have parted: both must be kept.
    #[error("the copy and the log have parted")]
    Parted,
    /// The log cannot be read or written now.
    #[error("the conversation cannot take it over now: {0}")]
    Unavailable(Arc<str>),
}
