//! Supabase over HTTP: the objects of one Storage bucket, and the rows of the table `chats`.
//!
//! Only the calls and what their answers mean. When to make them, and what to do after a failure,
//! is the caller's to decide: nothing here repeats a request. Facts are those of storage-api
//! 1.70 and PostgREST 12 and later, as they answered.

use std::{sync::Arc, time::Duration};

use self::config::Endpoint;
pub use self::{
    config::{Deadlines, SupabaseConfig, SupabaseConfigError},
    error::{AuthFault, Missing, SupabaseError, SupabaseErrorKind},
    listing::{ListedObject, Listing},
    metadata::Metadata,
    rows::{ChatRow, RowUpdate},
    storage::{Bucket, Copying, Deletion, Found, ObjectInfo},
};

mod call;
mod config;
mod error;
mod failure;
mod key;
mod listing;
mod metadata;
mod names;
mod pieces;
mod report;
mod rows;
mod storage;

/// Asks one Supabase project for one bucket and one table. Cheap to clone; clones share their
/// connections.
///
/// Every call ends within [`Deadlines::request`]. A call that is dropped is broken off, and
/// whether it took effect is then not known.
#[derive(Debug, Clone)]
pub struct SupabaseClient {
    endpoint: Arc<Endpoint>,
}

impl SupabaseClient {
    /// Checks the configuration; connects to nothing yet.
    ///
    /// # Errors
    ///
    /// See [`SupabaseConfigError`].
    pub fn new(config: &SupabaseConfig) -> Result<Self, SupabaseConfigError> {
        let endpoint = Arc::new(Endpoint::new(config)?);
        Ok(Self { endpoint })
    }

    /// How long the last answer took to come, of whatever call of this client or its clones;
    /// `None`: nothing was answered yet. One that did not come counts as long as it was waited for.
    #[must_use]
    pub fn last_answer(&self) -> Option<Duration> {
        self.endpoint.last_answer()
    }
}
