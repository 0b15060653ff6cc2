//! What is done about one document, from a look at the log to the progress that is recorded.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::Instant};
use uuid::Uuid;

use super::{
    MIRROR, Waits,
    lineage::{Lineage, hex},
};
use crate::{
    id::ConversationId,
    log::{
        Loaded, Log as _, LogError,
        sqlite::{ContentHash, Look, MirrorRow, Progress, SqliteLog, Step},
    },
    mirror::{
        Adopter, MirrorHook, MirrorPoint, Render, Rendered,
        supabase::{Metadata, SupabaseClient, SupabaseError, SupabaseErrorKind as Kind},
    },
    time::Timestamp,
};

/// The log may change under a document so often before it waits for its next turn.
const ROUNDS_MAX: u32 = 8;

/// What the work on every document needs.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) log: Arc<SqliteLog>,
    pub(super) render: Arc<dyn Render>,
    pub(super) client: SupabaseClient,
    pub(super) adopter: Arc<OnceLock<Arc<dyn Adopter>>>,
    pub(super) hook: Option<MirrorHook>,
    pub(super) waits: Arc<Waits>,
}

/// What this process knows of a document's object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// It was looked whose it is; since then only we have written.
    pub(super) checked: bool,
    /// The write that began then has ended, one way or the other.
    pub(super) ended: Option<Timestamp>,
}

/// Why a document is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is larger than the bucket's limit, and was not sent.
    OverLimit {
        /// Its size.
        bytes: u64,
    },
    /// The server found it too large. Its own limit is told nowhere.
    TooLarge,
    /// The server takes no object of its name.
    Name,
}

/// How the work on a document ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The object shows so many entries.
    Shown { seq: u64, uploaded: Option<u64> },
    /// The object of a deleted conversation is gone.
    Removed { seq: u64, look: Option<Look> },
    /// The log has no such conversation.
    Gone,
    /// An earlier write may still land.
    Unconfirmed { wait: Duration },
    /// The server does not take it.
    Refused { seq: u64, why: Refusal },
    /// It was refused, and nothing has changed about that.
    StillRefused { seq: u64 },
    /// It did not come to an end.
    Failed(Failed),
}

/// Why the work did not come to an end.
#[derive(Debug)]
pub(super) enum Failed {
    /// Something else has to come first.
    Postponed,
    /// The document cannot be made from its entries.
    Damaged(String),
    /// The log, or the conversation, cannot be read or written now.
    Log(Arc<str>),
    /// Storage.
    Storage(SupabaseError),
    /// PostgREST.
    Row(SupabaseError),
}

impl From<SupabaseError> for Failed {
    fn from(error: SupabaseError) -> Self {
        Self::Storage(error)
    }
}

impl From<LogError> for Failed {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(reason) => Self::Log(reason),
            LogError::Corrupt { .. } => Self::Damaged(error.to_string()),
        }
    }
}

/// The end of the work on a document.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) id: ConversationId,
    pub(super) outcome: Outcome,
    /// `None`: nothing may be taken for known.
    pub(super) memory: Option<Memory>,
    /// The document is one that is to be removed.
    pub(super) removes: bool,
    /// Copies that were made of others' objects.
    pub(super) conflicts: u64,
    /// Storage answered as it should at least once.
    pub(super) went_through: bool,
    /// Why a row of a deleted conversation stays.
    pub(super) row_kept: Option<SupabaseError>,
}

/// The work on one document.
pub(super) struct Work {
    pub(super) tools: Tools,
    pub(super) id: ConversationId,
    /// Of the object.
    pub(super) key: String,
    pub(super) checked: bool,
    pub(super) conflicts: u64,
    pub(super) row_kept: Option<SupabaseError>,
    ended: Option<Timestamp>,
    bytes_max: Option<u64>,
    refused: Option<Refusal>,
    removes: bool,
    went_through: bool,
    /// A write of this work has an unknown outcome.
    unknown: bool,
}

