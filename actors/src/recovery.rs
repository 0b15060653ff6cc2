//! Ends, before the first client is let in, the turns that a crash cut.

use std::sync::Arc;

use futures::future::join_all;

use crate::{
    caller::Caller,
    conversation::{
        document::{Document, Folded},
        message::StoredMessage,
    },
    engine::Engine,
    error::EngineError,
    id::ConversationId,
    limits,
    loading::{self, JsonSource},
    log::{
        Append, AppendError, Log as _, LogError,
        entry::{Entry, EntryHead},
        space::DiskSpace,
        sqlite::{OpenTurn, SqliteLog},
    },
    shared::Home,
    time::Timestamp,
};

#[cfg(test)]
mod tests;

/// Turns ended in one transaction: enough to make few syncs of many turns, few enough to bound memory.
const TURNS_PER_ROUND: u32 = 512;

/// What recovery did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Turns that had no end and got one.
    pub turns_interrupted: u64,
    /// Turns whose end the log had lost and a JSON file had.
    pub turns_found: u64,
    /// Those interrupted whose reply had text that is kept.
    pub replies_kept: u64,
}

/// Why recovery could not end. Unless it is for want of room, the server must not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// The turns cannot be found.
    #[error(transparent)]
    Read(#[from] LogError),
    /// Their ends cannot be written.
    #[error(transparent)]
    Write(#[from] AppendError),
}

/// Ends every turn that was accepted and has no end, as interrupted, with the text of its reply as
/// far as it was checkpointed. Costs the open turns, not the histories.
///
/// To be awaited before anything else appends. What was ended stays ended if this fails.
///
/// Where a JSON file of ours is ahead of the log, the log has lost its end: it is appended first,
/// and the turns that it ends need no other end.
pub async fn recover(
    log: &SqliteLog,
    files: Option<&JsonSource>,
) -> Result<Recovery, RecoveryError> {
    let mut recovery = Recovery::default();
    loop {
        let open = log.open_turns(TURNS_PER_ROUND).await?;
        if open.is_empty() {
            return Ok(recovery);
        }
        if let Some(files) = files {
            let mut taken_over = false;
            let mut ids: Vec<_> = open.iter().map(|turn| turn.id.clone()).collect();
            ids.dedup();
            for id in ids {
                let entries = catch_up(log, id, files).await?;
                let ends = |entry: &&Entry| matches!(entry.head, EntryHead::TurnEnded(_));
                recovery.turns_found += entries.iter().filter(ends).count() as u64;
                taken_over |= !entries.is_empty();
            }
            if taken_over {
                // What is open now is another list; a file that was taken over is so once.
                continue;
            }
        }
        let ends = interruptions(open);
        let kept = ends.iter().flat_map(|end| &end.entries);
        recovery.replies_kept += kept.filter(|entry| !entry.messages.is_empty()).count() as u64;
        let mut refused = None;
        for outcome in join_all(ends.into_iter().map(|end| log.append(end))).await {
            match outcome {
                Ok(_seq) => recovery.turns_interrupted += 1,
                Err(error @ AppendError::Unavailable(_)) => refused = Some(error),
                // It stands behind one for which there was no room.
                Err(AppendError::Refused { .. }) if refused.is_some() => {}
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(error) = refused {
            return Err(error.into());
        }
    }
}

impl RecoveryError {
    /// Whether the log refused to write: it can be read, and may write later.
    #[must_use]
    pub fn is_for_want_of_room(&self) -> bool {
        matches!(self, Self::Write(AppendError::Unavailable(_)))
    }
}

/// Conversations that end their open turns at once: bounds the memory of their histories.
const SETTLING_MAX: u32 = 64;

/// Ends, once there is room, the turns that [`recover`] could not end, and lets turns begin again.
///
/// Each conversation does so itself: whoever reads one starts its actor, which offers the ends to
/// the log until it takes them. Nothing else is appended to it before.
pub async fn settle(
    log: Arc<SqliteLog>,
    space: Arc<DiskSpace>,
    engine: Engine,
    home: Option<Arc<Home>>,
) {
    let (first, longest) = limits::END_RETRY;
    let mut wait = first;
    let mut seen = Vec::new();
    loop {
        // Jitter: the conversations offer their ends at the same pace.
        tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64())).await;
        wait = (wait * 2).min(longest);
        let open = match log.open_turns(SETTLING_MAX).await {
            Ok(open) => open,
            Err(error) => {
                tracing::warn!(%error, "the open turns of the last run cannot be read");
                continue;
            }
        };
        if open.is_empty() {
            space.settle();
            tracing::info!("ended the turns that the last run left open; turns begin again");
            return;
        }
        let turns: Vec<_> = open.iter().map(|turn| turn.orphan.turn).collect();
        if turns != seen {
            wait = first;
            seen = turns;
        }
        let mut ids: Vec<_> = open.iter().map(|turn| turn.id.clone()).collect();
        ids.dedup();
        let reads = ids.into_iter().map(|id| {
            let conversation = engine.conversation(id, home.clone());
            async move {
                let read = conversation.snapshot(Caller::Anonymous).await;
                matches!(read, Err(EngineError::Unreadable { .. }))
                    .then(|| conversation.id().clone())
            }
        });
        let reads = join_all(reads).await;
        // An owner that cannot read its history appends nothing to it.
        let unreadable: Vec<_> = reads.into_iter().flatten().collect();
        let left = open.into_iter().filter(|it| unreadable.contains(&it.id));
        let ends = interruptions(left.collect()).into_iter();
        for ended in join_all(ends.map(|end| log.append(end))).await {
            if let Err(error) = ended {
                tracing::debug!(%error, "an open turn is still without its end");
            }
        }
    }
}

/// Appends what a conversation's JSON file has more; tells what that was.
async fn catch_up(
    log: &SqliteLog,
    id: ConversationId,
    files: &JsonSource,
) -> Result<Vec<Entry>, RecoveryError> {
    let Some(loaded) = log.load(id.clone()).await? else {
        return Ok(Vec::new());
    };
    // A history that cannot be put together is told to whoever asks for it.
    let Ok(Folded::Here(document)) = Document::fold(loaded.first_seq, &loaded.entries) else {
        return Ok(Vec::new());
    };
    Ok(loading::catch_up(&id, &document, files).await?)
}

/// One append for each turn, in order, each expecting the one before it.
fn interruptions(open: Vec<OpenTurn>) -> Vec<Append> {
    let now = Timestamp::now();
    let mut ends: Vec<Append> = Vec::with_capacity(open.len());
    let mut at = now;
    for OpenTurn {
        id,
        seq,
        updated_at,
        orphan,
    } in open
    {
        // The turns of one conversation stand side by side.
        let expected_seq = match ends.last() {
            Some(previous) if previous.id == id => {
                at = at.next();
                previous.expected_seq + 1
            }
            _ => {
                at = now.max(updated_at.next());
                seq
            }
        };
        let (head, reply) = orphan.end(at);
        ends.push(Append {
            id,
            expected_seq,
            entries: vec![Entry {
                head,
                messages: reply.iter().map(StoredMessage::fragment).cloned().collect(),
            }],
        });
    }
    ends
}
