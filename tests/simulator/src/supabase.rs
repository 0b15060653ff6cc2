//! Supabase as it behaves on the wire: storage below `/storage/v1`, PostgREST below `/rest/v1`.
//!
//! Storage follows recorded answers of storage-api 1.70.6 with its file backend, PostgREST those
//! of 12.0.3 with the changes that its later versions name. The gateway in front of both is known
//! from documents alone.
//!
//! A test steers and reads it through [`Supabase`]: it seeds and inspects the store, and tells
//! requests to meet a [`Fault`].

mod admin;
mod auth;
mod body;
mod bucket;
mod call;
mod error;
mod fault;
mod handle;
mod list;
mod plans;
mod read;
mod remove;
mod rest;
mod state;
mod store;
mod upload;
mod url;

use std::sync::Arc;

use tokio::time::sleep;

pub(crate) use admin::{PREFIX as ADMIN_PREFIX, respond as admin};
pub use auth::ANON_KEY;
pub use error::{Error, UnknownError};
pub use fault::{Fault, LATE_AFTER, LateAnswer, Matcher, Release, Target};
pub use handle::{InvalidRow, Planned, StoredObject, Supabase};
pub(crate) use state::State;
pub use state::{Counts, Uploads};

use crate::counters::Counted;
use crate::http::{Answer, Connection, Ended, Gone, Head, Next, Persistence, Request};
use crate::server::Shared;
use auth::Role;
use call::Call;
use plans::{Age, End, Met, Pause};
use upload::{Early, Rest};

/// Whether a path belongs to Supabase.
pub(crate) fn serves(path: &str) -> bool {
    [call::STORAGE, call::REST].iter().any(|service| {
        path.strip_prefix(service)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Reads the rest of a request, if it is to be read, and answers it.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    connection: &mut Connection,
    head: Head,
) -> Result<Next, Ended> {
    let call = Call::parse(&head.request.method, head.request.path());
    let (role, early) = look(shared, &call, &head);
    let (mut met, mut refusal) = (None, None);
    if let Some(early) = early {
        let first = take(shared, &call, &head.request);
        if first.end.is_none() {
            return answer_early(shared, connection, &call, head, early, first).await;
        }
        (met, refusal) = (Some(first), Some(early.answer));
    }
    let request = Arc::new(connection.read_body(head).await?);
    let _active = begin(shared, &call, &request);
    let met = met.unwrap_or_else(|| take(shared, &call, &request));
    play(shared, &met);
    connection.wait(pause(&met)).await?;
    // An error of the network comes before anything is looked at; a late write does not.
    let on_the_way = matches!(met.end, Some(End::Error(_) | End::Close | End::Reset));
    if let Some(refusal) = refusal
        && !on_the_way
    {
        return Ok(send(connection, &request, &refusal).await?);
    }
    let answer = match met.end {
        None => state::carry_out(shared, &request, &call, role, met.age),
        Some(End::Error(error)) => error.answer(call.service()),
        Some(End::Close) => return Ok(Next::Close),
        Some(End::Reset) => return Ok(Next::Reset),
        Some(End::Late(plan, answer, release)) => {
            hold(shared, plan, &request, &call, role, release);
            match answer {
                LateAnswer::Error(error) => error.answer(call.service()),
                LateAnswer::Reset => return Ok(Next::Reset),
                LateAnswer::Never => connection.wait(std::future::pending()).await?,
            }
        }
    };
    Ok(send(connection, &request, &answer).await?)
}

/// Finds who asks, and what the head alone is refused with.
fn look(shared: &Shared, call: &Call, head: &Head) -> (Role, Option<Early>) {
    if call.is_public() {
        return (Role::Anon, None);
    }
    let inner = shared.supabase.lock();
    let role = match auth::role(&head.request, call.service(), inner.key.as_deref()) {
        Ok(role) => role,
        Err(answer) => {
            let rest = Rest::Drain;
            return (Role::Anon, Some(Early { answer, rest }));
        }
    };
    let Call::Upload(place, mode) = call else {
        return (role, None);
    };
    let buckets = &inner.buckets;
    let early = upload::refusal(buckets, place, *mode, &head.request, head.body, role);
    (role, early)
}

/// Sends an answer before the body was read, and leaves the body or drops it.
async fn answer_early(
    shared: &Shared,
    connection: &mut Connection,
    call: &Call,
    head: Head,
    early: Early,
    met: Met,
) -> Result<Next, Ended> {
    let request = Arc::new(head.request);
    let _active = begin(shared, call, &request);
    play(shared, &met);
    connection.wait_unread(pause(&met)).await?;
    let next = send(connection, &request, &early.answer).await?;
    if early.rest == Rest::Leave && head.persistence == Persistence::Keep {
        return Ok(Next::Stuck);
    }
    connection.drain_body(head.body).await?;
    Ok(next)
}

/// Counts and records a request, for as long as it is being answered.
fn begin<'s>(shared: &'s Shared, call: &Call, request: &Arc<Request>) -> Counted<'s> {
    shared.log.push(Arc::clone(request));
    shared.supabase.count(call);
    Counted::new(
        &shared.meter,
        |counters| {
            counters.requests += 1;
            counters.supabase_requests += 1;
            counters.active_requests += 1;
        },
        |counters| counters.active_requests -= 1,
    )
}

/// Takes what a request meets of the faults that are planned.
fn take(shared: &Shared, call: &Call, request: &Request) -> Met {
    let mut inner = shared.supabase.lock();
    if inner.plans.is_idle() {
        return Met::default();
    }
    let mut haystack = url::decode(&request.target).unwrap_or_default();
    if matches!(
        call,
        Call::DeleteMany(_) | Call::Copy | Call::Move | Call::Table(_)
    ) {
        haystack.push_str(&String::from_utf8_lossy(&request.body));
    }
    let oldest = match call {
        Call::Download(place, _) | Call::Info(place, _) => read::oldest(&inner.buckets, place),
        _ => Age::Fresh,
    };
    inner.plans.take(call, &haystack, oldest)
}

fn play(shared: &Shared, met: &Met) {
    if met.faults > 0 {
        let faults = met.faults;
        shared
            .meter
            .change(|counters| counters.faults_played += faults);
    }
}

async fn pause(met: &Met) {
    for wait in &met.waits {
        match wait {
            Pause::For(time) => sleep(*time).await,
            Pause::At(gate) => gate.pass().await,
        }
    }
}

/// Holds a write until it is released, by the test or by the clock.
fn hold(
    shared: &Arc<Shared>,
    plan: plans::PlanId,
    request: &Arc<Request>,
    call: &Call,
    role: Role,
    release: Release,
) {
    let number = {
        let mut inner = shared.supabase.lock();
        inner
            .plans
            .hold(plan, Arc::clone(request), call.clone(), role)
    };
    state::tell_held(shared);
    if let Release::After(time) = release {
        let shared = Arc::clone(shared);
        drop(tokio::spawn(async move {
            sleep(time).await;
            state::release(&shared, |held| held.number == number);
        }));
    }
}

/// Sends an answer, of which a `HEAD` gets the head, and says what becomes of the connection.
async fn send(
    connection: &mut Connection,
    request: &Request,
    answer: &Answer,
) -> Result<Next, Gone> {
    if request.method == "HEAD" {
        answer.send_head(connection).await?;
    } else {
        answer.send(connection).await?;
    }
    let closes = answer
        .headers
        .iter()
        .any(|(name, value)| name.eq_ignore_ascii_case("connection") && value == "close");
    Ok(if closes { Next::Close } else { Next::KeepAlive })
}
