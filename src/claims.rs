//! Requests that are being worked out before their conversation hears of them.
//!
//! A conversation settles what comes twice with one key by what it was told. What has to be heard or
//! written first, and costs money, is claimed here meanwhile: in this process alone, as a conversation
//! is served by one.

use std::sync::Arc;

use dashmap::DashSet;
use idol_actors::id::ConversationId;

/// A request: its conversation and its idempotency key.
type Request = (ConversationId, String);

/// Those that are being worked out.
#[derive(Debug, Clone, Default)]
pub struct Claims(Arc<DashSet<Request>>);

impl Claims {
    /// Claims a request until the claim is dropped. None: it is being worked out.
    #[must_use]
    pub fn claim(&self, conversation: &ConversationId, key: &str) -> Option<Claim> {
        let request = (conversation.clone(), key.to_owned());
        let claims = self.0.clone();
        claims
            .insert(request.clone())
            .then_some(Claim { claims, request })
    }
}

/// A request that is being worked out.
#[derive(Debug)]
pub struct Claim {
    claims: Arc<DashSet<Request>>,
    request: Request,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.remove(&self.request);
    }
}
