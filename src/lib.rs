//! The server: knows HTTP, knows nothing of prompts or upstreams.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod config;
pub mod healthcheck;
pub mod telemetry;
