//! What came of the calls, for people and for programs.

use std::time::Duration;

use serde::Serialize;
use waypost::channel::Channel;

use super::Plan;
use super::tally::{Tally, code_name};
use crate::output::{Output, Tone, cell};
use crate::report::printable;

/// What came of the calls.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    service: String,
    method: String,
    policy: &'static str,
    /// Whether a service config in etcd was there to begin with.
    service_config: bool,
    pub(super) calls: u64,
    pub(super) failed: u64,
    seconds: f64,
    calls_per_second: f64,
    /// Attempts beyond the first.
    retries: u64,
    served: Vec<Served>,
    /// Of the calls that went well; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<Latency>,
    failures: Vec<Failure>,
    /// The first answer, where the server describes its method.
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<serde_json::Value>,
}

#[derive(Debug, Serialize)]
struct Served {
    endpoint: String,
    id: String,
    calls: u64,
    /// Of the calls that were answered, from 0 to 1.
    share: f64,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct Failure {
    code: String,
    calls: u64,
    example: String,
}

// === impl Summary ===

impl Summary {
    pub(super) fn new(plan: &Plan, channel: &Channel, tally: &Tally, took: Duration) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 calls")]
        let number = |count: u64| count as f64;
        let seconds = took.as_secs_f64();
        let answered = number(tally.latency.len()).max(1.0);
        let served = tally.served.iter().map(|(endpoint, (id, calls))| Served {
            endpoint: endpoint.clone(),
            id: id.clone(),
            calls: *calls,
            share: number(*calls) / answered,
        });
        let failures = tally.failures.iter().map(|(code, (calls, example))| Failure {
            code: code_name(*code),
            calls: *calls,
            example: printable(example),
        });
        let made = channel.call_stats();
        Self {
            service: plan.service.to_string(),
            method: plan.target.path.path().trim_start_matches('/').to_owned(),
            policy: channel.policy().name(),
            service_config: plan.configured,
            calls: tally.calls(),
            failed: tally.failed_calls(),
            seconds,
            calls_per_second: number(tally.calls()) / seconds,
            retries: made.retries + made.hedges + made.unprocessed,
            served: served.collect(),
            latency_ms: Latency::of(tally),
            failures: failures.collect(),
            answer: tally.answer.as_ref().and_then(|answer| plan.target.shown(answer)),
        }
    }

    pub(super) fn print(&self, out: &mut Output) -> anyhow::Result<()> {
        let Self { calls, failed, seconds, calls_per_second, .. } = self;
        let failed =
            out.toned(format_args!("{failed} failed"), if *failed > 0 { Tone::Bad } else { Tone::Good });
        out.line(format_args!("{calls} calls in {seconds:.1} s ({calls_per_second:.1} a second), {failed}"))?;
        if self.retries > 0 {
            out.line(format_args!("{} attempts beyond the first", self.retries))?;
        }
        if !self.served.is_empty() {
            let rows = self.served.iter().map(|served| {
                let share = format!("{:.1} %", served.share * 100.0);
                vec![cell(&served.endpoint), cell(&served.id), cell(served.calls), cell(share)]
            });
            out.line("")?;
            out.table(&["SERVED BY", "INSTANCE", "CALLS", "SHARE"], &[2, 3], rows)?;
        }
        if let Some(Latency { p50, p90, p99, p999, max }) = &self.latency_ms {
            out.line("")?;
            let row = [p50, p90, p99, p999, max].map(|ms| cell(format!("{ms:.2} ms")));
            let heading = ["LATENCY P50", "P90", "P99", "P99.9", "MAX"];
            out.table(&heading, &[0, 1, 2, 3, 4], [row.into()])?;
        }
        if !self.failures.is_empty() {
            let rows = self
                .failures
                .iter()
                .map(|failure| vec![cell(&failure.code), cell(failure.calls), cell(&failure.example)]);
            out.line("")?;
            out.table(&["FAILED WITH", "CALLS", "FOR EXAMPLE"], &[1], rows)?;
        }
        if let Some(answer) = &self.answer {
            out.line(format_args!("\nanswer: {}", printable(&answer.to_string())))?;
        }
        Ok(())
    }
}

// === impl Latency ===

impl Latency {
    fn of(tally: &Tally) -> Option<Self> {
        let ms = |share| Some(tally.quantile(share)?.as_secs_f64() * 1000.0);
        Some(Self { p50: ms(0.5)?, p90: ms(0.9)?, p99: ms(0.99)?, p999: ms(0.999)?, max: ms(1.0)? })
    }
}
