//! What the design assumes, with reasons. What an operator chooses is in the configuration.

use std::time::Duration;

/// Events a session may have that it has not yet given credit back for.
///
/// Enough to cover the way of a credit back at full speed; small, since it bounds what a frozen
/// client holds: at most this many events of [`EVENT_TEXT_BYTES_MAX`].
pub const CREDIT_WINDOW: u32 = 8;

/// A session gives credit back in batches of this many events, to halve the messages.
pub const CREDIT_BATCH: u32 = 4;

/// Most text in one event, in escaped bytes: what a slow client gets at once.
pub const EVENT_TEXT_BYTES_MAX: usize = 16 * 1024;

/// Turns that may wait in one conversation behind the one that runs.
pub const TURN_QUEUE_MAX: usize = 8;

/// Models that one reply is asked of: more than are ever asked, see `OPENROUTER_ATTEMPTS`.
pub const MODELS_MAX: usize = 16;

/// Mailbox of a conversation: commands of many sessions, one progress message per read, credits.
pub const CONVERSATION_MAILBOX: usize = 256;

/// Mailbox of a session; more than the windows of all its attachments, so that an event always finds
/// room.
pub const SESSION_MAILBOX: usize = 512;

/// Conversations that one socket watches at once.
pub const WATCHED_MAX: usize = 32;

/// Turns that one socket has begun and not seen the end of; it is not listened to before one ends.
pub const OWN_TURNS_MAX: usize = 32;

/// Mailbox of the supervisor.
pub const SUPERVISOR_MAILBOX: usize = 4_096;

/// Sessions that one conversation serves at once.
pub const SUBSCRIBERS_MAX: usize = 10_000;

/// Voices of one conversation that are known, for who cancels to silence them; those before are not.
pub const VOICES_MAX: usize = 64;

/// How long the next prompt waits for a voice that was silenced to say what was heard.
pub const HUSH_DEADLINE: Duration = Duration::from_secs(2);

/// Deadline for what needs a synced append: a disk that takes longer is an outage.
pub const APPEND_DEADLINE: Duration = Duration::from_secs(20);

/// Deadline for loading a conversation.
pub const LOAD_DEADLINE: Duration = Duration::from_secs(20);

/// Deadline of a command: an append, or a load and an append.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(30);

/// Panics and failures of one conversation within [`RESTART_WINDOW`], after which it stays down.
pub const RESTARTS_MAX: usize = 5;

/// See [`RESTARTS_MAX`]. Also how long clients of such a conversation are told to wait.
pub const RESTART_WINDOW: Duration = Duration::from_secs(30);

/// How often the end of a turn is offered to a log that refuses it: first and longest wait.
pub const END_RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// For how long.
pub const END_RETRY_TOTAL: Duration = Duration::from_secs(600);

/// How often the text of replies under way is handed to the log.
pub const KEEP_EVERY: Duration = Duration::from_millis(200);

/// Age of text that was shown and is not in the log, beyond which no more is shown.
///
/// With [`KEEP_EVERY`] and a sync this keeps the promise that text seen for half a second survives.
pub const UNKEPT_SHOWN_MAX: Duration = Duration::from_millis(400);

/// Age of text that cannot be kept, beyond which its turn ends.
pub const UNKEPT_MAX: Duration = Duration::from_secs(30);

/// Longest that what begins a conversation waits for the answer whether there is a stored document;
/// an answer that takes longer is late.
///
/// A store that is well answers within it, also from afar: two calls behind each other tell. One that
/// is not must not hold up a turn.
pub const REMOTE_GRACE: Duration = Duration::from_millis(300);

/// Least wait for a store whose last answer was in time: answers of one store differ that much.
pub const REMOTE_GRACE_MIN: Duration = Duration::from_millis(100);

/// Deadline for that answer; what only reads waits so long.
pub const REMOTE_DEADLINE: Duration = Duration::from_secs(12);

/// How long an idempotency key is remembered, both by the clock and by the process's own time: a
/// clock that was set must not forget a key under a client that still repeats it.
pub const KEY_KEPT: Duration = Duration::from_secs(24 * 3_600);

/// How long a conversation that holds nothing is kept.
pub const EMPTY_IDLE: Duration = Duration::from_secs(2);

/// Messages that somebody who comes back is told at once; who missed more starts over.
pub const RESUME_MESSAGES_MAX: usize = 1_000;

/// Bytes of those messages. The frame is made whole, so it is bounded well below a reply's bound.
pub const RESUME_BYTES_MAX: usize = 4 << 20;

/// Messages that somebody is told who says nothing of what is known.
pub const RESUME_NEWEST: usize = 100;

/// Turns that are told again as events to somebody who comes back.
pub const RESUME_TURNS_MAX: usize = 100;

/// Escaped bytes of the running reply in what somebody is told who comes back; the rest follows as
/// events, against credit.
pub const RESUME_TEXT_BYTES_MAX: usize = 256 << 10;

const _: () = assert!(CREDIT_BATCH * 2 <= CREDIT_WINDOW);
const _: () = assert!((WATCHED_MAX + OWN_TURNS_MAX) * (CREDIT_WINDOW as usize) <= SESSION_MAILBOX);
const _: () = assert!(LOAD_DEADLINE.as_secs() < COMMAND_DEADLINE.as_secs());
const _: () = assert!(APPEND_DEADLINE.as_secs() < COMMAND_DEADLINE.as_secs());

/// How long a start waits for the lock of its data directory, which the process before it may hold
/// for a moment after its end.
pub const LOCK_PATIENCE: Duration = Duration::from_millis(500);
