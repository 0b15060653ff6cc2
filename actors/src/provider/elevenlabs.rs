//! ElevenLabs: text to speech over HTTP, its audio passed on as it comes.
//!
//! One request speaks one sentence and says what was spoken before it (`previous_text`), so that
//! the voice goes on in its tone. Requests share warm connections, over which a sentence that is not
//! wanted any more is cancelled alone; ElevenLabs' own socket would have to be kept warm for each
//! voice and model, is closed by it after some silence, and does not tell where a sentence ends.

use std::sync::Arc;

use actix::{Actor, Context, Handler};

use self::{config::Target, speaking::Speaking};
pub use self::{
    config::{ElevenLabsConfig, SpeechDeadlines},
    room::SpeechRoom,
};
use super::{EndpointError, Generation, protection::Protection, speech::Speak};

mod call;
mod config;
mod room;
mod speaking;
mod timing;

/// Asks for speech; one for each thread that sessions live on, with its own connections.
///
/// Owns no state of a speech: each is one task, ended by its [`Generation`] guard. What the calls of
/// all threads share is in [`Protection`] and [`SpeechRoom`].
#[derive(Debug)]
pub struct ElevenLabs {
    target: Arc<Target>,
    protection: Arc<Protection>,
    room: Arc<SpeechRoom>,
}

impl ElevenLabs {
    /// Checks the configuration and sets up an HTTP client; does not connect.
    ///
    /// # Errors
    ///
    /// Names the value that is wrong.
    pub fn new(
        config: &ElevenLabsConfig,
        protection: Arc<Protection>,
        room: Arc<SpeechRoom>,
    ) -> Result<Self, EndpointError> {
        Ok(Self {
            target: Arc::new(Target::new(config)?),
            protection,
            room,
        })
    }
}

impl Actor for ElevenLabs {
    type Context = Context<Self>;
}

impl Handler<Speak> for ElevenLabs {
    type Result = Generation;

    fn handle(&mut self, speak: Speak, _: &mut Context<Self>) -> Generation {
        let speaking = Speaking {
            target: Arc::clone(&self.target),
            protection: Arc::clone(&self.protection),
            room: Arc::clone(&self.room),
            speak,
        };
        // A task of its own, not `ctx.spawn`: an actor polls all its futures whenever one wakes.
        Generation::new(tokio::task::spawn_local(speaking.run()).abort_handle())
    }
}
