//! What the repeats for one reply cost.
//!
//! A request that the upstream had work with, and that came to nothing, makes the next one a repeat:
//! it is paid for out of what all replies share. No work is an answer that blames our request, and,
//! once for a reply, one that adds nothing to it. Nor is the first continuation of a reply that has
//! text paid for: there is one for a reply at most, and many replies that are cut at once must not be
//! lost for it. What was paid comes back if the repeat ends the reply well, is not made, or is not
//! waited for.
//!
//! So in the end an upstream that fails each time gets one request for a reply, one that cuts each
//! time gets two, and one that helps with the third gets three, and a few more: what the budget holds
//! at first, and what the clock and good replies bring.

use std::sync::Arc;

use crate::provider::{
    UpstreamError, UpstreamErrorKind,
    attempts::Reached,
    protection::{Payment, Protection},
};

/// The payments for one reply.
pub(super) struct Account {
    protection: Arc<Protection>,
    /// For the request to be made, or under way.
    payment: Option<Payment>,
    repeats: Repeats,
    continuation: First,
}

/// Whether what comes next repeats something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repeats {
    /// The upstream had no work so far.
    Nothing,
    Work,
}

/// The first continuation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Left,
    Used,
}

impl Account {
    pub(super) fn new(protection: Arc<Protection>) -> Self {
        Self {
            protection,
            payment: None,
            repeats: Repeats::Nothing,
            continuation: First::Left,
        }
    }

    /// Pays for the next request; `false`: it must not be made.
    pub(super) fn pay(&mut self, reached: Reached) -> bool {
        let is_first = reached == Reached::Text && self.continuation == First::Left;
        if self.repeats == Repeats::Nothing || self.payment.is_some() || is_first {
            return true;
        }
        self.payment = self.protection.pay();
        self.payment.is_some()
    }

    /// A request failed that was made when the reply had come so far.
    pub(super) fn failed(&mut self, error: &UpstreamError, before: Reached) {
        if is_no_work(&error.kind) {
            return;
        }
        self.repeats = Repeats::Work;
        if before == Reached::Text {
            self.continuation = First::Used;
        }
        if let Some(payment) = self.payment.take() {
            payment.lose();
        }
    }

    /// The reply is whole.
    pub(super) fn ended_well(self) {
        if self.repeats == Repeats::Nothing {
            self.protection.earned();
        }
    }
}

/// Whether the upstream said no more than that our request is bad.
fn is_no_work(kind: &UpstreamErrorKind) -> bool {
    match kind {
        UpstreamErrorKind::Rejected
        | UpstreamErrorKind::ContextTooLong
        | UpstreamErrorKind::AudioTooShort
        | UpstreamErrorKind::TooLarge
        | UpstreamErrorKind::Auth
        | UpstreamErrorKind::Credits
        | UpstreamErrorKind::NotConfigured { .. } => true,
        UpstreamErrorKind::Timeout
        | UpstreamErrorKind::RateLimited
        | UpstreamErrorKind::Failed
        | UpstreamErrorKind::Unavailable => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{openrouter::failure, protection::ProtectionPolicy};

    fn protection(repeats: u32) -> Arc<Protection> {
        Arc::new(Protection::new(ProtectionPolicy {
            repeats,
            ..ProtectionPolicy::default()
        }))
    }

    fn rejected() -> UpstreamError {
        UpstreamError {
            kind: UpstreamErrorKind::Rejected,
            ..failure::failed("no")
        }
    }

    fn left(protection: &Protection) -> u64 {
        protection.state().repeats_left
    }

    #[test]
    fn what_is_not_made_or_not_waited_for_costs_nothing() {
        let shared = protection(3);
        for _ in 0..10 {
            let mut account = Account::new(shared.clone());
            account.failed(&failure::failed("no"), Reached::Nothing);
            assert!(account.pay(Reached::Nothing));
            // It found no room: what was paid is kept for the next one.
            assert!(account.pay(Reached::Nothing));
            assert_eq!(left(&shared), 2);
            // And is stopped by its user.
        }
        assert_eq!(left(&shared), 3);
    }

    #[test]
    fn what_our_request_is_blamed_for_costs_nothing() {
        let shared = protection(1);
        for _ in 0..10 {
            let mut account = Account::new(shared.clone());
            for _ in 0..5 {
                account.failed(&rejected(), Reached::Nothing);
                assert!(account.pay(Reached::Nothing));
                assert_eq!(left(&shared), 1);
            }
        }
        // Between failures that do cost it is no way around them.
        let mut account = Account::new(shared.clone());
        account.failed(&failure::failed("no"), Reached::Nothing);
        assert!(account.pay(Reached::Nothing));
        account.failed(&rejected(), Reached::Nothing);
        assert!(account.pay(Reached::Nothing));
        account.failed(&failure::failed("no"), Reached::Nothing);
        assert!(!account.pay(Reached::Nothing));
        drop(account);
        assert_eq!(left(&shared), 0);
    }

    #[test]
    fn the_first_continuation_of_each_reply_is_made_whatever_is_left() {
        let shared = protection(0);
        for _ in 0..1_000 {
            let mut account = Account::new(shared.clone());
            account.failed(&failure::failed("cut"), Reached::Nothing);
            assert!(account.pay(Reached::Text));
            account.failed(&failure::failed("cut"), Reached::Text);
            assert!(!account.pay(Reached::Text));
        }
    }

    #[test]
    fn of_the_repeats_for_a_reply_that_ends_well_the_last_one_is_paid_back() {
        let shared = protection(10);
        let mut account = Account::new(shared.clone());
        account.failed(&failure::failed("cut"), Reached::Nothing);
        for _ in 0..4 {
            assert!(account.pay(Reached::Text));
            account.failed(&failure::failed("cut"), Reached::Text);
        }
        assert!(account.pay(Reached::Text));
        assert_eq!(left(&shared), 6);
        account.ended_well();
        assert_eq!(left(&shared), 7);
    }
}
