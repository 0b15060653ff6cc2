//! The supervisor: starts conversations, starts them anew after a death, bounds their memory.
//!
//! It is the only place where a conversation is started, so two owners of one cannot be. It holds
//! a factory, not actors: a new life is read from the log. It never sees a token.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message};

use crate::{
    conversation::{Conversation, command::Shed},
    error::EngineError,
    id::{ConversationId, Origin},
    limits,
    shared::{Home, Listed, Placement, Shared, Vitals},
};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
    /// Engine threads; empty where conversations live with their callers.
    homes: Vec<Arc<Home>>,
    generation: u64,
    deaths: HashMap<ConversationId, Deaths>,
    epoch: Instant,
}

#[derive(Debug)]
struct Deaths {
    count: usize,
    first: Instant,
}

/// Finds a conversation's actor, starting one if none lives.
#[derive(Debug, Message)]
#[rtype(result = "Result<Addr<Conversation>, EngineError>")]
pub(crate) struct Find {
    pub(crate) id: ConversationId,
    pub(crate) origin: Origin,
    /// The asker's own thread, where it is one that conversations may live on.
    pub(crate) home: Option<Arc<Home>>,
}

/// A conversation's actor has stopped.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Stopped {
    pub(crate) id: ConversationId,
    pub(crate) end: End,
}

/// The closed list of ways a conversation's actor ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Nobody needed it, or its history could not be read.
    Idle,
    /// The log gave no clear answer: it is to be read again.
    Failed,
    /// It panicked, or its thread ended.
    Died,
}

impl Supervisor {
    pub(crate) fn new(shared: Arc<Shared>, homes: Vec<Arc<Home>>) -> Self {
        Self {
            shared,
            homes,
            // Generations of two processes must differ in logs, too.
            generation: 0,
            deaths: HashMap::new(),
            epoch: Instant::now(),
        }
    }

    fn home(&self, id: &ConversationId, asker: Option<Arc<Home>>) -> Option<Arc<Home>> {
        match self.shared.config.placement {
            Placement::Caller => asker.or_else(|| self.homes.first().cloned()),
            Placement::Engine(_) => {
                let hash = id
                    .as_str()
                    .bytes()
                    .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
                    });
                // FNV's low bits are weak for short strings: mix the high half in.
                let slot = usize::try_from((hash ^ (hash >> 32)) % self.homes.len().max(1) as u64);
                self.homes.get(slot.unwrap_or(0)).cloned()
            }
        }
    }

    /// Whether a conversation that keeps dying may be started once more.
    fn within_budget(&self, id: &ConversationId) -> bool {
        self.deaths.get(id).is_none_or(|deaths| {
            deaths.count < limits::RESTARTS_MAX || deaths.first.elapsed() > limits::RESTART_WINDOW
        })
    }

    fn tick(&mut self, _: &mut Context<Self>) {
        self.deaths
            .retain(|_, deaths| deaths.first.elapsed() <= limits::RESTART_WINDOW);
        let resident = self.shared.resident.load(Ordering::Relaxed);
        self.shared
            .metrics
            .resident_bytes
            .set(i64::try_from(resident).unwrap_or(i64::MAX));
        if resident > self.shared.config.resident_bytes_max {
            self.shed(resident);
        }
    }

    /// Asks the conversations unused longest to let go of their history.
    fn shed(&self, resident: usize) {
        let mut excess = resident - self.shared.config.resident_bytes_max;
        let mut all = self.shared.directory.all();
        all.sort_by_key(|listed| listed.vitals.active_ms());
        let mut asked = 0_usize;
        for listed in all {
            let bytes = listed.vitals.bytes.load(Ordering::Relaxed);
            if bytes == 0 {
                continue;
            }
            if listed.addr.try_send(Shed).is_ok() {
                asked += 1;
            }
            excess = excess.saturating_sub(bytes);
            if excess == 0 {
                break;
            }
        }
        tracing::debug!(resident, asked, "shedding histories");
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(limits::SUPERVISOR_MAILBOX);
        ctx.run_interval(Duration::from_secs(1), Self::tick);
    }
}

impl Handler<Find> for Supervisor {
    type Result = Result<Addr<Conversation>, EngineError>;

    fn handle(&mut self, msg: Find, _: &mut Self::Context) -> Self::Result {
        if let Some(living) = self.shared.directory.get(&msg.id) {
            return Ok(living);
        }
        if !self.within_budget(&msg.id) {
            return Err(EngineError::Restarted);
        }
        let home = self
            .home(&msg.id, msg.home)
            .ok_or(EngineError::Overloaded)?;
        self.generation += 1;
        let generation = self.generation;
        let vitals = Arc::new(Vitals::new(self.epoch));
        let factory = {
            let (id, origin, shared) = (msg.id.clone(), msg.origin, self.shared.clone());
            let (home, vitals) = (home.clone(), vitals.clone());
            move |_: &mut Context<Conversation>| {
                Conversation::new(id, origin, generation, shared, home, vitals)
            }
        };
        let addr = Conversation::start_in_arbiter(&home.arbiter, factory);
        self.shared.directory.insert(
            msg.id,
            Listed {
                addr: addr.clone(),
                generation,
                vitals,
            },
        );
        Ok(addr)
    }
}

impl Handler<Stopped> for Supervisor {
    type Result = ();

    fn handle(&mut self, msg: Stopped, _: &mut Self::Context) {
        if msg.end == End::Idle {
            return;
        }
        tracing::error!(conversation = %msg.id, end = ?msg.end, "a conversation's actor died");
        let deaths = self.deaths.entry(msg.id).or_insert_with(|| Deaths {
            count: 0,
            first: Instant::now(),
        });
        if deaths.first.elapsed() > limits::RESTART_WINDOW {
            deaths.count = 0;
            deaths.first = Instant::now();
        }
        deaths.count += 1;
    }
}
