//! What the handlers and sessions of one worker share.

use std::{sync::Arc, time::Duration};

use actix_web::HttpRequest;
use idol_actors::{
    accounting::VoiceAccount,
    engine::Engine,
    handle::ConversationHandle,
    log::sqlite::SqliteLog,
    mirror::{json_files::MirrorState, supabase_mirror::SupabaseState},
    shared::Home,
};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::{
    claims::Claims,
    config::{Mode, Timestamps},
    error::ApiError,
    sockets::Sockets,
    voices::{VoiceParts, Voices},
    wire::chat::{Defaults, Named},
};

/// What the handlers and sessions of one worker share.
#[derive(Debug)]
pub struct Server {
    /// The engine.
    pub engine: Engine,
    /// This worker's thread, if conversations may live on it.
    pub home: Option<Arc<Home>>,
    /// Who speaks and who listens.
    pub voices: Voices,
    /// What the calls to them are at, for the readiness page.
    pub voice_parts: VoiceParts,
    /// What an operator chose for every chat request.
    pub defaults: Arc<Defaults>,
    /// The open sockets of all workers.
    pub sockets: Arc<Sockets>,
    /// Requests that are being worked out before their conversation hears of them, of all workers.
    pub claims: Claims,
    /// The log, for the readiness page.
    pub log: Arc<SqliteLog>,
    /// What the JSON files lack, for the readiness page.
    pub mirror: watch::Receiver<MirrorState>,
    /// What the copy in Supabase lacks, likewise; `None`: there is none.
    pub supabase: Option<watch::Receiver<SupabaseState>>,
    /// The metrics of all parts.
    pub registry: Arc<Registry>,
    /// Whether this is the demo.
    pub mode: Mode,
    /// How instants are written.
    pub timestamps: Timestamps,
    /// Between pings on a socket.
    pub ws_ping: Duration,
    /// Sizes.
    pub limits: Limits,
    /// Whether the admin pages answer everybody.
    pub open_admin: OpenAdmin,
}

/// Sizes of what comes in.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest request body in bytes.
    pub body_bytes: usize,
    /// Largest WebSocket message in bytes.
    pub frame_bytes: usize,
}

/// Who may see the admin pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenAdmin {
    /// Clients on this machine that no proxy speaks for.
    LoopbackOnly,
    /// Everybody.
    Everybody,
}

/// Headers by which a proxy says that it speaks for somebody else.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

impl Server {
    /// The handle of a conversation.
    #[must_use]
    pub fn conversation(&self, named: &Named) -> ConversationHandle {
        self.engine
            .conversation(named.id.clone(), self.home.clone())
            .from(named.origin)
    }

    /// Where what is spoken and heard is counted: for the server, and for a conversation.
    #[must_use]
    pub fn voice_account(&self, conversation: Option<ConversationHandle>) -> VoiceAccount {
        VoiceAccount::new(self.engine.metrics().clone(), conversation)
    }

    /// Refuses what only an operator may do, asked from elsewhere: there are no credentials yet.
    pub fn admit_admin(&self, request: &HttpRequest) -> Result<(), ApiError> {
        let loopback = request
            .peer_addr()
            .is_some_and(|peer| peer.ip().to_canonical().is_loopback());
        let forwarded = FORWARDED
            .iter()
            .any(|header| request.headers().contains_key(*header));
        if self.open_admin == OpenAdmin::Everybody || (loopback && !forwarded) {
            return Ok(());
        }
        Err(ApiError::Unauthorized {
            sentence: "This is answered only on this machine; OPEN_ADMIN=true opens it to everybody",
        })
    }
}
