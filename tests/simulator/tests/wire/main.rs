//! What the simulator sends, byte for byte, and what it counts.

mod client;
mod counting;
mod errors;
mod faults;
mod pace;
mod replies;
mod steering;
