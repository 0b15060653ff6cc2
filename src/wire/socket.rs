//! The messages of `/ws/chat`.

mod asked;
mod told;

pub use asked::{ClientMessage, Reasoning, Refused, Watch, message_id, said};
pub use told::{
    PONG, conversation_deleted, conversation_started, ended, event, going_away, history,
    history_truncated, message_received, missed_end, received_of_others, refused, reset, resumed,
    turn_error, unplaced,
};
