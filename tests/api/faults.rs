//! What an upstream does wrong, as clients see it through every door, and what is kept of it.

mod broken;
pub(crate) mod doors;
mod ends;
mod harmless;
mod late;
mod leaving;
mod refused;
mod words;
