//! The Supabase client against a server on loopback that says what the test tells it to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod listings;
mod objects;
mod outcomes;
mod rows;
mod server;
mod uploads;
