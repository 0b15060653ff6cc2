//! What speaking a reply takes, without the speaking: no actor, no clock and no I/O in here.

pub mod alignment;
pub mod format;
pub mod heard;
pub mod segment;
pub mod segmenter;
pub mod tones;
pub mod usage;
