//! The handle through which a test steers the simulated Supabase and reads what it holds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::fault::{Fault, Matcher, Target};
use super::plans::PlanId;
use super::rest::{self, Row};
use super::state::{self, Counts};
use super::store::{Bucket, Object, Version};
use crate::counters::WaitError;
use crate::gate::Gate;
use crate::server::Shared;

/// The simulated Supabase of a [`Simulator`](crate::Simulator); clones are the same one.
///
/// What it changes counts as a change of the store, and not as an upload or a delete.
#[derive(Debug, Clone)]
pub struct Supabase {
    shared: Arc<Shared>,
    clock: Handle,
}

/// An object as it is stored now.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredObject {
    /// Its key within the bucket.
    pub key: String,
    /// Its bytes.
    pub bytes: Bytes,
    /// The JSON of `x-metadata`; none if it was uploaded without.
    pub metadata: Option<Value>,
    /// Its media type.
    pub content_type: String,
    /// What its upload gave as `cache-control`.
    pub cache_control: String,
    /// The id that overwrites do not change.
    pub id: String,
    /// The id that every overwrite changes.
    pub version: String,
    /// The MD5 of the bytes, in quotes.
    pub etag: String,
}

/// A row that the table cannot take; the text is PostgREST's answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such row: {0}")]
pub struct InvalidRow(String);

/// A fault that was planned; it stays in force when this is dropped.
#[derive(Debug, Clone)]
pub struct Planned {
    shared: Arc<Shared>,
    clock: Handle,
    id: PlanId,
}

impl Supabase {
    pub(crate) fn new(shared: Arc<Shared>, clock: Handle) -> Self {
        Self { shared, clock }
    }

    /// Makes a private bucket without limits; one that exists stays as it is.
    pub fn create_bucket(&self, id: &str) {
        self.shared
            .supabase
            .lock()
            .buckets
            .entry(id.to_owned())
            .or_insert_with(|| Bucket::new(id));
        self.changed();
    }

    /// Sets the most bytes of an object of this bucket; `None` leaves the server's own limit.
    pub fn set_file_size_limit(&self, bucket: &str, limit: Option<u64>) {
        self.on_bucket(bucket, |bucket| bucket.limit = limit);
    }

    /// Sets the media types that this bucket takes, as `image/png` or `text/*`; `None` takes all.
    pub fn set_allowed_mime_types(&self, bucket: &str, types: Option<&[&str]>) {
        let types = types.map(|types| types.iter().map(|&name| name.to_owned()).collect());
        self.on_bucket(bucket, |bucket| bucket.mime_types = types);
    }

    /// Returns the ids of the buckets, in order.
    pub fn buckets(&self) -> Vec<String> {
        self.shared
            .supabase
            .lock()
            .buckets
            .keys()
            .cloned()
            .collect()
    }

    /// Returns the objects of a bucket, in the order of their keys.
    pub fn objects(&self, bucket: &str) -> Vec<StoredObject> {
        let inner = self.shared.supabase.lock();
        let objects = inner.buckets.get(bucket).into_iter();
        objects
            .flat_map(|bucket| &bucket.objects)
            .map(|(key, object)| StoredObject::of(key, object))
            .collect()
    }

    /// Returns an object as it is now.
    pub fn object(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        let inner = self.shared.supabase.lock();
        let object = inner.buckets.get(bucket)?.objects.get(key)?;
        Some(StoredObject::of(key, object))
    }

    /// Writes a JSON object without `x-metadata`, as the official clients do by default.
    ///
    /// A bucket that is missing is made.
    pub fn put_object(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>) {
        self.put(bucket, key, bytes.into(), None);
    }

    /// Writes a JSON object with the JSON of `x-metadata`.
    pub fn put_object_with_metadata(
        &self,
        bucket: &str,
        key: &str,
        bytes: impl Into<Bytes>,
        metadata: Value,
    ) {
        self.put(bucket, key, bytes.into(), Some(metadata));
    }

