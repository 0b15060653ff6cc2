//! What comes of the work on a document: shown, removed, to be tried again, or refused for good.

use tokio::time::Instant;

use super::{
    MEMORY_MAX, REFUSED_MAX, Refused, SupabaseMirror,
    door::Concerns,
    standing::Standing,
    work::{Done, Failed, Memory, Outcome, Refusal, look_at},
};
use crate::id::ConversationId;

impl SupabaseMirror {
    pub(super) fn settle(&mut self, done: Done) {
        let now = Instant::now();
        let Done {
            id,
            outcome,
            memory,
            removes,
            conflicts,
            went_through,
            row_kept,
        } = done;
        self.remember(&id, memory);
        if went_through && self.door.is_doubtful() {
            self.door.passed();
            self.troubled(None);
        }
        if let Some(error) = row_kept {
            self.rows.say(&error, Some(id.as_str()));
        }
        let (mut uploads, mut uploaded_bytes) = (0, 0);
        self.standings.clear(&id);
        if removes {
            self.standings.set(id.clone(), Standing::Removing);
        }
        match outcome {
            Outcome::Shown { seq, uploaded } => {
                self.refused.remove(&id);
                self.standings.clear(&id);
                let bytes = uploaded.unwrap_or_default();
                self.schedule.written(now, &id, seq, bytes);
                uploads = u64::from(uploaded.is_some());
                uploaded_bytes = bytes;
            }
            Outcome::Removed { seq, look } => {
                self.refused.remove(&id);
                match look {
                    Some(look) => {
                        self.schedule.hold(&id, look_at(look, &self.tools.waits));
                        self.standings.set(id, Standing::Removed);
                    }
                    None => {
                        self.standings.clear(&id);
                        self.schedule.written(now, &id, seq, 0);
                    }
                }
            }
            Outcome::Gone => {
                self.standings.clear(&id);
                self.schedule.gone(&id);
            }
            Outcome::Unconfirmed { wait } => {
                self.schedule.hold(&id, now + wait);
                self.standings.unconfirmed(id);
            }
            Outcome::Refused { seq, why } => self.refuse(now, id, seq, why),
            Outcome::StillRefused { seq } => {
                if self.is_refused(&id, seq) {
                    self.schedule.gone(&id);
                } else {
                    self.schedule.postponed(now, &id);
                }
            }
            Outcome::Failed(failed) => self.failed(now, id, failed),
        }
        self.report(|state| {
            state.uploads += uploads;
            state.uploaded_bytes += uploaded_bytes;
            state.conflicts += conflicts;
        });
    }

    fn failed(&mut self, now: Instant, id: ConversationId, failed: Failed) {
        let times = match &failed {
            // The wait comes first, then the failures of what follows.
            Failed::Storage(error) if error.outcome_unknown() => 0,
            Failed::Storage(_) | Failed::Row(_) | Failed::Log(_) | Failed::Damaged(_) => {
                self.schedule.failed(now, &id, fastrand::f64())
            }
            Failed::Postponed => 0,
        };
        match failed {
            Failed::Postponed => self
                .schedule
                .hold(&id, now + self.tools.waits.backoff.first),
            // Said once, tried for ever: the next release may be able to read it.
            Failed::Damaged(reason) if times == 1 => {
                tracing::error!(conversation = %id, reason, "a conversation cannot be mirrored");
            }
            Failed::Damaged(_) => {}
            Failed::Log(reason) => {
                tracing::debug!(conversation = %id, %reason, "a document waits for the log");
            }
            Failed::Row(error) => self.rows.say(&error, Some(id.as_str())),
            Failed::Storage(error) => {
                if error.outcome_unknown() {
                    // The log knows when it began, and so how long to wait.
                    self.schedule.postponed(now, &id);
                    self.standings.unconfirmed(id.clone());
                }
                match Concerns::of(&error) {
                    Concerns::All | Concerns::Key => self.service_failed(&error),
                    Concerns::One if times == 1 => {
                        tracing::warn!(conversation = %id, %error, "a document cannot be uploaded");
                    }
                    Concerns::One => {}
                }
            }
        }
    }

    fn refuse(&mut self, now: Instant, id: ConversationId, seq: u64, why: Refusal) {
        tracing::warn!(conversation = %id, ?why, "Supabase does not take a document; it is kept here");
        if self.refused.len() >= REFUSED_MAX {
            self.schedule.failed(now, &id, fastrand::f64());
            return;
        }
        self.standings.clear(&id);
        self.schedule.gone(&id);
        let reread = false;
        self.refused.insert(id, Refused { seq, why, reread });
    }

    fn remember(&mut self, id: &ConversationId, memory: Option<Memory>) {
        match memory {
            Some(memory) => {
                if self.memory.len() >= MEMORY_MAX && !self.memory.contains_key(id) {
                    self.memory.clear();
                }
                self.memory.insert(id.clone(), memory);
            }
            None => {
                self.memory.remove(id);
            }
        }
    }
}
