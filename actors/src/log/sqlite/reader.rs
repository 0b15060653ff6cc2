//! Reads: a few connections that cannot write, each on its own thread.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::oneshot;

use super::{
    OpenError,
    encode::{Kind, Row, decode},
    partials,
    schema::{at_position, open_reader, position},
};
use crate::{
    conversation::orphan::Orphan,
    id::{ConversationId, TurnId},
    log::{
        Loaded, LogError, Partial,
        entry::{EntryHead, Owed},
    },
    time::Timestamp,
};

/// Connections. Two: one long history must not make every other wait.
const READERS: usize = 2;

/// Reads that may wait for a connection; beyond it a read is refused at once.
const READS_WAITING_MAX: usize = 1024;

/// A read of any kind: gets a connection, answers by itself.
pub(super) type Read = Box<dyn FnOnce(&Connection) + Send>;

/// Makes a read and the place where its answer will be.
pub(super) fn read<T: Send + 'static>(
    query: impl FnOnce(&Connection) -> Result<T, LogError> + Send + 'static,
) -> (Read, oneshot::Receiver<Result<T, LogError>>) {
    let (reply, answer) = oneshot::channel();
    let read = Box::new(move |connection: &Connection| {
        // Who no longer waits for the answer needs no read.
        if !reply.is_closed() {
            drop(reply.send(query(connection)));
        }
    });
    (read, answer)
}

/// The threads and their common queue.
#[derive(Debug)]
pub(super) struct Readers {
    queue: Option<SyncSender<Read>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub(super) fn start(path: &Path) -> Result<Self, OpenError> {
        let (queue, reads) = sync_channel(READS_WAITING_MAX);
        let reads = Arc::new(Mutex::new(reads));
        let mut threads = Vec::with_capacity(READERS);
        for number in 0..READERS {
            let connection = open_reader(path)?;
            let reads = Arc::clone(&reads);
            let thread = std::thread::Builder::new()
                .name(format!("log-reader-{number}"))
                .spawn(move || serve(&connection, &reads))
                .map_err(OpenError::Thread)?;
            threads.push(thread);
        }
        Ok(Self {
            queue: Some(queue),
            threads,
        })
    }

    /// Queues a read. One that finds no place is dropped, which its caller sees as a refusal.
    pub(super) fn queue(&self, read: Read) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(read) {
            Ok(()) => {}
            Err(TrySendError::Full(read) | TrySendError::Disconnected(read)) => drop(read),
        }
    }

    /// Finishes what is queued and ends the threads.
    pub(super) fn stop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a reader of the log panicked");
            }
        }
    }
}

fn serve(connection: &Connection, reads: &Mutex<Receiver<Read>>) {
    loop {
        // The lock is held while waiting: the reader that has it takes the next read, the others queue for it.
        let next = reads.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(read) => read(connection),
            Err(_) => return,
        }
    }
}

pub(super) fn unavailable(error: &rusqlite::Error) -> LogError {
    LogError::Unavailable(Arc::from(error.to_string()))
}

/// Reads one conversation as of one moment.
pub(super) fn load(
    connection: &Connection,
    id: &ConversationId,
) -> Result<Option<Loaded>, LogError> {
    let failed = |error: rusqlite::Error| unavailable(&error);
    let transaction = connection.unchecked_transaction().map_err(failed)?;
    let catalogued = transaction
        .prepare_cached("SELECT num, seq, deleted_seq FROM conversations WHERE id = ?1")
        .and_then(|mut statement| {
            statement
                .query_row([id.as_str()], |row| {
                    let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
                    Ok((row.get::<_, i64>(0)?, number(1)?, number(2)?))
                })
                .optional()
        })
        .map_err(failed)?;
    let Some((num, count, deleted)) = catalogued else {
        return Ok(None);
    };
    let mut loaded = entries(&transaction, num, deleted.max(1), count)?;
    loaded.partials = texts_under_way(&transaction, num).map_err(failed)?;
    Ok(Some(loaded))
}

/// The text of the replies under way in one conversation.
fn texts_under_way(connection: &Connection, num: i64) -> rusqlite::Result<Vec<Partial>> {
    let mut statement = connection
        .prepare_cached("SELECT turn FROM open_turns WHERE pos BETWEEN ?1 AND ?2 ORDER BY pos")?;
    let turns: Vec<[u8; 16]> = statement
        .query_map([position(num, 0), position(num, u64::MAX)], |row| {
            row.get(0)
        })?
        .collect::<rusqlite::Result<_>>()?;
    turns
        .into_iter()
        .map(|turn| {
            let turn = TurnId(uuid::Uuid::from_bytes(turn));
            let text = partials::text(connection, turn)?;
            Ok(Partial { turn, text })
        })
        .collect()
}

