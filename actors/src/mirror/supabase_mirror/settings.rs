//! How the mirror runs, and what it tells of itself.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::door::Backoff;
use crate::mirror::{MirrorHook, supabase::SupabaseClient};

/// How the mirror runs.
#[derive(Debug, Clone)]
pub struct SupabaseOptions {
    /// Asks the project.
    pub client: SupabaseClient,
    /// Quiet after which a conversation that changed is uploaded (`MIRROR_IDLE_SECS`).
    pub idle: Duration,
    /// How long to wait for what.
    pub waits: Waits,
    /// For fault injection.
    pub hook: Option<MirrorHook>,
}

/// How long the mirror waits for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// From the beginning of a write without an answer to the moment at which it will not land any
    /// more. Longer than our deadline for a call and the server's for a request.
    pub unconfirmed: Duration,
    /// From a removal to the first look whether it lasted, from that to the next, and so on.
    pub looks: Vec<Duration>,
    /// After failures of the service.
    pub backoff: Backoff,
    /// Between two sweeps over the log for what no notice told.
    pub sweep: Duration,
    /// Between two looks at the bucket's limit, while a document exceeds it.
    pub limit: Duration,
    /// Between two rounds of rows.
    pub rows: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            unconfirmed: Duration::from_secs(60),
            looks: [60, 540, 3000].map(Duration::from_secs).to_vec(),
            backoff: Backoff::default(),
            sweep: Duration::from_secs(60),
            limit: Duration::from_secs(600),
            rows: Duration::from_secs(1),
        }
    }
}

/// What the mirror is at.
#[derive(Debug, Clone, Default)]
pub struct SupabaseState {
    /// Documents that lack something, as far as they are known.
    pub backlog: usize,
    /// Since when the one that lacks something longest does.
    pub oldest: Option<Instant>,
    /// Documents whose last write has an unknown outcome.
    pub unconfirmed: usize,
    /// Deleted conversations whose copy is not gone for good yet, as far as they are known.
    pub deletions: usize,
    /// Others' documents that were kept aside since the start.
    pub conflicts: u64,
    /// Documents that the server does not take because of their size.
    pub too_large: usize,
    /// Documents that it does not take because of their name.
    pub refused_names: usize,
    /// Documents uploaded since the start.
    pub uploads: u64,
    /// Bytes of them.
    pub uploaded_bytes: u64,
    /// Rows of `chats` that lack something.
    pub rows_backlog: usize,
    /// The log was looked through for what the last run left; before, the backlog is not all.
    pub caught_up: bool,
    /// Why nothing is sent; `None` while all is well.
    pub trouble: Option<Arc<str>>,
    /// Why no rows are written.
    pub rows_trouble: Option<Arc<str>>,
}
