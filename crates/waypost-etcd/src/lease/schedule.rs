//! When each lease is renewed, doubted and given up. Deterministic: it takes `now` and what was answered.
//!
//! Everything is counted from the lease's *end*: the moment at which etcd may let it expire at the earliest, which
//! is when the last request that was answered had been *sent*, plus the granted time. With a time to live `T`:
//!
//! | at | what |
//! |---|---|
//! | end − T·2/3, less a jitter of up to T/10 | a renewal is sent |
//! | a sixth of T after that, without an answer | the stream is given up and the renewal sent on a new one |
//! | end − T/2 | the lease is suspect |
//! | end | the lease is lost, unless an answer says otherwise first |

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// The shortest wait for an answer to a renewal before the stream is given up.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(200);
/// The longest.
const LONGEST_PATIENCE: Duration = Duration::from_secs(5);

/// How a lease is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LeaseState {
    /// It is renewed in time.
    Alive {
        /// When it would end if it were not renewed again.
        until: Instant,
    },
    /// Half of its time has gone without a renewal.
    Suspect {
        /// When that was noticed.
        since: Instant,
        /// When it ends if that does not change.
        until: Instant,
        /// What stands in the way, as far as is known.
        cause: Arc<str>,
    },
    /// It is gone. Final: nothing brings a lease back, take a new one.
    Lost {
        /// How that is known.
        cause: LeaseLoss,
    },
}

/// How it is known that a lease is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseLoss {
    /// Its time has passed without a renewal that was answered.
    Expired {
        /// What stood in the way, as far as is known.
        cause: Arc<str>,
    },
    /// etcd answered a renewal with a time to live of zero: it does not know the lease.
    Unknown,
    /// The keeper was dropped: nobody renews the lease.
    KeeperGone,
}

/// What the keeper has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Send a renewal of this lease.
    Renew(i64),
    /// An answer is overdue: use another stream.
    Reopen,
    /// Tell that the lease is suspect.
    Suspect(i64),
    /// Tell that the lease is lost; it has left the schedule.
    Lost(i64),
}

/// The leases and what comes next for each.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    leases: HashMap<i64, Term>,
    /// The next thing to look at of each lease.
    due: BTreeSet<(Instant, i64)>,
}

#[derive(Debug)]
struct Term {
    ttl: Duration,
    end: Instant,
    renew_at: Instant,
    /// When the renewal that is not yet answered was sent on this stream, at the earliest: an answer proves no later
    /// moment than that.
    sent: Option<Instant>,
    /// When an answer to it is overdue.
    overdue: Instant,
    suspect: bool,
    due: Instant,
}

// === impl LeaseLoss ===

impl fmt::Display for LeaseLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { cause } => write!(f, "not renewed in time: {cause}"),
            Self::Unknown => f.write_str("etcd does not know the lease any more"),
            Self::KeeperGone => f.write_str("nobody renews the lease any more"),
        }
    }
}

// === impl Schedule ===

impl Schedule {
    /// Keep a lease of this time to live, granted by a request sent at `granted_at`. `jitter` is in `0.0..1.0`.
    pub(super) fn add(&mut self, id: i64, ttl: Duration, granted_at: Instant, jitter: f64) -> Instant {
        self.remove(id);
        let end = granted_at + ttl;
        let renew_at = renewal(end, ttl, jitter);
        self.due.insert((renew_at, id));
        self.leases
            .insert(id, Term { ttl, end, renew_at, sent: None, overdue: end, suspect: false, due: renew_at });
        end
    }

    pub(super) fn remove(&mut self, id: i64) {
        if let Some(term) = self.leases.remove(&id) {
            self.due.remove(&(term.due, id));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// When [`poll`](Self::poll) has something to say next.
    pub(super) fn wakeup(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// What is due. A lease that is due for renewal is asked for once until it is answered or the stream changes.
    pub(super) fn poll(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut reopen = false;
        while let Some((at, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, id));
            let Some(term) = self.leases.get_mut(&id) else { continue };
            if now >= term.end {
                self.leases.remove(&id);
                actions.push(Action::Lost(id));
                continue;
            }
            if !term.suspect && now >= term.suspect_at() {
                term.suspect = true;
                actions.push(Action::Suspect(id));
            }
            match term.sent {
                None if now >= term.renew_at => {
                    term.sent = Some(now);
                    term.overdue = now + term.patience();
                    actions.push(Action::Renew(id));
                }
                Some(_) if now >= term.overdue => {
                    reopen = true;
                    term.overdue = now + term.patience();
                }
                _ => {}
            }
            term.due = term.next();
            self.due.insert((term.due, id));
        }
        if reopen {
            actions.push(Action::Reopen);
        }
        actions
    }

    /// A new stream is open: every renewal that is due or was not answered is sent on it.
    pub(super) fn reopened(&mut self, now: Instant) -> Vec<i64> {
        let mut again = Vec::new();
        for (id, term) in &mut self.leases {
            if term.sent.is_some() || now >= term.renew_at {
                self.due.remove(&(term.due, *id));
                term.sent = Some(now);
                term.overdue = now + term.patience();
                term.due = term.next();
                self.due.insert((term.due, *id));
                again.push(*id);
            }
        }
        again
    }

    /// etcd answered a renewal. `ttl` is the granted time anew, or zero when it does not know the lease. Answers
    /// the new end; `None` when the lease is lost or not ours.
    pub(super) fn answered(&mut self, id: i64, ttl: Duration, now: Instant, jitter: f64) -> Option<Renewed> {
        let term = self.leases.get_mut(&id)?;
        self.due.remove(&(term.due, id));
        if ttl.is_zero() {
            self.leases.remove(&id);
            return Some(Renewed::Lost);
        }
        // Counted from the sending: the server cannot have renewed it earlier than that.
        let sent = term.sent.take().unwrap_or(now);
        term.ttl = ttl;
        term.end = term.end.max(sent + ttl);
        term.renew_at = renewal(term.end, ttl, jitter);
        term.suspect = false;
        term.due = term.next();
        self.due.insert((term.due, id));
        Some(Renewed::Until(term.end))
    }

    /// How long an answer to a renewal may take: that of the lease in the greatest hurry.
    pub(super) fn patience(&self) -> Duration {
        self.leases.values().map(Term::patience).min().unwrap_or(LONGEST_PATIENCE)
    }

    pub(super) fn end(&self, id: i64) -> Option<Instant> {
        self.leases.get(&id).map(|term| term.end)
    }
}

/// What an answer to a renewal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    Until(Instant),
    Lost,
}

// === impl Term ===

impl Term {
    fn suspect_at(&self) -> Instant {
        before(self.end, self.ttl / 2)
    }