fn entries(connection: &Connection, num: i64, first: u64, count: u64) -> Result<Loaded, LogError> {
    let corrupt = |seq: u64, reason: String| LogError::Corrupt {
        seq,
        reason: Arc::from(reason),
    };
    let failed = |error: rusqlite::Error| unavailable(&error);
    let mut statement = connection
        .prepare_cached(
            "SELECT pos, version, kind, head, lengths, body FROM entries
             WHERE pos BETWEEN ?1 AND ?2 ORDER BY pos",
        )
        .map_err(failed)?;
    let mut rows = statement
        .query(params![position(num, 0), position(num, u64::MAX)])
        .map_err(failed)?;
    let mut loaded = Loaded {
        first_seq: first,
        ..Loaded::default()
    };
    let mut expected = first;
    while let Some(row) = rows.next().map_err(failed)? {
        let (_, seq) = at_position(row.get(0).map_err(failed)?);
        if seq != expected {
            return Err(corrupt(expected, "it is missing".to_owned()));
        }
        // The tables are STRICT, so a column of another type is damage.
        let columns = (|| {
            Ok::<_, rusqlite::Error>(Row {
                version: row.get(1)?,
                kind: row.get(2)?,
                head: row.get_ref(3)?.as_blob()?,
                lengths: row.get_ref(4)?.as_blob_or_null()?,
                body: row.get_ref(5)?.as_blob()?,
            })
        })()
        .map_err(|error| corrupt(seq, error.to_string()))?;
        let entry = decode(columns).map_err(|error| corrupt(seq, error.to_string()))?;
        loaded.entries.push(entry);
        expected += 1;
    }
    if expected != count + 1 {
        return Err(corrupt(expected.min(count + 1), "it is missing".to_owned()));
    }
    Ok(loaded)
}

/// A turn without an end, and where its conversation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTurn {
    /// Whose turn.
    pub id: ConversationId,
    /// Entries of its conversation.
    pub seq: u64,
    /// Time of its conversation's last entry.
    pub updated_at: Timestamp,
    /// What is known of it.
    pub orphan: Orphan,
}

/// Turns without an end, in the order of their acceptance within each conversation.
pub(super) fn open_turns(connection: &Connection, limit: u32) -> Result<Vec<OpenTurn>, LogError> {
    let failed = |error: rusqlite::Error| unavailable(&error);
    let mut statement = connection
        .prepare_cached(
            "SELECT c.id, t.turn, t.attempt, c.seq, c.updated_at, a.head, o.head
             FROM open_turns t JOIN conversations c ON c.num = t.pos >> 28
                JOIN entries o ON o.pos = t.pos
                JOIN entries a ON a.turn = t.turn AND a.kind = ?2 AND a.attempt = 1
             ORDER BY t.pos LIMIT ?1",
        )
        .map_err(failed)?;
    let mut rows = statement
        .query(params![limit, Kind::TurnAccepted.column()])
        .map_err(failed)?;
    let mut open = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        open.push(open_turn(row)?);
    }
    let attempts = open
        .iter()
        .map(|turn| (turn.orphan.turn, turn.orphan.attempt));
    let mut texts = partials::texts(connection, &attempts.collect()).map_err(failed)?;
    for turn in &mut open {
        turn.orphan.text = texts.remove(&turn.orphan.turn).unwrap_or_default();
    }
    Ok(open)
}

fn open_turn(row: &rusqlite::Row<'_>) -> Result<OpenTurn, LogError> {
    let failed = |error: rusqlite::Error| unavailable(&error);
    let number = |column| row.get::<_, i64>(column).map_err(failed);
    let seq = number(3)?.cast_unsigned();
    let corrupt = |reason: String| LogError::Corrupt {
        seq,
        reason: Arc::from(reason),
    };
    let id: String = row.get(0).map_err(failed)?;
    let id = ConversationId::parse(&id).map_err(|error| {
        corrupt(format!(
            "the catalogue names a conversation {id:?}: {error}"
        ))
    })?;
    let turn = TurnId(uuid::Uuid::from_bytes(row.get(1).map_err(failed)?));
    let head = |column| {
        let json: Vec<u8> = row.get(column).map_err(failed)?;
        serde_json::from_slice(&json).map_err(|error| corrupt(error.to_string()))
    };
    let EntryHead::TurnAccepted(accepted) = head(5)? else {
        return Err(corrupt(format!("the acceptance of turn {turn} is none")));
    };
    let (model, owed) = match head(6)? {
        EntryHead::TurnReopened(reopened) => (reopened.model, Owed::Reply),
        _ => (accepted.model, accepted.owed),
    };
    Ok(OpenTurn {
        id,
        seq,
        updated_at: Timestamp::from_micros(number(4)?),
        orphan: Orphan {
            turn,
            attempt: row.get(2).map_err(failed)?,
            reply: accepted.reply,
            model,
            owed,
            text: String::new(),
        },
    })
}
