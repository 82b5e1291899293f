//! The empty set: whether to believe it.
//!
//! Instances that all vanish at once by lease expiry rather tell of a stalled etcd, or of a network between it and the
//! fleet, than of a fleet that died in one moment. Consumers that dropped their last endpoints for it turned a hiccup
//! into an outage (nacos #493, etcd #15247). So such a set is held for a bounded grace. A set that is emptied by
//! explicit deletes is believed at once.
//!
//! A DELETE does not say why. But an expired lease is gone, and the lease of a key that was deleted by its owner or by
//! hand is still there, so one question per lease tells. A lease that was revoked counts as expired.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use imbl::OrdMap;
use waypost_model::{Instance, InstanceKey, Scope};

use crate::core::fold::Fold;
use crate::core::{Moment, utc};

/// Instances that vanish within this time of one another, the last of them, vanish "at once": leases of equal TTL that
/// all miss their renewals expire spread over a third of the TTL, and etcd looks for expired ones every 500 ms.
pub(crate) const BURST: Duration = Duration::from_secs(10);

/// What was removed within the last [`BURST`] and did not come back.
pub(crate) struct Burst {
    removed: HashMap<InstanceKey, Removed>,
    swept: Option<Instant>,
}

#[derive(Clone)]
pub(crate) struct Removed {
    instance: Arc<Instance>,
    /// 0: its key had none.
    lease: i64,
    at: Instant,
}

/// Where the set is between present and empty.
pub(crate) enum Grace {
    /// What is live is what is shown.
    Idle,
    /// The set is empty; what it was is shown until it is known whether the leases are gone.
    Probing { probe: u64, suspects: HashMap<InstanceKey, Removed> },
    /// The leases are gone; what expired is shown as stale until `until`.
    Holding(Hold),
}

pub(crate) struct Hold {
    pub(crate) held: OrdMap<InstanceKey, Arc<Instance>>,
    pub(crate) since: std::time::SystemTime,
    pub(crate) until: Instant,
    pub(crate) cause: Arc<str>,
}

/// What etcd answered about leases.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// Leases that still are: their keys were deleted explicitly.
    pub(crate) alive: HashSet<i64>,
    /// Why some leases could not be asked after; those count as gone.
    pub(crate) failed: Option<Arc<str>>,
}

// === impl Burst ===

impl Burst {
    pub(crate) fn new() -> Self {
        Self { removed: HashMap::new(), swept: None }
    }

    pub(crate) fn removed(&mut self, key: InstanceKey, instance: Arc<Instance>, lease: i64, now: Instant) {
        // Once a second bounds both the memory (what was removed in eleven seconds) and the cost per removal.
        if self.swept.is_none_or(|swept| now.duration_since(swept) >= Duration::from_secs(1)) {
            self.sweep(now);
        }
        self.removed.insert(key, Removed { instance, lease, at: now });
    }

    pub(crate) fn came(&mut self, key: &InstanceKey) {
        if !self.removed.is_empty() {
            self.removed.remove(key);
        }
    }

    /// Takes those that may have expired.
    pub(crate) fn suspects(&mut self, now: Instant) -> HashMap<InstanceKey, Removed> {
        self.sweep(now);
        let mut suspects = std::mem::take(&mut self.removed);
        suspects.retain(|_, removed| removed.lease != 0);
        suspects
    }

    fn sweep(&mut self, now: Instant) {
        self.swept = Some(now);
        self.removed.retain(|_, removed| now.duration_since(removed.at) <= BURST);
    }
}

// === impl Hold ===

impl Hold {
    /// `None`: nothing expired, the set was emptied on purpose.
    pub(crate) fn new(
        suspects: HashMap<InstanceKey, Removed>,
        answer: &Answer,
        scope: &Scope,
        layouts: usize,
        grace: Duration,
        now: Moment,
    ) -> Option<Self> {
        let mut fold = Fold::new(layouts);
        for (key, removed) in suspects {
            if !answer.alive.contains(&removed.lease) {
                fold.change(&key, None, Some(&removed.instance));
            }
        }
        let held = fold.shown().clone();
        if held.is_empty() {
            return None;
        }
        let doubt = match &answer.failed {
            Some(failed) => format!(" (as far as is known: {failed})"),
            None => String::new(),
        };
        let cause = format!(
            "all {} instances of {scope} vanished by lease expiry{doubt}; held until {}",
            held.len(),
            utc(now.wall + grace),
        );
        let until = now.monotonic + grace;
        Some(Self { held, since: now.wall, until, cause: cause.into() })
    }
}

/// The leases to ask after, each once, in order.
pub(crate) fn leases(suspects: &HashMap<InstanceKey, Removed>) -> Vec<i64> {
    let mut leases: Vec<i64> = suspects.values().map(|removed| removed.lease).collect();
    leases.sort_unstable();
    leases.dedup();
    leases
}
