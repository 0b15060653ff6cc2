//! The conversation engine: no HTTP-server type anywhere in it.
//!
//! A command comes in through a `ConversationHandle`; the supervisor finds or starts the one actor
//! that owns the conversation; it appends to the [`log`], asks a [`provider`] for a reply, and
//! fans the reply out to every attached session.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod error;
pub mod id;
pub mod json_text;
pub mod log;
pub mod mirror;
pub mod provider;
pub mod time;
