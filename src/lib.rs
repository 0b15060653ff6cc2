//! The server: knows HTTP, knows nothing of prompts or upstreams.
//!
//! [`application`] puts everything together; [`routes`] is the list of what is served; a handler
//! reads a request with [`wire`], hands a command to the engine through a [`session`], and writes
//! what comes back. Every error goes through the one table in [`error`].
//!
//! What is deliberately absent: no file here names an upstream's protocol, and only
//! `session/websocket.rs`, `session/sse.rs` and `session/events.rs` name `actix-web-actors`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod application;
pub mod claims;
pub mod config;
pub mod error;
pub mod healthcheck;
pub mod mirrors;
pub mod open_files;
pub mod request_id;
pub mod routes;
pub mod server;
pub mod session;
pub mod sockets;
pub mod telemetry;
pub mod tools;
pub mod upstream;
pub mod voices;
pub mod wire;