    fn patience(&self) -> Duration {
        (self.ttl / 6).clamp(SHORTEST_PATIENCE, LONGEST_PATIENCE)
    }

    fn next(&self) -> Instant {
        let step = match self.sent {
            None => self.renew_at,
            Some(_) => self.overdue,
        };
        let step = if self.suspect { step } else { step.min(self.suspect_at()) };
        step.min(self.end)
    }
}

fn renewal(end: Instant, ttl: Duration, jitter: f64) -> Instant {
    before(end, ttl * 2 / 3 + (ttl / 10).mul_f64(jitter.clamp(0.0, 1.0)))
}

fn before(instant: Instant, by: Duration) -> Instant {
    instant.checked_sub(by).unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL: Duration = Duration::from_secs(9);

    fn start() -> (Schedule, Instant) {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        schedule.add(1, TTL, now, 0.0);
        (schedule, now)
    }

    #[test]
    fn renews_at_a_third_counted_from_the_end() {
        let (mut schedule, now) = start();
        assert_eq!(schedule.wakeup(), Some(now + TTL / 3));
        assert_eq!(schedule.poll(now + TTL / 3), [Action::Renew(1)]);
        // Answered two seconds later: the new end counts from the sending.
        let renewed = schedule.answered(1, TTL, now + TTL / 3 + Duration::from_secs(2), 0.0);
        assert_eq!(renewed, Some(Renewed::Until(now + TTL / 3 + TTL)));
        assert_eq!(schedule.wakeup(), Some(now + TTL / 3 + TTL / 3));
    }

    #[test]
    fn silence_reopens_then_suspects_then_loses() {
        let (mut schedule, now) = start();
        let mut seen = Vec::new();
        let mut at = now;
        while let Some(next) = schedule.wakeup() {
            at = next;
            seen.extend(schedule.poll(at).into_iter().map(|action| (action, at - now)));
        }
        assert_eq!(seen[0], (Action::Renew(1), TTL / 3));
        assert!(seen.contains(&(Action::Suspect(1), TTL / 2)), "{seen:?}");
        assert!(seen.iter().filter(|(action, _)| *action == Action::Reopen).count() >= 2, "{seen:?}");
        assert_eq!(seen.last(), Some(&(Action::Lost(1), TTL)));
        assert_eq!(at, now + TTL);
    }

    #[test]
    fn ttl_zero_is_lost() {
        let (mut schedule, now) = start();
        schedule.poll(now + TTL / 3);
        assert_eq!(schedule.answered(1, Duration::ZERO, now + TTL / 3, 0.0), Some(Renewed::Lost));
        assert!(schedule.is_empty());
    }

    #[test]
    fn a_process_that_slept_past_the_end_learns_it_at_once() {
        let (mut schedule, now) = start();
        assert_eq!(schedule.poll(now + TTL * 10), [Action::Lost(1)]);
    }

    proptest! {
        /// Whatever is answered and whenever, a lease is never called alive past the end that a server counting
        /// from the arrival of the last renewal would allow, and it leaves the schedule only once.
        #[test]
        fn never_alive_past_its_end(steps in proptest::collection::vec((0u64..4000, 0u8..4), 1..60)) {
            let start = Instant::now();
            let mut now = start;
            let mut schedule = Schedule::default();
            let mut end = schedule.add(7, TTL, now, 0.5);
            let mut lost = 0;
            for (millis, what) in steps {
                now += Duration::from_millis(millis);
                for action in schedule.poll(now) {
                    match action {
                        Action::Reopen => { schedule.reopened(now); }
                        Action::Lost(7) => { lost += 1; prop_assert!(now >= end); }
                        _ => {}
                    }
                }
                if what == 0 && let Some(Renewed::Until(until)) = schedule.answered(7, TTL, now, 0.1) {
                    prop_assert!(until >= end);
                    prop_assert!(until <= end.max(now + TTL));
                    end = until;
                }
                if lost == 0 {
                    prop_assert!(schedule.wakeup().is_some_and(|at| at <= end));
                }
            }
            prop_assert!(lost <= 1);
        }
    }
}
