//! Where what is spoken and heard is counted: for the server, and for the conversation it is of.

use crate::{handle::ConversationHandle, metrics::Metrics, voice::usage::VoiceUsage};

/// Counts what is spoken and heard.
#[derive(Debug, Clone)]
pub struct VoiceAccount {
    metrics: Metrics,
    conversation: Option<ConversationHandle>,
}

impl VoiceAccount {
    /// For the server, and for a conversation if it is of one.
    #[must_use]
    pub fn new(metrics: Metrics, conversation: Option<ConversationHandle>) -> Self {
        Self {
            metrics,
            conversation,
        }
    }

    /// Counts: for the server at once, for the conversation when the future is driven. It ends in
    /// time, and what cannot be counted is said in the server's log alone: it was spoken all the same.
    pub fn count(&self, usage: VoiceUsage) -> impl Future<Output = ()> + use<> {
        self.metrics.characters_spoken.inc_by(usage.characters);
        self.metrics.seconds_heard.inc_by(usage.seconds_heard());
        let conversation = self.conversation.clone();
        async move {
            let Some(conversation) = conversation else {
                return;
            };
            if let Err(error) = conversation.count(usage).await {
                let id = conversation.id();
                tracing::warn!(conversation = %id, %usage, %error, "what was spoken is not counted");
            }
        }
    }
}
