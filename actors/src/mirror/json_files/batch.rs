//! One round of writing: a few documents, three syncs' worth of directory work in common.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use tokio::task::spawn_blocking;

use super::{
    MIRROR,
    files::{self, Document, Published, Staged},
    read::read_strange,
};
use crate::{
    id::ConversationId,
    log::{
        Log as _, LogError,
        sqlite::{MirrorRow, Progress, SqliteLog, Step},
    },
    mirror::{
        AdoptError, Adopted, Adopter, MirrorHook, MirrorPoint, Render, RenderError, lives::Life,
    },
};

/// Text of one round: bounds what is held between render and sync. A larger document goes alone.
const BATCH_BYTES: usize = 64 << 20;

/// What a round needs.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) log: Arc<SqliteLog>,
    pub(super) render: Arc<dyn Render>,
    pub(super) dir: PathBuf,
    /// The conversations' owner, once there is one.
    pub(super) adopter: Arc<OnceLock<Arc<dyn Adopter>>>,
    pub(super) hook: Option<MirrorHook>,
}

/// How a document of a round fared.
#[derive(Debug)]
pub(super) enum Outcome {
    /// In its place, durable, recorded.
    Written {
        seq: u64,
        size: u64,
        set_aside: Option<PathBuf>,
    },
    /// The conversation was deleted, and so are its files.
    Removed { seq: u64 },
    /// The log has no such conversation.
    Gone,
    /// The round was full.
    Postponed,
    /// The document cannot be made from its entries. The others can.
    Damaged(String),
    /// The disk or the log is in trouble.
    Failed(Arc<str>),
}

/// Whether the owner of conversations was asked to take over what a file has more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TakenOver {
    No,
    Yes,
}

/// Why a document is not ready to be written.
enum NotReady {
    Gone,
    Deleted { incarnation: u64, seq: u64 },
    Damaged(String),
    Failed(Arc<str>),
}

impl From<LogError> for NotReady {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(reason) => Self::Failed(reason),
            LogError::Corrupt { .. } => Self::Damaged(error.to_string()),
        }
    }
}

