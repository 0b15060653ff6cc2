//! The conversation engine: no HTTP-server type anywhere in it.
//!
//! A command comes in through a [`handle::ConversationHandle`]; the supervisor finds or starts the
//! one actor that owns the conversation; it appends to the [`log`], asks a [`provider`] for a
//! reply, and fans the reply out to every attached session. The [`mirror`]s follow the log.
//!
//! What is deliberately absent: a provider, the log and the mirrors never name a conversation's
//! actor, they answer to whom they were told to. The pure parts (`document`, `prompt`, `stream`,
//! `subscribers`, `message`, `codec`, `id`, `limits`) import neither actix nor tokio.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod accounting;
mod adopting;
pub mod caller;
pub mod codec;
pub mod conversation;
pub mod engine;
pub mod error;
pub mod handle;
pub mod id;
pub mod importing;
pub mod json_text;
mod keys;
pub mod limits;
pub mod loading;
pub mod log;
pub mod metrics;
pub mod mirror;
mod patience;
pub mod provider;
pub mod recovery;
pub mod rendering;
pub mod shared;
pub mod speaker;
mod supervisor;
mod ticker;
pub mod time;
pub mod voice;
