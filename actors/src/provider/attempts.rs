//! How often, and of whom, one reply is asked for. Pure.
//!
//! One state machine for what comes before the first token and after it: a failure exhausts a model
//! or not, and the next try is of the same model, of the next one, or is not made.

use std::time::Duration;

use super::{UpstreamError, UpstreamErrorKind};

/// What an operator chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Requests for one reply, the first included; at least 1.
    pub attempts: u32,
    /// Whether a reply that broke off is continued.
    pub repair: MidstreamRepair,
    /// How long to wait.
    pub waits: RetryWaits,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 6,
            repair: MidstreamRepair::On,
            waits: RetryWaits::default(),
        }
    }
}

/// Whether a reply that broke off is continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MidstreamRepair {
    /// By a new request that carries what there is.
    #[default]
    On,
    /// It ends as an error.
    Off,
}

/// Waits between two requests for one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryWaits {
    /// Before the second request of a model; doubles from then on.
    pub first: Duration,
    /// The longest of our own.
    pub longest: Duration,
    /// The longest that an upstream may ask for: a user waits. Beyond it the model counts as gone.
    pub asked_longest: Duration,
}

impl Default for RetryWaits {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(5),
            asked_longest: Duration::from_secs(10),
        }
    }
}

/// Requests of one model while another one is left.
const TRIES: u32 = 2;

/// Requests of the last model.
const TRIES_LAST: u32 = 3;

/// So often a reply that has text waits for a model that is left alone, or has no room.
const WAITS_MOST: u32 = 4;

/// How far a reply has come, over all requests for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// Nothing of it was seen.
    Nothing,
    /// Reasoning alone: the reply can be asked for anew.
    Reasoning,
    /// Text: it can be continued.
    Text,
    /// Parts of tool calls, or its finish reason: nothing can be added to it.
    Unrepeatable,
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Ask again.
    Ask {
        /// Which model, by its place in the list.
        model: usize,
        /// After so long.
        after: Duration,
    },
    /// The failure stands.
    GiveUp,
}

/// What a failure says of the model that was asked.
enum Cue {
    /// It may answer the next time.
    Again,
    /// This model will not answer now, another one may.
    Elsewhere,
    /// Nobody will.
    Never,
}

/// The requests for one reply.
#[derive(Debug)]
pub struct Attempts {
    policy: RetryPolicy,
    models: usize,
    model: usize,
    /// Requests of this model.
    tries: u32,
    /// Requests in all.
    made: u32,
    /// Waits of a reply that has text for a request that was not let out.
    waits: u32,
}

impl Attempts {
    /// Begins with the first of so many models.
    #[must_use]
    pub fn new(policy: RetryPolicy, models: usize) -> Self {
        Self {
            policy,
            models,
            model: 0,
            tries: 0,
            made: 0,
            waits: 0,
        }
    }

    /// Which model is asked.
    #[must_use]
    pub fn model(&self) -> usize {
        self.model
    }

    /// Whether any request went out.
    #[must_use]
    pub fn has_asked(&self) -> bool {
        self.made > 0
    }

    /// A request goes out.
    pub fn asked(&mut self) {
        self.tries += 1;
        self.made += 1;
    }

    /// A request failed, or was not let out; `luck` from 0 to 1 spreads the waits.
    pub fn failed(&mut self, error: &UpstreamError, reached: Reached, luck: f64) -> Next {
        let repairs = self.policy.repair == MidstreamRepair::On;
        if self.made >= self.policy.attempts
            || reached == Reached::Unrepeatable
            || (reached > Reached::Nothing && !repairs)
        {
            return Next::GiveUp;
        }
        let asked = error.retry_after.unwrap_or_default();
        let cue = match cue(error) {
            Cue::Again if asked > self.policy.waits.asked_longest => Cue::Elsewhere,
            cue => cue,
        };
        let is_last = self.model + 1 >= self.models;
        let tries = if is_last { TRIES_LAST } else { TRIES };
        match cue {
            Cue::Never => Next::GiveUp,
            Cue::Again if self.tries < tries => {
                let after = self.own_wait(luck) + asked;
                let model = self.model;
                Next::Ask { model, after }
            }
            // There is a text that somebody reads, and nobody else to go on with it.
            Cue::Elsewhere if is_last && self.waits_out(error, reached) => {
                self.waits += 1;
                let after = self.own_wait(luck) + asked;
                let model = self.model;
                Next::Ask { model, after }
            }
            Cue::Again | Cue::Elsewhere if is_last => Next::GiveUp,
            Cue::Again | Cue::Elsewhere => {
                self.model += 1;
                self.tries = 0;
                Next::Ask {
                    model: self.model,
                    after: Duration::ZERO,
                }
            }
        }
    }

