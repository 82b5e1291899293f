//! Who served what, and when. Times are since the first call.

use std::collections::BTreeMap;
use std::time::Duration;

/// Texts of failures that are kept; the rest is only counted.
const KEPT: usize = 5;

/// What came of the calls so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) calls: u64,
    pub(super) failed: u64,
    /// The texts of the first failures.
    pub(super) failures: Vec<String>,
    /// By address.
    pub(super) served: BTreeMap<String, Served>,
}

/// What one server has served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) calls: u64,
    /// When its first reply came.
    pub(super) first: Option<Duration>,
    /// When its last reply came.
    pub(super) last: Option<Duration>,
}

// === impl Tally ===

impl Tally {
    pub(super) fn served(&mut self, address: String, at: Duration) {
        self.calls += 1;
        let served = self.served.entry(address).or_default();
        served.calls += 1;
        served.first = Some(served.first.map_or(at, |first| first.min(at)));
        served.last = served.last.max(Some(at));
    }

    /// Counts these too, even if they have served nothing.
    pub(super) fn include(&mut self, addresses: &[String]) {
        for address in addresses {
            self.served.entry(address.clone()).or_default();
        }
    }

    pub(super) fn failed(&mut self, text: String) {
        self.calls += 1;
        self.failed += 1;
        if self.failures.len() < KEPT {
            self.failures.push(text);
        }
    }

    /// Calls that this server has answered.
    pub(super) fn calls_of(&self, address: &str) -> u64 {
        self.served.get(address).map_or(0, |served| served.calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_server_and_keeps_first_and_last() {
        let at = Duration::from_millis;
        let mut tally = Tally::default();
        tally.served("a".into(), at(20));
        tally.served("a".into(), at(10));
        tally.served("b".into(), at(30));
        for _ in 0..10 {
            tally.failed("why".into());
        }
        assert_eq!((tally.calls, tally.failed, tally.failures.len()), (13, 10, KEPT));
        assert_eq!(tally.served["a"], Served { calls: 2, first: Some(at(10)), last: Some(at(20)) });
        tally.include(&["a".into(), "c".into()]);
        assert_eq!(tally.served["c"], Served::default());
        assert_eq!(tally.calls_of("a"), 2);
    }
}
