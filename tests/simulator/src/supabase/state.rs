//! All that the simulated Supabase keeps, and how a request changes it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::auth::Role;
use super::call::{Call, Place};
use super::fault::Target;
use super::plans::{Age, Held, Plans};
use super::rest::Table;
use super::store::Buckets;
use super::{body, bucket, list, read, remove, rest, upload};
use crate::counters::Meter;
use crate::http::{Answer, Request};
use crate::server::Shared;

/// The most keys whose uploads are counted apart; past it the counts start anew.
const COUNTED_KEYS: usize = 65_536;

/// The version that `/version` tells: that of the server whose answers were recorded.
const VERSION: &str = "1.70.6";

/// The buckets, the table, the faults and the counts.
#[derive(Debug, Default)]
pub(crate) struct State {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) buckets: Buckets,
    pub(crate) table: Table,
    pub(crate) plans: Plans,
    /// The service key; without one every key is taken for it.
    pub(crate) key: Option<String>,
    pub(crate) counts: Counts,
}

/// What requests have asked of the simulated Supabase, since the start or the last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests by the narrowest [`Target`] that covers them, whatever became of them.
    pub requests: BTreeMap<&'static str, u64>,
    /// Objects that uploads have written, and their bytes.
    pub uploads: Uploads,
    /// The same by `bucket/key`.
    pub uploads_by_key: BTreeMap<String, Uploads>,
}

/// So many uploads and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Uploads {
    /// Uploads that wrote an object.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Uploads {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

impl Counts {
    fn upload(&mut self, place: &Place, bytes: u64) {
        self.uploads.add(bytes);
        let key = format!("{}/{}", place.bucket, place.key);
        if self.uploads_by_key.len() >= COUNTED_KEYS && !self.uploads_by_key.contains_key(&key) {
            self.uploads_by_key.clear();
        }
        self.uploads_by_key.entry(key).or_default().add(bytes);
    }
}

/// What one request has changed.
#[derive(Debug, Default)]
struct Delta {
    uploads: u64,
    bytes: u64,
    deletes: u64,
    rows: u64,
    /// Changes beside these: of buckets, by copies and by moves.
    others: u64,
}

impl Delta {
    fn tell(&self, meter: &Meter) {
        let changes = self.uploads + self.deletes + self.rows + self.others;
        if changes == 0 {
            return;
        }
        meter.change(|counters| {
            counters.uploads += self.uploads;
            counters.uploaded_bytes += self.bytes;
            counters.deletes += self.deletes;
            counters.rows_written += self.rows;
            counters.store_changes += changes;
        });
    }
}

impl State {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request by its target.
    pub(crate) fn count(&self, call: &Call) {
        let name = Target::of(call).name();
        *self.lock().counts.requests.entry(name).or_default() += 1;
    }
}

/// Carries out a request and returns its answer.
pub(crate) fn carry_out(
    shared: &Shared,
    request: &Request,
    call: &Call,
    role: Role,
    age: Age,
) -> Answer {
    let mut delta = Delta::default();
    let outcome = respond(
        &mut shared.supabase.lock(),
        &mut delta,
        request,
        call,
        role,
        age,
    );
    delta.tell(&shared.meter);
    outcome.unwrap_or_else(|refusal| refusal)
}

fn respond(
    inner: &mut Inner,
    delta: &mut Delta,
    request: &Request,
    call: &Call,
    role: Role,
    age: Age,
) -> Result<Answer, Answer> {
    let buckets = &mut inner.buckets;
    match call {
        Call::Upload(place, _) => {
            let answer = upload::upload(buckets, place, request)?;
            delta.uploads = 1;
            delta.bytes = request.body.len() as u64;
            inner.counts.upload(place, delta.bytes);
            Ok(answer)
        }
        Call::Download(place, access) => {
            read::download(buckets, place, *access, request, role, age)
        }
        Call::Info(place, access) => read::info(buckets, place, *access, role, age),
        Call::Delete(place) => {
            let answer = remove::one(buckets, place, request, role)?;
            delta.deletes = 1;
            Ok(answer)
        }
        Call::DeleteMany(bucket) => {
            let (answer, count) = remove::many(buckets, bucket, request, role)?;
            delta.deletes = count;
            Ok(answer)
        }
        Call::List(bucket) => list::v1(buckets, bucket, request, role),
        Call::ListV2(bucket) => list::v2(buckets, bucket, request, role),
        Call::Copy => changed(delta, remove::copy(buckets, request, role)),
        Call::Move => changed(delta, remove::rename(buckets, request, role)),
        Call::Buckets | Call::Bucket(_) if request.method == "GET" => {
            bucket_answer(buckets, request, call, role)
        }
        Call::Buckets | Call::Bucket(_) | Call::EmptyBucket(_) => {
            changed(delta, bucket_answer(buckets, request, call, role))
        }
        Call::Version => Ok(Answer::new(200, "text/plain; charset=utf-8", VERSION)),
        Call::Table(name) => {
            let (answer, rows) = rest::answer(&mut inner.table, name, request, role);
            delta.rows = rows;
            Ok(answer)
        }
        Call::NoTable => Err(rest::no_table()),
        Call::BadUrl => Err(body::bad_url(request)),
        Call::NoObjectRoute => Err(body::no_object_route(request)),
        Call::NoRoute => Err(body::no_route(request)),
    }
}

fn bucket_answer(
    buckets: &mut Buckets,
    request: &Request,
    call: &Call,
    role: Role,
) -> Result<Answer, Answer> {
    match call {
        Call::Bucket(id) => bucket::one(buckets, id, request, role),
        Call::EmptyBucket(id) if request.method == "POST" => bucket::empty(buckets, id, role),
        Call::EmptyBucket(_) => Err(body::no_route(request)),
        _ => bucket::all(buckets, request, role),
    }
}

fn changed(delta: &mut Delta, outcome: Result<Answer, Answer>) -> Result<Answer, Answer> {
    delta.others = u64::from(outcome.is_ok());
    outcome
}

/// Carries out held writes, oldest first, and returns how many.
pub(crate) fn release(shared: &Shared, chosen: impl Fn(&Held) -> bool) -> usize {
    let held = shared.supabase.lock().plans.release(chosen);
    for write in &held {
        // The client has long been told something else.
        drop(carry_out(
            shared,
            &write.request,
            &write.call,
            write.role,
            Age::Fresh,
        ));
    }
    tell_held(shared);
    held.len()
}

/// Tells the meter how many writes are held.
pub(crate) fn tell_held(shared: &Shared) {
    let held = shared.supabase.lock().plans.held();
    shared.meter.change(|counters| counters.held_writes = held);
}

/// Returns a user's id as the table stores it.
pub(crate) fn user_key(user: &str) -> String {
    uuid::Uuid::try_parse(user).map_or_else(|_| user.to_owned(), |id| id.to_string())
}
