//! When a call is sent once more: the rules of gRFC A6, without a clock.

use crate::backoff::Backoff;
use crate::budget::Budget;
use crate::code::CodeSet;
use crate::service_config::{HedgingRule, RetryRule};
use crate::settings::RetryPolicy;
use http::{HeaderMap, HeaderName};
use std::time::{Duration, Instant};
use tonic::Code;

/// What a server says of further attempts, by `grpc-retry-pushback-ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushback {
    None,
    /// The next one is to come after so long.
    After(Duration),
    /// There is to be none: it was negative, or is no number.
    Never,
}

/// The retries of one call, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Retries {
    codes: CodeSet,
    max_attempts: u32,
    backoff: Backoff,
    /// A retry that goes to an endpoint which the call has not tried does not wait.
    at_once_elsewhere: bool,
    /// Waits since the call began, or since a server has named one.
    waits: u32,
}

/// Attempts of one call that certainly were not processed. They cost nothing of what the call may be tried otherwise, but for refusals: gRFC
/// A6 sends a call that the server has seen once more for nothing, since whoever refuses is likely to be overloaded.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Unprocessed {
    times: u32,
    refused: u32,
}

/// Who has seen to it that an attempt was not processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotProcessedBy {
    /// It was not sent, or the connection was lost or taken leave of before the server could have it.
    Connection,
    /// The server has refused it.
    Server,
}

/// The hedges of one call, side by side.
#[derive(Debug, Clone)]
pub(crate) struct Hedges {
    rule: HedgingRule,
    sent: u32,
    /// When the next one is due; `None` if there is to be none.
    due: Option<Instant>,
}

const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// gRFC A6.
const JITTER: f64 = 0.2;
/// A call that so many endpoints in a row have not even looked at is given up.
const MOST_UNPROCESSED: u32 = 16;

// === impl Pushback ===

impl Pushback {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(PUSHBACK) else { return Self::None };
        // Milliseconds as text, an int32 by A6. More than fits is longer than any call, so it ends the retries as well.
        let number = value.to_str().ok().and_then(|text| text.parse::<i32>().ok());
        number
            .and_then(|number| u64::try_from(number).ok())
            .map_or(Self::Never, |ms| Self::After(Duration::from_millis(ms)))
    }
}

// === impl Retries ===

impl Retries {
    /// Of calls that are marked idempotent.
    pub(crate) fn marked(policy: &RetryPolicy) -> Self {
        Self {
            codes: Code::Unavailable.into(),
            max_attempts: policy.max_attempts,
            backoff: policy.backoff,
            at_once_elsewhere: true,
            waits: 0,
        }
    }

    /// Of calls of a method with a policy.
    pub(crate) fn ruled(rule: &RetryRule) -> Self {
        let backoff = Backoff {
            base: rule.initial_backoff,
            factor: rule.backoff_multiplier,
            max: rule.max_backoff,
            jitter: JITTER,
        };
        let (codes, max_attempts) = (rule.codes, rule.max_attempts);
        Self { codes, max_attempts, backoff, at_once_elsewhere: false, waits: 0 }
    }

    /// Whether not to find an endpoint is an attempt, of which `made` were there before.
    pub(crate) fn include_unplaced(&self, made: u32) -> bool {
        !self.at_once_elsewhere || made > 0
    }

    /// The `made`th attempt has failed: how long to wait before the next, or `None` for no other. `elsewhere` says whether it
    /// would go to an endpoint that was not tried; `random` is uniform in `0.0..1.0`.
    ///
    /// A failure costs a token of the budget whether or not it is tried again.
    pub(crate) fn after(
        &mut self,
        (code, pushback): (Code, Pushback),
        made: u32,
        elsewhere: bool,
        budget: &Budget,
        now: Instant,
        random: f64,
    ) -> Option<Duration> {
        let retryable = self.codes.contains(code);
        if !retryable && pushback != Pushback::Never {
            return None;
        }
        let granted = budget.withdraw(now);
        if !retryable || !granted || made >= self.max_attempts {
            return None;
        }
        match pushback {
            Pushback::Never => None,
            Pushback::After(wait) => {
                self.waits = 0;
                Some(wait)
            }
            Pushback::None if self.at_once_elsewhere && elsewhere => Some(Duration::ZERO),
            Pushback::None => {
                self.waits += 1;
                Some(self.backoff.delay(self.waits, random))
            }
        }
    }
}