    fn put(&self, bucket: &str, key: &str, bytes: Bytes, metadata: Option<Value>) {
        let version = Version::new(bytes, "application/json", "max-age=3600", metadata);
        self.on_bucket(bucket, |bucket| {
            bucket.put(key, version);
        });
    }

    /// Deletes an object, and returns what it was.
    pub fn delete_object(&self, bucket: &str, key: &str) -> Option<StoredObject> {
        let removed = {
            let mut inner = self.shared.supabase.lock();
            inner.buckets.get_mut(bucket)?.objects.remove(key)?
        };
        self.changed();
        Some(StoredObject::of(key, &removed))
    }

    /// Returns the rows of a table, in the order of their ids; tables other than `chats` have none.
    pub fn rows(&self, table: &str) -> Vec<Value> {
        let inner = self.shared.supabase.lock();
        let rows = inner.table.rows().filter(|_| table == rest::TABLE);
        rows.map(|row: &Row| json!(row)).collect()
    }

    /// Writes a row of `chats`, as an upsert of the service role.
    ///
    /// # Errors
    ///
    /// When a column is unknown, or a value does not fit its column.
    pub fn put_row(&self, row: &Value) -> Result<(), InvalidRow> {
        let refused = |text: &[u8]| InvalidRow(String::from_utf8_lossy(text).into_owned());
        let fields = row
            .as_object()
            .ok_or_else(|| refused(b"it is no JSON object"))?;
        let mut inner = self.shared.supabase.lock();
        let written = inner.table.merge(fields);
        drop(inner);
        written.map_err(|answer| refused(&answer.body))?;
        self.changed();
        Ok(())
    }

    /// Deletes every row of `chats`.
    pub fn clear_rows(&self) {
        drop(self.shared.supabase.lock().table.delete(|_| true));
        self.changed();
    }

    /// Makes the schema cache lack the table: requests get 404 `PGRST205`.
    pub fn hide_table(&self) {
        self.shared.supabase.lock().table.missing = true;
    }

    /// Undoes [`Self::hide_table`].
    pub fn show_table(&self) {
        self.shared.supabase.lock().table.missing = false;
    }

    /// Makes the foreign key of `user_id` not find this user: such rows get 409 `23503`.
    pub fn forget_user(&self, user: &str) {
        let user = state::user_key(user);
        self.shared.supabase.lock().table.unknown_users.insert(user);
    }

    /// Undoes [`Self::forget_user`].
    pub fn know_user(&self, user: &str) {
        let user = state::user_key(user);
        self.shared
            .supabase
            .lock()
            .table
            .unknown_users
            .remove(&user);
    }

    /// Makes every request that matches meet a fault, until it is cleared.
    ///
    /// A request meets every fault that matches it, in the order they were planned; the first one
    /// that ends the request is the last.
    pub fn fail(&self, requests: impl Into<Matcher>, fault: Fault) -> Planned {
        self.plan(requests.into(), fault, None)
    }

    /// Makes the next so many requests that match meet a fault.
    pub fn fail_times(&self, times: u64, requests: impl Into<Matcher>, fault: Fault) -> Planned {
        self.plan(requests.into(), fault, Some(times))
    }

    pub(crate) fn plan(&self, matcher: Matcher, fault: Fault, times: Option<u64>) -> Planned {
        let hung = Gate::new(self.clock.clone());
        let mut inner = self.shared.supabase.lock();
        let id = inner.plans.add(matcher, fault, times, hung);
        drop(inner);
        self.planned(id)
    }

    pub(crate) fn planned(&self, id: PlanId) -> Planned {
        Planned {
            shared: Arc::clone(&self.shared),
            clock: self.clock.clone(),
            id,
        }
    }

    /// Ends every fault; requests that hang are carried out, and held writes stay held.
    pub fn clear_faults(&self) {
        self.shared.supabase.lock().plans.clear(None);
    }

