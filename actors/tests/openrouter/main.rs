//! The OpenRouter provider against a server on loopback that says what the test tells it to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod deadlines;
mod listeners;
mod refusals;
mod streams;
mod upstream;
