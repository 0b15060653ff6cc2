//! The public JSON: requests in, answers and events out.
//!
//! What front ends of the FastAPI ancestor depend on keeps its names, order, types and texts;
//! members are only ever added.

pub mod branch;
pub mod chat;
pub mod completion;
pub mod document;
pub mod events;
pub mod fields;
pub mod idempotency;
pub mod json;
pub mod list;
pub mod openai;
pub mod page;
pub mod query;
pub mod socket;
pub mod speech;
pub mod sse;
pub mod voice;
