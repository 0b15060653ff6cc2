//! The messages of `/ws/chat`.

mod asked;
mod audio;
mod told;

pub use asked::{
    AudioStart, Carriage, ClientMessage, Reasoning, Refused, SpokenReply, Watch, is_audio_start,
    message_id, said,
};
pub use audio::{
    AudioPiece, audio, audio_complete, audio_error, audio_frame, audio_head_alone, audio_stop,
    transcript,
};
pub use told::{
    PONG, conversation_deleted, conversation_started, ended, event, going_away, history,
    message_received, missed_end, received_of_others, received_of_own, refused, reset, resumed,
    turn_error, unplaced, utterance_error,
};