// === impl Unprocessed ===

impl Unprocessed {
    /// Another attempt was not processed: whether the call may be sent once more. From the second refusal on each costs a token of the
    /// budget.
    pub(crate) fn another(&mut self, by: NotProcessedBy, budget: &Budget, now: Instant) -> bool {
        self.times += 1;
        let free = by == NotProcessedBy::Connection || self.refused == 0;
        self.refused += u32::from(by == NotProcessedBy::Server);
        self.times < MOST_UNPROCESSED && (free || budget.withdraw(now))
    }

    /// How many there were.
    pub(crate) fn times(self) -> u32 {
        self.times
    }
}

// === impl Hedges ===

impl Hedges {
    /// Nothing is sent yet; the first attempt is due.
    pub(crate) fn new(rule: HedgingRule, now: Instant) -> Self {
        Self { rule, sent: 0, due: Some(now) }
    }

    /// When the next attempt is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// An attempt is on its way. Answers its number.
    pub(crate) fn sent(&mut self, now: Instant) -> u32 {
        self.sent += 1;
        self.due = (self.sent < self.rule.max_attempts).then(|| now.checked_add(self.rule.delay)).flatten();
        self.sent
    }

    /// There is nowhere to send another attempt to, or no budget.
    pub(crate) fn stop(&mut self) {
        self.due = None;
    }

