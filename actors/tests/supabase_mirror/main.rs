//! The mirror in Supabase: what it does with what it finds in the bucket, against a simulated one.

#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adoption;
mod bench;
mod documents;
mod pace;
