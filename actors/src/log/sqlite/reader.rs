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
    encode::{Row, decode},
    schema::{at_position, open_reader, position},
};
use crate::{
    id::{ConversationId, TurnId},
    log::{Loaded, LogError},
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
    let transaction = connection
        .unchecked_transaction()
        .map_err(|error| unavailable(&error))?;
    let catalogued = transaction
        .prepare_cached("SELECT num, seq FROM conversations WHERE id = ?1")
        .and_then(|mut statement| {
            statement
                .query_row([id.as_str()], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
                })
                .optional()
        })
        .map_err(|error| unavailable(&error))?;
    let Some((num, count)) = catalogued else {
        return Ok(None);
    };
    entries(&transaction, num, count).map(Some)
}

fn entries(connection: &Connection, num: i64, count: u64) -> Result<Loaded, LogError> {
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
    let mut loaded = Loaded::default();
    let mut expected = 1;
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

/// A turn that was accepted and has no end.
#[derive(Debug)]
pub(super) struct OpenTurn {
    pub(super) id: ConversationId,
    pub(super) turn: TurnId,
    /// Entries of its conversation.
    pub(super) seq: u64,
    /// Time of its conversation's last entry.
    pub(super) updated_at: Timestamp,
}

/// Turns without an end, in the order of their acceptance within each conversation.
pub(super) fn open_turns(connection: &Connection, limit: u32) -> Result<Vec<OpenTurn>, LogError> {
    let query = || {
        let mut statement = connection.prepare_cached(
            "SELECT c.id, t.turn, c.seq, c.updated_at
             FROM open_turns t JOIN conversations c ON c.num = t.pos >> 28
             ORDER BY t.pos LIMIT ?1",
        )?;
        let rows = statement.query_map([limit], |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, [u8; 16]>(1)?,
                row.get::<_, i64>(2)?,
                row.get::<_, i64>(3)?,
            ))
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    query()
        .map_err(|error| unavailable(&error))?
        .into_iter()
        .map(|(id, turn, seq, updated_at)| {
            Ok(OpenTurn {
                id: ConversationId::parse(&id).map_err(|error| LogError::Corrupt {
                    seq: 1,
                    reason: Arc::from(format!(
                        "the catalogue names a conversation {id:?}: {error}"
                    )),
                })?,
                turn: TurnId(uuid::Uuid::from_bytes(turn)),
                seq: seq.cast_unsigned(),
                updated_at: Timestamp::from_micros(updated_at),
            })
        })
        .collect()
}