    /// Carries out every held write, oldest first, and returns how many.
    pub fn release_late(&self) -> usize {
        state::release(&self.shared, |_| true)
    }

    /// Forgets every held write: none is ever carried out.
    pub fn forget_late(&self) {
        self.shared.supabase.lock().plans.forget(None);
        state::tell_held(&self.shared);
    }

    /// Returns what requests have asked so far.
    pub fn counts(&self) -> Counts {
        self.shared.supabase.lock().counts.clone()
    }

    /// Returns how many requests of this group there were, whatever became of them.
    pub fn requests(&self, target: Target) -> u64 {
        let counts = self.counts();
        let covered = counts
            .requests
            .iter()
            .filter(|(name, _)| Target::parse(name).is_some_and(|narrow| target.covers(narrow)));
        covered.map(|(_, count)| count).sum()
    }

    /// Sets every count to zero: these, and those of Supabase in [`Counters`](crate::Counters).
    pub fn reset_counts(&self) {
        self.shared.supabase.lock().counts = Counts::default();
        self.shared.meter.change(|counters| {
            counters.supabase_requests = 0;
            counters.uploads = 0;
            counters.uploaded_bytes = 0;
            counters.deletes = 0;
            counters.rows_written = 0;
            counters.store_changes = 0;
        });
    }

    pub(crate) fn require_key(&self, key: Option<&str>) {
        self.shared.supabase.lock().key = key.map(str::to_owned);
    }

    fn on_bucket(&self, id: &str, change: impl FnOnce(&mut Bucket)) {
        {
            let mut inner = self.shared.supabase.lock();
            let bucket = inner.buckets.entry(id.to_owned());
            change(bucket.or_insert_with(|| Bucket::new(id)));
        }
        self.changed();
    }

    fn changed(&self) {
        self.shared
            .meter
            .change(|counters| counters.store_changes += 1);
    }
}

impl Planned {
    pub(crate) fn id(&self) -> PlanId {
        self.id
    }

    /// Ends the fault; requests that hang by it are carried out, and held writes stay held.
    pub fn clear(&self) {
        self.shared.supabase.lock().plans.clear(Some(self.id));
    }

    /// Carries out the writes that it holds, oldest first, and returns how many.
    ///
    /// Writes that are taken later are held anew.
    pub fn release(&self) -> usize {
        state::release(&self.shared, |held| held.plan == self.id)
    }

    /// Forgets the writes that it holds: they are never carried out.
    pub fn forget(&self) {
        self.shared.supabase.lock().plans.forget(Some(self.id));
        state::tell_held(&self.shared);
    }

    /// Returns how many requests have met it.
    pub fn met(&self) -> u64 {
        self.shared.supabase.lock().plans.played(self.id)
    }

    /// Waits until so many requests have met it.
    ///
    /// # Errors
    ///
    /// When the deadline passes first.
    pub async fn reached(&self, requests: u64, deadline: Duration) -> Result<(), WaitError> {
        let what = format!("meeting of a fault by {requests} requests");
        let condition = |_: &_| self.met() >= requests;
        let meter = &self.shared.meter;
        meter
            .wait_for(&self.clock, &what, condition, deadline)
            .await?;
        Ok(())
    }
}

impl StoredObject {
    fn of(key: &str, object: &Object) -> Self {
        let version = &object.now;
        Self {
            key: key.to_owned(),
            bytes: version.bytes.clone(),
            metadata: version.metadata.clone(),
            content_type: version.content_type.clone(),
            cache_control: version.cache_control.clone(),
            id: object.id.to_string(),
            version: version.id.to_string(),
            etag: version.etag.clone(),
        }
    }

    /// Parses the bytes as JSON.
    ///
    /// # Errors
    ///
    /// When they are not JSON.
    pub fn json(&self) -> serde_json::Result<Value> {
        serde_json::from_slice(&self.bytes)
    }
}
