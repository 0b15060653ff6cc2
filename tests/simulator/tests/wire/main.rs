//! What the simulator sends, byte for byte, and what it counts.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod audio_client;
mod client;
mod counting;
mod elevenlabs_http;
mod elevenlabs_sockets;
mod errors;
mod faults;
mod pace;
mod replies;
mod steering;
mod supabase_admin;
mod supabase_client;
mod supabase_connections;
mod supabase_faults;
mod supabase_recorded;
mod supabase_rest;
mod supabase_store;
mod whisper;