impl Work {
    pub(super) fn new(
        tools: Tools,
        id: ConversationId,
        memory: Memory,
        bytes_max: Option<u64>,
        refused: Option<Refusal>,
    ) -> Self {
        Self {
            key: format!("{id}.json"),
            tools,
            id,
            checked: memory.checked,
            ended: memory.ended,
            conflicts: 0,
            row_kept: None,
            bytes_max,
            refused,
            removes: false,
            went_through: false,
            unknown: false,
        }
    }

    pub(super) fn log_id(&self) -> Uuid {
        self.tools.log.log_id()
    }

    pub(super) async fn run(mut self) -> Done {
        let outcome = match self.settle().await {
            Ok(outcome) => outcome,
            Err(failed) => Outcome::Failed(failed),
        };
        let memory = Memory {
            checked: self.checked,
            ended: self.ended,
        };
        Done {
            id: self.id,
            outcome,
            memory: (!self.unknown).then_some(memory),
            removes: self.removes,
            conflicts: self.conflicts,
            went_through: self.went_through,
            row_kept: self.row_kept,
        }
    }

    async fn settle(&mut self) -> Result<Outcome, Failed> {
        for _ in 0..ROUNDS_MAX {
            let log = &self.tools.log;
            let Some(row) = log.mirror_row(MIRROR, self.id.clone()).await? else {
                return Ok(Outcome::Gone);
            };
            self.removes = row.is_deleted();
            if let Some(begun) = row.uploading
                && self.ended != Some(begun)
            {
                // The server may still carry it out. What we sent after it could be overwritten.
                let wait = left_of(begun, self.tools.waits.unconfirmed);
                if !wait.is_zero() {
                    return Ok(Outcome::Unconfirmed { wait });
                }
                self.checked = false;
            }
            if row.is_deleted() {
                return self.removal(&row).await;
            }
            if row.owes_removal() {
                self.remove_earlier(&row).await?;
                continue;
            }
            if row.mirrored_seq >= row.seq {
                return Ok(Outcome::Shown {
                    seq: row.seq,
                    uploaded: None,
                });
            }
            if self.refused.is_some() {
                return Ok(Outcome::StillRefused { seq: row.seq });
            }
            if let Some(outcome) = self.show(&row).await? {
                return Ok(outcome);
            }
        }
        Err(Failed::Postponed)
    }

    /// Makes the object show what the log has; `None`: the log has changed meanwhile.
    async fn show(&mut self, row: &MirrorRow) -> Result<Option<Outcome>, Failed> {
        let Some(loaded) = self.tools.log.load(self.id.clone()).await? else {
            return Ok(None);
        };
        // To look whose an object is, the entries may be needed once more.
        let again = (!self.checked).then(|| loaded.clone());
        let (rendered, hash) = match self.render(loaded).await {
            Ok(rendered) => rendered,
            Err(failed) => {
                // Perhaps it was deleted since the row was read.
                let now = self.tools.log.mirror_row(MIRROR, self.id.clone()).await?;
                return match now {
                    Some(now) if now.incarnation == row.incarnation => Err(failed),
                    _ => Ok(None),
                };
            }
        };
        if rendered.incarnation != row.incarnation {
            return Ok(None);
        }
        let seq = rendered.seq;
        let bytes = rendered.bytes() as u64;
        if self.bytes_max.is_some_and(|most| bytes > most) {
            let why = Refusal::OverLimit { bytes };
            return Ok(Some(Outcome::Refused { seq, why }));
        }
        if let Some(again) = again {
            match self.lineage(row, again, &rendered, &hash).await? {
                Lineage::Within => self.checked = true,
                Lineage::Same => {
                    self.checked = true;
                    self.went_through = true;
                    self.record(row, Step::Uploaded { seq, hash }).await?;
                    return Ok(Some(Outcome::Shown {
                        seq,
                        uploaded: None,
                    }));
                }
                Lineage::LookAgain => return Ok(None),
            }
        }
        self.upload(row, rendered, hash).await.map(Some)
    }

    async fn render(&self, loaded: Loaded) -> Result<(Rendered, ContentHash), Failed> {
        let (render, id) = (self.tools.render.clone(), self.id.clone());
        let rendered = spawn_blocking(move || {
            let rendered = render.render(&id, loaded)?;
            let hash = rendered.hash();
            Ok((rendered, hash))
        });
        let rendered: Result<_, crate::mirror::RenderError> = rendered
            .await
            .map_err(|panic| Failed::Damaged(panic.to_string()))?;
        rendered.map_err(|error| Failed::Damaged(error.to_string()))
    }

