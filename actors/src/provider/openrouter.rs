//! OpenRouter, and whatever else serves chat completions in its shape.
//!
//! The actor sends requests; [`chunk`] and [`reply`] are pure and know the wire.

use std::sync::Arc;

use actix::{Actor, Context, Handler};

pub use self::config::{Deadlines, OpenRouterConfig, OpenRouterConfigError};
use self::{asking::Asking, config::Endpoint};
use super::{Generate, Generation, protection::Protection};

mod account;
mod asking;
mod call;
pub mod chunk;
mod config;
mod failure;
pub mod models;
mod passage;
mod raw;
pub mod reply;
mod shape;
mod watch;

/// Asks the upstream for replies; one for each arbiter thread, with its own connections, so that
/// a token does not cross threads.
///
/// Owns no state of a reply: each is one task, ended by its [`Generation`] guard, and answers to
/// the recipient in [`Generate`]. What the calls of all threads share is in [`Protection`]. Dies
/// only with its arbiter.
#[derive(Debug)]
pub struct OpenRouter {
    endpoint: Arc<Endpoint>,
    protection: Arc<Protection>,
}

impl OpenRouter {
    /// Checks the configuration and sets up an HTTP client; does not connect.
    ///
    /// # Errors
    ///
    /// Names the value that is wrong.
    pub fn new(
        config: &OpenRouterConfig,
        protection: Arc<Protection>,
    ) -> Result<Self, OpenRouterConfigError> {
        let endpoint = Arc::new(Endpoint::new(config)?);
        Ok(Self {
            endpoint,
            protection,
        })
    }
}

impl Actor for OpenRouter {
    type Context = Context<Self>;
}

impl Handler<Generate> for OpenRouter {
    type Result = Generation;

    fn handle(&mut self, generate: Generate, _: &mut Context<Self>) -> Generation {
        let asking = Asking {
            endpoint: Arc::clone(&self.endpoint),
            protection: Arc::clone(&self.protection),
            generate,
        };
        // A task of its own, not `ctx.spawn`: an actor polls all its futures whenever one wakes.
        Generation::new(tokio::task::spawn_local(asking.run()).abort_handle())
    }
}
