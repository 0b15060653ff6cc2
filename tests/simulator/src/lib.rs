//! A test double for the upstream providers.
//!
//! stub of the docs
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod admin;
mod counters;
mod gate;
mod http;
mod log;
mod openrouter;
mod server;
mod simulator;

pub use counters::{Counters, WaitError};
pub use gate::Gate;
pub use http::{Request, Split};
pub use openrouter::{
    ErrorCase, Fault, MODEL_PREFIX, ModelCard, OptionError, Route, Script, StreamError, ToolCall,
    reasoning_text, recorded_stream, reply_text, sized_reply_text,
};
pub use simulator::{Options, Simulator};
