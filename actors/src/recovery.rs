//! Ends, before the first client is let in, the turns that a crash cut.

use futures::future::join_all;

use crate::{
    conversation::{
        document::{Document, Folded},
        message::StoredMessage,
    },
    id::ConversationId,
    loading::{self, JsonSource},
    log::{
        Append, AppendError, Log as _, LogError,
        entry::{Entry, EntryHead},
        sqlite::{OpenTurn, SqliteLog},
    },
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

/// Why recovery could not end. The server must not start.
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
        for outcome in join_all(ends.into_iter().map(|end| log.append(end))).await {
            outcome?;
            recovery.turns_interrupted += 1;
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
