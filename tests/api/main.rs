//! The server as its clients see it: a real server on port 0, real sockets, the simulator upstream.
//!
//! A file per promise. Nothing here sleeps: a test waits for an event, before a deadline that says
//! what was awaited.

#![allow(missing_docs, unreachable_pub)]
#![expect(
    clippy::disallowed_methods,
    reason = "clients of a test end with its runtime"
)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod helpers;

mod abandoning;
mod bad_input;
mod branches;
mod cancelling;
mod chat;
mod commands;
mod context;
mod crash;
mod damage;
mod deletion;
mod disks;
mod documents;
mod failpoints;
mod faults;
mod idempotency;
mod listing;
mod observability;
mod pages;
mod process;
mod repair;
mod resilience;
mod resume;
mod soak;
mod stream;
mod supabase;
mod tools;
mod turns;
mod websocket;
