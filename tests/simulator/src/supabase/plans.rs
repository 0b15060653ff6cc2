//! The faults that requests are told to meet, and the writes that are held for later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::auth::Role;
use super::call::Call;
use super::error::Error;
use super::fault::{Fault, LateAnswer, Matcher, Release};
use crate::gate::Gate;
use crate::http::Request;

/// The most used-up plans that are remembered for their counts.
const REMEMBERED: usize = 1024;
/// The most writes that are held; more are forgotten, which a late write may be anyway.
const HELD_MAX: usize = 4096;

/// Names a plan.
pub(crate) type PlanId = u64;

/// A fault, the requests it befalls, and how many of them are left.
#[derive(Debug)]
struct Plan {
    id: PlanId,
    matcher: Matcher,
    fault: Fault,
    /// What a hanging request waits at.
    hung: Gate,
    left: Option<u64>,
    played: u64,
}

/// A write that was taken and is to be carried out later.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) plan: PlanId,
    pub(crate) number: u64,
    pub(crate) request: Arc<Request>,
    pub(crate) call: Call,
    pub(crate) role: Role,
}

/// Every plan, in the order they were made.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    plans: VecDeque<Plan>,
    held: VecDeque<Held>,
    last: PlanId,
    taken: u64,
}

/// What one request meets.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// Waits before it is carried out, in their order.
    pub(crate) waits: Vec<Pause>,
    /// Whether a read gives what an object was before.
    pub(crate) age: Age,
    /// How it ends, if not as usual.
    pub(crate) end: Option<End>,
    /// How many faults these are.
    pub(crate) faults: u64,
}

#[derive(Debug)]
pub(crate) enum Pause {
    For(Duration),
    At(Gate),
}

/// Which version of an object a read gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Age {
    #[default]
    Fresh,
    Stale,
}

/// How a request ends that does not end as usual.
#[derive(Debug)]
pub(crate) enum End {
    Error(Error),
    Close,
    Reset,
    Late(PlanId, LateAnswer, Release),
}

impl Plans {
    pub(crate) fn add(
        &mut self,
        matcher: Matcher,
        fault: Fault,
        times: Option<u64>,
        hung: Gate,
    ) -> PlanId {
        if self.plans.len() >= REMEMBERED {
            self.plans.retain(|plan| plan.left != Some(0));
        }
        self.last += 1;
        self.plans.push_back(Plan {
            id: self.last,
            matcher,
            fault,
            hung,
            left: times,
            played: 0,
        });
        self.last
    }

    /// Takes what a request meets; `oldest` is the oldest version that it could be given.
    pub(crate) fn take(&mut self, call: &Call, haystack: &str, oldest: Age) -> Met {
        let mut met = Met::default();
        for plan in &mut self.plans {
            let skipped = matches!(plan.fault, Fault::Stale) && oldest == Age::Fresh;
            if plan.left == Some(0) || skipped || !plan.matcher.matches(call, haystack) {
                continue;
            }
            plan.left = plan.left.map(|left| left - 1);
            plan.played += 1;
            met.faults += 1;
            match &plan.fault {
                Fault::Latency(time) => met.waits.push(Pause::For(*time)),
                Fault::Hold(gate) => met.waits.push(Pause::At(gate.clone())),
                Fault::Hang => met.waits.push(Pause::At(plan.hung.clone())),
                Fault::Stale => met.age = Age::Stale,
                Fault::Error(error) => met.end = Some(End::Error(error.clone())),
                Fault::Close => met.end = Some(End::Close),
                Fault::Reset => met.end = Some(End::Reset),
                Fault::Late(answer, release) => {
                    met.end = Some(End::Late(plan.id, answer.clone(), *release));
                }
            }
            if met.end.is_some() {
                break;
            }
        }
        met
    }

    /// Whether no plan is in force.
    pub(crate) fn is_idle(&self) -> bool {
        self.plans.iter().all(|plan| plan.left == Some(0))
    }

    pub(crate) fn played(&self, id: PlanId) -> u64 {
        let found = self.plans.iter().find(|plan| plan.id == id);
        found.map_or(0, |plan| plan.played)
    }

    /// Ends a plan, or all; what hangs goes on.
    pub(crate) fn clear(&mut self, id: Option<PlanId>) {
        for plan in &mut self.plans {
            if id.is_none_or(|id| id == plan.id) {
                plan.left = Some(0);
                plan.hung.open();
            }
        }
    }

    /// Holds a write, and returns its number.
    pub(crate) fn hold(
        &mut self,
        plan: PlanId,
        request: Arc<Request>,
        call: Call,
        role: Role,
    ) -> u64 {
        if self.held.len() >= HELD_MAX {
            self.held.pop_front();
        }
        self.taken += 1;
        self.held.push_back(Held {
            plan,
            number: self.taken,
            request,
            call,
            role,
        });
        self.taken
    }

    pub(crate) fn held(&self) -> u64 {
        self.held.len() as u64
    }

    /// Takes the held writes that satisfy a condition, oldest first.
    pub(crate) fn release(&mut self, chosen: impl Fn(&Held) -> bool) -> Vec<Held> {
        let (taken, kept) = std::mem::take(&mut self.held).into_iter().partition(chosen);
        self.held = kept;
        VecDeque::into(taken)
    }

    /// Forgets the held writes of a plan, or all: they are never carried out.
    pub(crate) fn forget(&mut self, id: Option<PlanId>) {
        self.held
            .retain(|held| id.is_some_and(|id| id != held.plan));
    }
}