    /// Whether it waits until the model may be asked: it was not, and others of its calls, cut at the
    /// same moment, may be why.
    fn waits_out(&self, error: &UpstreamError, reached: Reached) -> bool {
        let longest = self.policy.waits.asked_longest;
        error.kind == UpstreamErrorKind::Unavailable
            && reached == Reached::Text
            && error.retry_after.is_some_and(|asked| asked <= longest)
            && self.waits < WAITS_MOST
    }

    /// Doubles with each try; the upper half of it is left to luck.
    fn own_wait(&self, luck: f64) -> Duration {
        let waits = self.policy.waits;
        let doublings = self.tries.saturating_sub(1).min(16);
        let most = waits.first.saturating_mul(1 << doublings);
        most.min(waits.longest)
            .mul_f64(0.5 + luck.clamp(0.0, 1.0) / 2.0)
    }
}

fn cue(error: &UpstreamError) -> Cue {
    use UpstreamErrorKind as Kind;
    match error.kind {
        // All models are asked with the same key.
        Kind::Auth | Kind::Credits | Kind::NotConfigured { .. } => Cue::Never,
        // The same request is as bad the next time; another model may take it.
        Kind::Rejected | Kind::ContextTooLong | Kind::AudioTooShort | Kind::TooLarge => {
            Cue::Elsewhere
        }
        Kind::Unavailable => Cue::Elsewhere,
        Kind::Timeout | Kind::RateLimited | Kind::Failed => match error.retryable {
            Some(false) => Cue::Elsewhere,
            Some(true) | None => Cue::Again,
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::provider::Upstream;

    fn error(kind: UpstreamErrorKind, retry_after: Option<u64>) -> UpstreamError {
        UpstreamError {
            upstream: Upstream::OpenRouter,
            kind,
            message: "no".into(),
            retry_after: retry_after.map(Duration::from_secs),
            retryable: None,
            too_long: None,
        }
    }

    fn failed() -> UpstreamError {
        error(UpstreamErrorKind::Failed, None)
    }

    /// Which models are asked when every request fails like this.
    fn asked(
        policy: RetryPolicy,
        models: usize,
        error: &UpstreamError,
        reached: Reached,
    ) -> Vec<usize> {
        let mut attempts = Attempts::new(policy, models);
        let mut asked = vec![0];
        attempts.asked();
        while let Next::Ask { model, .. } = attempts.failed(error, reached, 0.5) {
            assert_eq!(model, attempts.model());
            asked.push(model);
            attempts.asked();
        }
        asked
    }

    #[test]
    fn a_model_is_asked_again_and_then_the_next_one() {
        let policy = RetryPolicy::default();
        for reached in [Reached::Nothing, Reached::Reasoning, Reached::Text] {
            assert_eq!(asked(policy, 1, &failed(), reached), [0, 0, 0]);
            assert_eq!(asked(policy, 2, &failed(), reached), [0, 0, 1, 1, 1]);
            assert_eq!(asked(policy, 9, &failed(), reached), [0, 0, 1, 1, 2, 2]);
        }
    }

    #[test]
    fn what_a_repeat_cannot_cure_is_asked_elsewhere_or_not_at_all() {
        let policy = RetryPolicy::default();
        use UpstreamErrorKind as Kind;
        for (kind, retry_after, models) in [
            (Kind::Rejected, None, &[0, 1, 2][..]),
            (Kind::ContextTooLong, None, &[0, 1, 2]),
            (Kind::Unavailable, Some(3), &[0, 1, 2]),
            (Kind::RateLimited, Some(3_600), &[0, 1, 2]),
            (Kind::RateLimited, Some(1), &[0, 0, 1, 1, 2, 2]),
            (Kind::Timeout, None, &[0, 0, 1, 1, 2, 2]),
            (Kind::Auth, None, &[0]),
            (Kind::Credits, None, &[0]),
        ] {
            let error = error(kind, retry_after);
            assert_eq!(
                asked(policy, 3, &error, Reached::Nothing),
                models,
                "{error:?}"
            );
        }
        let mut never = failed();
        never.retryable = Some(false);
        assert_eq!(asked(policy, 2, &never, Reached::Nothing), [0, 1]);
    }

    #[test]
    fn a_reply_under_way_is_left_alone_where_it_cannot_or_must_not_go_on() {
        let policy = RetryPolicy::default();
        assert_eq!(asked(policy, 3, &failed(), Reached::Unrepeatable), [0]);
        let off = RetryPolicy {
            repair: MidstreamRepair::Off,
            ..policy
        };
        assert_eq!(asked(off, 3, &failed(), Reached::Text), [0]);
        assert_eq!(asked(off, 1, &failed(), Reached::Nothing), [0, 0, 0]);
    }

    #[test]
    fn the_upstreams_wait_is_kept_and_the_next_model_needs_none() {
        let mut attempts = Attempts::new(RetryPolicy::default(), 2);
        attempts.asked();
        let asked = error(UpstreamErrorKind::RateLimited, Some(2));
        let Next::Ask { after, .. } = attempts.failed(&asked, Reached::Nothing, 0.0) else {
            panic!("no more");
        };
        assert_eq!(after, Duration::from_millis(2_100));
        attempts.asked();
        let next = attempts.failed(&asked, Reached::Nothing, 0.0);
        let after = Duration::ZERO;
        assert_eq!(next, Next::Ask { model: 1, after });
    }

    #[test]
    fn a_reply_that_has_text_waits_for_the_last_model_a_few_times() {
        let mut attempts = Attempts::new(RetryPolicy::default(), 2);
        attempts.asked();
        let stopped = error(UpstreamErrorKind::Unavailable, Some(5));
        let next = attempts.failed(&stopped, Reached::Text, 0.0);
        let after = Duration::ZERO;
        assert_eq!(
            next,
            Next::Ask { model: 1, after },
            "another one is asked first"
        );
        for _ in 0..WAITS_MOST {
            let Next::Ask { model: 1, after } = attempts.failed(&stopped, Reached::Text, 0.5)
            else {
                panic!("no more");
            };
            assert!(after > Duration::from_secs(5), "{after:?}");
        }
        assert_eq!(attempts.failed(&stopped, Reached::Text, 0.5), Next::GiveUp);
        let mut attempts = Attempts::new(RetryPolicy::default(), 1);
        attempts.asked();
        let long = error(UpstreamErrorKind::Unavailable, Some(11));
        assert_eq!(attempts.failed(&long, Reached::Text, 0.5), Next::GiveUp);
        for reached in [Reached::Nothing, Reached::Reasoning] {
            assert_eq!(attempts.failed(&stopped, reached, 0.5), Next::GiveUp);
        }
    }

    proptest! {
        #[test]
        fn requests_and_waits_are_bounded(
            attempts in 1u32..20, models in 1usize..12,
            kinds in proptest::collection::vec((0u8..6, proptest::option::of(0u64..30)), 40),
            luck in 0.0f64..=1.0,
        ) {
            use UpstreamErrorKind as Kind;
            let policy = RetryPolicy { attempts, ..RetryPolicy::default() };
            let mut state = Attempts::new(policy, models);
            state.asked();
            let mut made = 1;
            let mut last = 0;
            for (kind, retry_after) in kinds {
                let kind = [Kind::Failed, Kind::Timeout, Kind::RateLimited, Kind::Rejected, Kind::Unavailable, Kind::Auth][usize::from(kind)].clone();
                match state.failed(&error(kind, retry_after), Reached::Text, luck) {
                    Next::GiveUp => break,
                    Next::Ask { model, after } => {
                        prop_assert!(model < models && model >= last);
                        prop_assert!(after <= policy.waits.longest + policy.waits.asked_longest);
                        last = model;
                        made += 1;
                        state.asked();
                    }
                }
            }
            prop_assert!(made <= attempts);
        }
    }
}