    /// An attempt has failed. Says whether the call may go on.
    pub(crate) fn failed(
        &mut self,
        (code, pushback): (Code, Pushback),
        budget: &Budget,
        now: Instant,
    ) -> bool {
        let non_fatal = self.rule.non_fatal.contains(code);
        if non_fatal || pushback == Pushback::Never {
            budget.withdraw(now);
        }
        if !non_fatal {
            return false;
        }
        let more = self.sent < self.rule.max_attempts;
        match pushback {
            // For the whole call, whatever servers of other attempts say.
            Pushback::Never => (self.due, self.rule.max_attempts) = (None, self.sent),
            Pushback::After(wait) if more => self.due = now.checked_add(wait),
            // The next in line, at once.
            Pushback::None if more && self.due.is_some() => self.due = Some(now),
            _ => {}
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn rule() -> RetryRule {
        RetryRule {
            max_attempts: 5,
            initial_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_millis(350),
            backoff_multiplier: 2.0,
            codes: Code::Unavailable.into(),
        }
    }

    fn budget(now: Instant) -> Budget {
        Budget::new(&RetryPolicy::default().with_budget(10, 0.1, 0), now)
    }

    const FAILED: (Code, Pushback) = (Code::Unavailable, Pushback::None);

    #[test]
    fn waits_grow_with_jitter_up_to_the_longest_and_attempts_end() {
        let now = Instant::now();
        for (random, percent) in [(0.0, 80), (0.5, 100), (1.0, 120)] {
            let (mut retries, budget) = (Retries::ruled(&rule()), budget(now));
            let waits: Vec<_> =
                (1..=5).map(|made| retries.after(FAILED, made, true, &budget, now, random)).collect();
            let expected =
                [100, 200, 350, 350].map(|ms: u64| Some(Duration::from_millis(ms * percent / 100)));
            assert_eq!(waits[..4], expected);
            assert_eq!(waits[4], None, "the fifth attempt was the last");
        }
    }

    #[test]
    fn a_server_names_the_wait_and_the_next_ones_begin_anew() {
        let now = Instant::now();
        let (mut retries, budget) = (Retries::ruled(&rule()), budget(now));
        let mut after =
            |made, pushback| retries.after((Code::Unavailable, pushback), made, true, &budget, now, 0.5);
        assert_eq!(after(1, Pushback::None), Some(Duration::from_millis(100)));
        assert_eq!(after(2, Pushback::After(Duration::from_secs(7))), Some(Duration::from_secs(7)));
        assert_eq!(after(3, Pushback::None), Some(Duration::from_millis(100)));
        assert_eq!(after(4, Pushback::Never), None);
    }

    #[test]
    fn what_is_not_retryable_costs_nothing_unless_the_server_forbids() {
        let now = Instant::now();
        let (mut retries, budget) = (Retries::ruled(&rule()), budget(now));
        for _ in 0..20 {
            assert_eq!(retries.after((Code::Internal, Pushback::None), 1, true, &budget, now, 0.5), None);
        }
        assert!(budget.allows());
        for _ in 0..5 {
            assert_eq!(retries.after((Code::Internal, Pushback::Never), 1, true, &budget, now, 0.5), None);
        }
        assert!(!budget.allows());
        assert_eq!(retries.after(FAILED, 1, true, &budget, now, 0.5), None, "throttled");
    }

    #[test]
    fn a_marked_call_goes_elsewhere_at_once_and_waits_where_it_was() {
        let now = Instant::now();
        let (mut retries, budget) = (Retries::marked(&RetryPolicy::default()), budget(now));
        assert_eq!(retries.after(FAILED, 1, true, &budget, now, 0.5), Some(Duration::ZERO));
        assert!(retries.after(FAILED, 2, false, &budget, now, 0.5).unwrap() > Duration::ZERO);
    }

    #[test]
    fn what_was_not_processed_is_free_but_for_what_servers_refuse_again() {
        let now = Instant::now();
        let (mut unprocessed, budget) = (Unprocessed::default(), budget(now));
        let granted: Vec<_> =
            (0..16).map(|_| unprocessed.another(NotProcessedBy::Connection, &budget, now)).collect();
        assert_eq!((granted.iter().filter(|granted| **granted).count(), granted[15]), (15, false));
        let mut refused = Unprocessed::default();
        let granted: Vec<_> = (0..7).map(|_| refused.another(NotProcessedBy::Server, &budget, now)).collect();
        assert_eq!(
            granted,
            [true, true, true, true, true, false, false],
            "one, and as many as the budget allows"
        );
        assert!(refused.another(NotProcessedBy::Connection, &budget, now));
        assert!(
            Unprocessed::default().another(NotProcessedBy::Server, &budget, now),
            "the first of a call is free"
        );
    }

    #[test]
    fn to_find_no_endpoint_is_an_attempt_where_a_policy_says_what_follows() {
        assert!(Retries::ruled(&rule()).include_unplaced(0));
        let marked = Retries::marked(&RetryPolicy::default());
        assert_eq!((marked.include_unplaced(0), marked.include_unplaced(1)), (false, true));
    }

    #[test]
    fn hedges_come_one_by_one_and_sooner_after_a_failure() {
        let now = Instant::now();
        let budget = budget(now);
        let second = Duration::from_secs(1);
        let rule = HedgingRule { max_attempts: 3, delay: second, non_fatal: Code::Unavailable.into() };
        let mut hedges = Hedges::new(rule.clone(), now);
        assert_eq!((hedges.due(), hedges.sent(now)), (Some(now), 1));
        assert_eq!(hedges.due(), Some(now + second));
        assert!(hedges.failed(FAILED, &budget, now));
        assert_eq!((hedges.due(), hedges.sent(now)), (Some(now), 2));
        assert!(hedges.failed((Code::Unavailable, Pushback::After(second * 5)), &budget, now));
        assert_eq!((hedges.due(), hedges.sent(now), hedges.due()), (Some(now + second * 5), 3, None));
        assert!(!hedges.failed((Code::Internal, Pushback::None), &budget, now));
        let mut forbidden = Hedges::new(rule, now);
        forbidden.sent(now);
        assert!(forbidden.failed((Code::Unavailable, Pushback::Never), &budget, now));
        assert_eq!(forbidden.due(), None);
        assert!(forbidden.failed(FAILED, &budget, now));
        assert_eq!(forbidden.due(), None, "a failure elsewhere does not lift what a server has forbidden");
        assert!(forbidden.failed((Code::Unavailable, Pushback::After(second)), &budget, now));
        assert_eq!(forbidden.due(), None, "nor does a server that would take another later");
    }

    #[test]
    fn pushback_is_read_as_a6_says() {
        let read = |text| {
            let mut headers = HeaderMap::new();
            headers.insert(PUSHBACK, HeaderValue::from_static(text));
            Pushback::of(&headers)
        };
        assert_eq!(read("0"), Pushback::After(Duration::ZERO));
        assert_eq!(read("250"), Pushback::After(Duration::from_millis(250)));
        for never in ["-1", "", "soon", "1.5", "99999999999"] {
            assert_eq!(read(never), Pushback::Never, "{never}");
        }
        assert_eq!(Pushback::of(&HeaderMap::new()), Pushback::None);
    }
}