    async fn upload(
        &mut self,
        row: &MirrorRow,
        rendered: Rendered,
        hash: ContentHash,
    ) -> Result<Outcome, Failed> {
        let (seq, bytes) = (rendered.seq, rendered.bytes() as u64);
        let metadata = Metadata {
            log: self.log_id(),
            incarnation: rendered.incarnation,
            seq,
            hash: hex(&hash),
        };
        self.reached(MirrorPoint::BeforeUpload);
        let begun = self.begin(row).await?;
        self.reached(MirrorPoint::UploadBegun);
        let sent = self
            .tools
            .client
            .upload(&self.key, rendered.json, &metadata)
            .await;
        match self.confirmed(begun, sent) {
            Ok(()) => {}
            Err(error) => {
                let why = match error.kind {
                    Kind::TooLarge => Refusal::TooLarge,
                    Kind::RejectedName => Refusal::Name,
                    _ => return Err(error.into()),
                };
                self.went_through = true;
                return Ok(Outcome::Refused { seq, why });
            }
        }
        self.reached(MirrorPoint::Uploaded);
        self.record(row, Step::Uploaded { seq, hash }).await?;
        Ok(Outcome::Shown {
            seq,
            uploaded: Some(bytes),
        })
    }

    /// Records that a write is about to be sent, so that a crash does not make it unknown to us.
    pub(super) async fn begin(&mut self, row: &MirrorRow) -> Result<Timestamp, Failed> {
        let at = Timestamp::now();
        self.record(row, Step::UploadBegun { at }).await?;
        // The id may live anew since the row was read. Then the step was passed over, and nothing
        // would wait for the end of what is sent now.
        let now = self.tools.log.mirror_row(MIRROR, self.id.clone()).await?;
        match now {
            Some(now) if now.uploading == Some(at) => {
                if now.incarnation == row.incarnation {
                    return Ok(at);
                }
                // It was recorded just before that. Nothing is sent: nothing is to be waited for.
                self.ended = Some(at);
                Err(Failed::Postponed)
            }
            _ => Err(Failed::Postponed),
        }
    }

    /// Notes whether the outcome of the write that began then is known.
    pub(super) fn confirmed<T>(
        &mut self,
        begun: Timestamp,
        outcome: Result<T, SupabaseError>,
    ) -> Result<T, SupabaseError> {
        match &outcome {
            Ok(_) => {
                self.went_through = true;
                self.ended = Some(begun);
            }
            Err(error) if error.outcome_unknown() => self.unknown = true,
            Err(_) => self.ended = Some(begun),
        }
        outcome
    }

    pub(super) async fn record(&self, row: &MirrorRow, step: Step) -> Result<(), Failed> {
        let progress = Progress {
            id: self.id.clone(),
            incarnation: row.incarnation,
            step,
        };
        // Whatever else waits for the log's writer shares its transaction.
        Ok(self
            .tools
            .log
            .record_progress(MIRROR, vec![progress])
            .await?)
    }

    pub(super) fn reached(&self, point: MirrorPoint) {
        if let Some(hook) = &self.tools.hook {
            hook.reached(point, &self.id);
        }
    }
}

/// What is left of a wait that began then; never more than all of it, whatever the clock says.
pub(super) fn left_of(begun: Timestamp, wait: Duration) -> Duration {
    let passed = Timestamp::now().micros().saturating_sub(begun.micros());
    wait.saturating_sub(Duration::from_micros(u64::try_from(passed).unwrap_or(0)))
}

/// When a look is due; never later than after the longest of all waits.
pub(super) fn look_at(look: Look, waits: &Waits) -> Instant {
    let longest = waits.looks.iter().max().copied().unwrap_or_default();
    let left = look.at.micros().saturating_sub(Timestamp::now().micros());
    let left = Duration::from_micros(u64::try_from(left).unwrap_or(0));
    Instant::now() + left.min(longest)
}