impl From<RenderError> for NotReady {
    fn from(error: RenderError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl Tools {
    /// Writes the documents, in the order that survives a crash at any point: temporaries synced,
    /// the intent recorded, all renamed, the directory synced, the progress recorded.
    pub(super) async fn write(self, ids: Vec<ConversationId>) -> Vec<(ConversationId, Outcome)> {
        let mut outcomes = Vec::with_capacity(ids.len());
        let mut staged = Vec::with_capacity(ids.len());
        let mut removed = Vec::new();
        let mut bytes = 0;
        for id in ids {
            if bytes >= BATCH_BYTES {
                outcomes.push((id, Outcome::Postponed));
                continue;
            }
            match self.document(&id).await {
                Ok(document) => {
                    bytes += document.json.iter().map(|piece| piece.len()).sum::<usize>();
                    match self.stage(document).await {
                        Ok(document) => staged.push(document),
                        Err(reason) => outcomes.push((id, Outcome::Failed(reason))),
                    }
                }
                Err(NotReady::Deleted { incarnation, seq }) => {
                    removed.push(progress(
                        &id,
                        incarnation,
                        Step::Removed { seq, look: None },
                    ));
                }
                Err(NotReady::Gone) => outcomes.push((id, Outcome::Gone)),
                Err(NotReady::Damaged(reason)) => outcomes.push((id, Outcome::Damaged(reason))),
                Err(NotReady::Failed(reason)) => outcomes.push((id, Outcome::Failed(reason))),
            }
        }
        self.put_in_place(staged, &mut outcomes).await;
        self.note_removed(removed, &mut outcomes).await;
        outcomes
    }

    /// Records that the files of deleted conversations are gone, once that is durable.
    async fn note_removed(
        &self,
        removed: Vec<Progress>,
        outcomes: &mut Vec<(ConversationId, Outcome)>,
    ) {
        if removed.is_empty() {
            return;
        }
        let dir = self.dir.clone();
        let synced = spawn_blocking(move || files::sync_directory(&dir)).await;
        self.reached(MirrorPoint::FilesRemoved, removed.iter().map(|it| &it.id));
        let noted = match synced {
            Ok(Ok(())) => {
                let noted = self.log.record_progress(MIRROR, removed.clone()).await;
                noted.map_err(|error| Arc::from(error.to_string()))
            }
            Ok(Err(error)) => Err(Arc::from(error.to_string())),
            Err(panic) => Err(Arc::from(panic.to_string())),
        };
        outcomes.extend(removed.into_iter().map(|Progress { id, step, .. }| {
            let outcome = match (&noted, step) {
                (Ok(()), Step::Removed { seq, .. }) => Outcome::Removed { seq },
                (Ok(()), _) => Outcome::Gone,
                (Err(reason), _) => Outcome::Failed(Arc::clone(reason)),
            };
            (id, outcome)
        }));
    }

    async fn document(&self, id: &ConversationId) -> Result<Document, NotReady> {
        let row = self.log.mirror_row(MIRROR, id.clone()).await?;
        if let Some(row) = row.as_ref().filter(|row| row.owes_removal()) {
            self.remove(row).await?;
            if row.is_deleted() {
                let (incarnation, seq) = (row.incarnation, row.seq);
                return Err(NotReady::Deleted { incarnation, seq });
            }
            self.reached(MirrorPoint::FilesRemoved, [id]);
        }
        let mut row = row.ok_or(NotReady::Gone)?;
        if self.take_over(&row).await? == TakenOver::Yes {
            let newer = self.log.mirror_row(MIRROR, id.clone()).await?;
            row = newer.ok_or(NotReady::Gone)?;
        }
        let loaded = self.log.load(id.clone()).await?.ok_or(NotReady::Gone)?;
        let render = Arc::clone(&self.render);
        let rendering = id.clone();
        let rendered = spawn_blocking(move || render.render(&rendering, loaded))
            .await
            .map_err(|panic| NotReady::Damaged(panic.to_string()))??;
        Ok(Document {
            id: id.clone(),
            incarnation: rendered.incarnation,
            seq: rendered.seq,
            json: rendered.json,
            ours: [row.written, row.intended],
            log: self.log.log_id(),
        })
    }

    /// Removes what a deleted conversation left; where the id lives anew, nothing else.
    async fn remove(&self, row: &MirrorRow) -> Result<(), NotReady> {
        let (dir, id) = (self.dir.clone(), row.id.clone());
        let removing = if row.is_deleted() {
            spawn_blocking(move || files::remove_all(&dir, &id))
        } else {
            let life = Life::of(row, self.log.log_id());
            let loaded = self.log.load(id.clone()).await?.ok_or(NotReady::Gone)?;
            // It may have been deleted again, which is told.
            let began = life.began(&loaded);
            let began = began.ok_or_else(|| NotReady::Failed("the id was deleted again".into()))?;
            spawn_blocking(move || files::remove_earlier(&dir, &id, life, began))
        };
        removing
            .await
            .map_err(|panic| NotReady::Failed(Arc::from(panic.to_string())))?
            .map_err(|error| NotReady::Failed(Arc::from(error.to_string())))
    }

    /// Where the file that is there shows more of the conversation than the log has, its owner takes
    /// that over, and notes the file as one of ours.
    async fn take_over(&self, row: &MirrorRow) -> Result<TakenOver, NotReady> {
        let (dir, id) = (self.dir.clone(), row.id.clone());
        let known = [row.written, row.intended];
        let copy = spawn_blocking(move || read_strange(&dir, &id, known)).await;
        let Ok(Some(copy)) = copy else {
            return Ok(TakenOver::No);
        };
        let log = self.log.log_id();
        let ahead = copy.revision.as_ref().is_some_and(|it| {
            it.log == log && it.incarnation == row.incarnation && it.seq > row.seq
        });
        if !ahead {
            return Ok(TakenOver::No);
        }
        let Some(adopter) = self.adopter.get() else {
            return Err(NotReady::Failed("a file is ahead of the log".into()));
        };
        match adopter.adopt(row.id.clone(), copy).await {
            // One that has parted is set aside when its place is needed.
            Ok(Adopted::Messages(_) | Adopted::Nothing) | Err(AdoptError::Parted) => {
                Ok(TakenOver::Yes)
            }
            Err(AdoptError::Unavailable(reason)) => Err(NotReady::Failed(reason)),
        }
    }

    async fn stage(&self, document: Document) -> Result<Staged, Arc<str>> {
        let dir = self.dir.clone();
        let staged = spawn_blocking(move || files::stage(&dir, document)).await;
        staged
            .map_err(|panic| Arc::from(panic.to_string()))?
            .map_err(|(_, error)| Arc::from(error.to_string()))
    }

    async fn put_in_place(
        &self,
        staged: Vec<Staged>,
        outcomes: &mut Vec<(ConversationId, Outcome)>,
    ) {
        if staged.is_empty() {
            return;
        }
        let ids: Vec<_> = staged
            .iter()
            .map(|staged| staged.document.id.clone())
            .collect();
        self.reached(MirrorPoint::Staged, &ids);
        let fail_all = |reason: Arc<str>, outcomes: &mut Vec<_>| {
            outcomes.extend(
                ids.iter()
                    .map(|id| (id.clone(), Outcome::Failed(Arc::clone(&reason)))),
            );
        };
        let intents = staged.iter().map(|staged| {
            let Staged { document, stamp } = staged;
            progress(
                &document.id,
                document.incarnation,
                Step::FileIntended(*stamp),
            )
        });
        if let Err(error) = self.log.record_progress(MIRROR, intents.collect()).await {
            let (dir, staged) = (self.dir.clone(), ids.clone());
            let discarded =
                spawn_blocking(move || staged.iter().for_each(|id| files::discard(&dir, id)));
            // Should it panic, the temporaries stay until the next try.
            drop(discarded.await);
            return fail_all(Arc::from(error.to_string()), outcomes);
        }
        self.reached(MirrorPoint::Intended, &ids);
        let (tools, renamed) = (self.clone(), ids.clone());
        let published = spawn_blocking(move || {
            let published: Vec<_> = staged
                .into_iter()
                .map(|staged| {
                    let id = staged.document.id.clone();
                    files::publish(&tools.dir, staged, || {
                        tools.reached(MirrorPoint::SetAside, [&id]);
                    })
                })
                .collect();
            tools.reached(MirrorPoint::Renamed, &renamed);
            files::sync_directory(&tools.dir)?;
            Ok::<_, io::Error>(published)
        })
        .await
        .map_err(|panic| Arc::from(panic.to_string()))
        .and_then(|published| published.map_err(|error| Arc::from(error.to_string())));
        let published = match published {
            Ok(published) => published,
            Err(reason) => return fail_all(reason, outcomes),
        };
        let mut in_place: Vec<Published> = Vec::with_capacity(published.len());
        for one in published {
            match one {
                Ok(one) => in_place.push(one),
                Err((id, error)) => {
                    outcomes.push((id, Outcome::Failed(Arc::from(error.to_string()))));
                }
            }
        }
        self.reached(MirrorPoint::InPlace, in_place.iter().map(|one| &one.id));
        let reached = in_place.iter().map(|one| {
            let (seq, stamp) = (one.seq, one.stamp);
            progress(&one.id, one.incarnation, Step::FileWritten { seq, stamp })
        });
        let recorded = self.log.record_progress(MIRROR, reached.collect()).await;
        outcomes.extend(in_place.into_iter().map(|one| {
            let outcome = match &recorded {
                Ok(()) => Outcome::Written {
                    seq: one.seq,
                    size: one.stamp.size,
                    set_aside: one.set_aside,
                },
                Err(error) => Outcome::Failed(Arc::from(error.to_string())),
            };
            (one.id, outcome)
        }));
    }

    fn reached<'a>(&self, point: MirrorPoint, ids: impl IntoIterator<Item = &'a ConversationId>) {
        if let Some(hook) = &self.hook {
            for id in ids {
                hook.reached(point, id);
            }
        }
    }
}

fn progress(id: &ConversationId, incarnation: u64, step: Step) -> Progress {
    Progress {
        id: id.clone(),
        incarnation,
        step,
    }
}
