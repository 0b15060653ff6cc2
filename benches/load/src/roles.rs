//! What the processes of a run are, besides the server.

pub(crate) mod echo;
pub(crate) mod log;
pub(crate) mod pass_through;
pub(crate) mod upstream;
