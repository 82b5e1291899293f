//! What is counted of a call and of each of its attempts: once each, however they end.

use crate::code;
use crate::driver::now;
use crate::meter::{Meter, count};
use crate::plan::Plan;
use crate::shared::Shared;
use crate::verdict::outcome;
use crate::wards::Watched;
use std::sync::Arc;
use std::time::Instant;
use tonic::Code;
use tracing::{Span, field};
use waypost_balance::{EndpointState, Outcome};

/// A call. Ends once; dropped before, the caller has cancelled it.
pub(crate) struct Record {
    shared: Arc<Shared>,
    plan: Arc<Plan>,
    since: Instant,
    span: Span,
    open: bool,
}

/// An attempt that an endpoint is working on. Ends once; dropped before, it was cancelled.
pub(crate) struct UnderWay {
    shared: Arc<Shared>,
    started: Option<Watched>,
    attempt: u32,
    span: Span,
}

/// Kept with the endpoint for as long as it is known.
fn meter(started: &Watched) -> Option<&Meter> {
    started.endpoint().annex(Meter::default)
}

// === impl Record ===

impl Record {
    pub(crate) fn new(shared: Arc<Shared>, plan: Arc<Plan>, path: &str, since: Instant) -> Self {
        let service = shared.service();
        let span = tracing::debug_span!("call", service, path, code = field::Empty);
        Self { shared, plan, since, span, open: true }
    }

    /// When the call began.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// What the call goes by.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What attempts are spans of.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// The call has ended for its caller.
    pub(crate) fn ended(mut self, code: Code) {
        if code == Code::Ok {
            self.plan.budget.deposit();
        }
        self.close(code);
    }

    fn close(&mut self, code: Code) {
        if std::mem::take(&mut self.open) {
            self.span.record("code", code::name(code));
            self.shared.counters.ended(code, now().saturating_duration_since(self.since));
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.close(Code::Cancelled);
    }
}

// === impl UnderWay ===

impl UnderWay {
    pub(crate) fn new(shared: Arc<Shared>, started: Watched, attempt: u32, call: &Span) -> Self {
        let span = tracing::debug_span!(
            parent: call,
            "attempt",
            endpoint = %started.endpoint().endpoint(),
            attempt,
            outcome = field::Empty,
        );
        if let Some(meter) = meter(&started) {
            count(&meter.picks);
        }
        Self { shared, started: Some(started), attempt, span }
    }

    /// Where it is, until it has ended.
    pub(crate) fn endpoint(&self) -> Option<&Arc<EndpointState>> {
        self.started.as_ref().map(Watched::endpoint)
    }

    /// Its number.
    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Names service, endpoint and attempt, for errors.
    pub(crate) fn context(&self) -> String {
        let service = self.shared.service();
        match &self.started {
            Some(started) => {
                let (id, at) = (started.endpoint().key().id, started.endpoint().endpoint());
                format!("{service} {id} at {at}, attempt {}", self.attempt)
            }
            None => service.to_owned(),
        }
    }

    /// The headers of the response are there, and do not say that the call has failed.
    ///
    /// Latency is measured up to here: how long a stream lasts says nothing about the endpoint, and where a server sends its headers
    /// long before its answer, the calls that it keeps waiting count as calls in flight.
    pub(crate) fn answered(&mut self) {
        if let Some(started) = &mut self.started {
            started.answered(now());
        }
    }

    /// The endpoint has ended it, with this status.
    pub(crate) fn ended(mut self, code: Code) {
        self.finish(outcome(code), code);
    }

    /// The connection is gone, or the endpoint has reset the stream; the caller is told this.
    pub(crate) fn lost(mut self, code: Code) {
        self.finish(Outcome::Lost, code);
    }

    /// It never reached the endpoint, or was not taken there.
    pub(crate) fn not_sent(mut self) {
        self.finish(Outcome::NotSent, Code::Unavailable);
    }

    fn finish(&mut self, outcome: Outcome, code: Code) {
        if let Some(started) = self.started.take() {
            let told = match outcome {
                Outcome::NotSent => "not sent",
                Outcome::Lost => "lost",
                _ => code::name(code),
            };
            self.span.record("outcome", told);
            let now = now();
            let took = now.saturating_duration_since(started.at());
            match (meter(&started), outcome) {
                (None, _) | (_, Outcome::NotSent) => {}
                (Some(meter), Outcome::Cancelled) => meter.ended(code, None),
                (Some(meter), _) => meter.ended(code, Some(took)),
            }
            started.finished(now, outcome);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.finish(Outcome::Cancelled, Code::Cancelled);
    }
}
