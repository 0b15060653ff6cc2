//! OpenRouter, and whatever else serves chat completions in its shape.

pub mod chunk;
pub mod failure;
pub mod reply;
mod report;
mod shape;
mod text;
