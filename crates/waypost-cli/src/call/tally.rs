//! What came of the calls.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use tonic::{Code, Status};
use waypost::channel::EndpointInfo;

/// What came of the calls.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// By address, with the id of the instance.
    pub(super) served: BTreeMap<String, (String, u64)>,
    /// By code, with an example of what was told.
    pub(super) failures: BTreeMap<i32, (u64, String)>,
    /// In microseconds, of the calls that went well.
    pub(super) latency: Histogram<u64>,
    /// The first.
    pub(super) answer: Option<Bytes>,
}

/// Longer is counted as this.
const LONGEST: u64 = 3_600_000_000;

#[expect(
    clippy::expect_used,
    reason = "the bounds are constants: from 1, at least twice that, and up to 5 digits"
)]
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds are in order")
}

// === impl Tally ===

impl Tally {
    /// Of nothing.
    pub(super) fn new() -> Self {
        Self { served: BTreeMap::new(), failures: BTreeMap::new(), latency: histogram(), answer: None }
    }

    pub(super) fn answered(&mut self, info: Option<&EndpointInfo>, took: Duration, answer: Bytes) {
        if let Some(info) = info {
            let served = self.served.entry(info.endpoint().authority());
            served.or_insert_with(|| (info.key().id.to_string(), 0)).1 += 1;
        }
        self.latency.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST));
        self.answer.get_or_insert(answer);
    }

    pub(super) fn failed(&mut self, status: &Status) {
        let example = || (0, status.message().to_owned());
        self.failures.entry(i32::from(status.code())).or_insert_with(example).0 += 1;
    }

    /// Calls that have ended.
    pub(super) fn calls(&self) -> u64 {
        self.latency.len() + self.failed_calls()
    }

    pub(super) fn failed_calls(&self) -> u64 {
        self.failures.values().map(|(count, _)| count).sum()
    }

    pub(super) fn quantile(&self, share: f64) -> Option<Duration> {
        (!self.latency.is_empty()).then(|| Duration::from_micros(self.latency.value_at_quantile(share)))
    }
}

/// As gRPC names them.
pub(super) fn code_name(code: i32) -> String {
    format!("{:?}", Code::from_i32(code))
}
